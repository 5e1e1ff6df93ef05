// What goes out to a client: CONNACK, QoS 1 and 2 towards it, SUBACK. Over real sockets, in 3.1.1 and 5.

import { generate, type Packet } from "mqtt-packet";
import { describe, expect, vi } from "vitest";
import { Acknowledgements } from "../../src/broker/acknowledgements.ts";
import { checkConnect } from "../../src/broker/connect-check.ts";
import type { ConnectionContext } from "../../src/broker/connection-context.ts";
import { defaultWireLimits } from "../../src/broker/frames.ts";
import { Outgoing } from "../../src/broker/outgoing.ts";
import { Sessions } from "../../src/broker/sessions.ts";
import { Wills } from "../../src/broker/wills.ts";
import { createEvents } from "../../src/events.ts";
import { createTraffic } from "../../src/telemetry.ts";
import { defaultLimits, type Harness, publish, type RawClient, test } from "./harness.ts";

type Connect = Partial<Extract<Packet, { cmd: "connect" }>>;
type Publish = Extract<Packet, { cmd: "publish" }>;

const five: Connect = { protocolVersion: 5 };
const lasting5: Connect = { protocolVersion: 5, clean: false, properties: { sessionExpiryInterval: 100 } };

const versions: readonly (readonly [string, Connect])[] = [
  ["3.1.1", { clean: false }],
  ["5", lasting5],
];

async function open(harness: Harness, options: Connect): Promise<RawClient> {
  const client = await harness.open();
  await client.connect(options);
  return client;
}

async function subscribe(client: RawClient, topic: string, qos: 0 | 1 | 2 = 1, more: object = {}): Promise<void> {
  client.send({ cmd: "subscribe", messageId: 99, subscriptions: [{ topic, qos }], ...more });
  await client.next("suback");
}

/** Everything sent so far was handled. Twice: Aedes publishes a QoS 1 message in the turn after its PUBACK. */
async function handled(client: RawClient): Promise<void> {
  for (let round = 0; round < 2; round += 1) {
    client.send({ cmd: "pingreq" });
    await client.next("pingresp");
  }
}

const publishes = (client: RawClient): readonly Publish[] =>
  client.packets.filter((packet): packet is Publish => packet.cmd === "publish");

const texts = (client: RawClient): readonly string[] => publishes(client).map(({ payload }) => payload.toString());

const isPresent = (client: RawClient): boolean =>
  client.packets.some((packet) => packet.cmd === "connack" && packet.sessionPresent);

async function say(sender: RawClient, ...payloads: readonly string[]): Promise<void> {
  for (const payload of payloads)
    sender.send(publish({ topic: "news", payload, messageId: 1 + payloads.indexOf(payload) }));
  await handled(sender);
}

async function leave(client: RawClient): Promise<void> {
  client.socket.destroy();
  await client.closed;
}

describe("CONNACK", () => {
  test.for(versions)(
    "says that a session is present though it has no subscriptions [MQTT-3.2.2-2], in %s",
    async ([, options], { openHarness }) => {
      const harness = await openHarness();
      const first = await open(harness, options);
      expect(isPresent(first)).toBe(false);
      await leave(first);
      const second = await open(harness, options);
      expect(isPresent(second)).toBe(true);
      await leave(second);
      expect(isPresent(await open(harness, { ...options, clean: true }))).toBe(false); // [MQTT-3.2.2-3]
    },
  );

  test("tells the client id that was given to a client without one [MQTT-3.1.3-6]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    client.send(Buffer.from([0x10, 13, 0, 4, ...Buffer.from("MQTT"), 5, 2, 0, 0, 0, 0, 0]));
    const ids: string[] = [];
    harness.events.on("connected", (clientId) => ids.push(clientId));
    await new Promise((resolve) => harness.events.once("connected", resolve));
    client.socket.destroy();
    const other = await open(harness, { ...five, clientId: "" });
    const connack = other.packets.find((packet) => packet.cmd === "connack");
    expect(ids[1]).toMatch(/^sluice-[0-9a-f]{24}$/);
    expect(connack).toMatchObject({ properties: { assignedClientIdentifier: ids[1] } });
  });

  test("tells a session expiry that is less than was asked for", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { sessionExpiryS: 60 } });
    const asks = async (sessionExpiryInterval: number): Promise<number | undefined> => {
      const client = await open(harness, { ...five, properties: { sessionExpiryInterval } });
      const connack = client.packets.find((packet) => packet.cmd === "connack");
      return connack?.properties?.sessionExpiryInterval;
    };
    expect(await asks(0xffff_ffff)).toBe(60);
    expect(await asks(61)).toBe(60);
    expect(await asks(60)).toBeUndefined();
  });

  test("is without properties for a client that takes no packet of their size [MQTT-3.1.2-24]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await open(harness, { ...five, properties: { maximumPacketSize: 10 } });
    expect(client.packets.find((packet) => packet.cmd === "connack")).toMatchObject({ length: 3 });
  });
});

describe("QoS 1 and 2 towards a client", () => {
  test.for(versions)(
    "come again with DUP after a reconnect, those of the queue without [MQTT-3.3.1-1], in %s",
    async ([, options], { openHarness }) => {
      const harness = await openHarness();
      const sender = await open(harness, { clientId: "sender" });
      const client = await open(harness, options);
      await subscribe(client, "news");
      await say(sender, "sent");
      const { messageId } = await client.next("publish");
      await leave(client);
      await say(sender, "queued");
      const back = await open(harness, options);
      expect(await back.next("publish")).toMatchObject({ dup: true, messageId, qos: 1 });
      expect(await back.next("publish")).toMatchObject({ dup: false, qos: 1 });
      expect(texts(back)).toEqual(["sent", "queued"]);
      for (const { messageId: id = 0 } of publishes(back)) back.send({ cmd: "puback", messageId: id });
      await handled(back);
      await leave(back);
      const third = await open(harness, options);
      await handled(third);
      expect(publishes(third)).toEqual([]);
    },
  );

  test.for(versions)(
    "QoS 2 goes on with PUBREL after a reconnect [MQTT-4.4.0-1], in %s",
    async ([, options], { openHarness }) => {
      const harness = await openHarness();
      const sender = await open(harness, { clientId: "sender" });
      const client = await open(harness, options);
      await subscribe(client, "news", 2);
      sender.send(publish({ topic: "news", qos: 2, messageId: 1 }));
      const { messageId = 0, qos } = await client.next("publish");
      expect(qos).toBe(2);
      client.send({ cmd: "pubrec", messageId });
      expect(await client.next("pubrel")).toMatchObject({ messageId });
      await leave(client);
      const back = await open(harness, options);
      expect(await back.next("pubrel")).toMatchObject({ messageId });
      expect(publishes(back)).toEqual([]);
      back.send({ cmd: "pubcomp", messageId });
      await handled(back);
      await leave(back);
      const third = await open(harness, options);
      await handled(third);
      expect(third.packets.map(({ cmd }) => cmd)).toEqual(["connack", "pingresp", "pingresp"]);
    },
  );

  test("a PUBREC that nobody waits for is answered with 0x92", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, five);
    client.send({ cmd: "pubrec", messageId: 7 });
    expect(await client.next("pubrel")).toMatchObject({ messageId: 7, reasonCode: 0x92 });
  });

  test("a PUBREC with an error ends the handshake [MQTT-4.3.3-4]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, { ...five, properties: { receiveMaximum: 1 } });
    await subscribe(client, "news", 2);
    client.send(publish({ topic: "news", qos: 2, messageId: 1 }), publish({ topic: "news", qos: 2, messageId: 2 }));
    const { messageId = 0 } = await client.next("publish");
    client.send({ cmd: "pubrec", messageId, reasonCode: 0x97 });
    const second = await client.next("publish");
    expect(second.messageId).not.toBe(messageId);
    expect(client.packets.filter(({ cmd }) => cmd === "pubrel")).toEqual([]);
  });

  test("never more are in flight than the client takes [MQTT-3.3.4-9], and what waits keeps its order", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const sender = await open(harness, { clientId: "sender" });
    const client = await open(harness, { ...five, properties: { receiveMaximum: 2 } });
    await subscribe(client, "news");
    await say(sender, "1", "2", "3", "4", "5");
    await handled(client);
    expect(texts(client)).toEqual(["1", "2"]);
    for (let count = 2; count < 5; count += 1) {
      const { messageId = 0 } = await client.next("publish");
      client.send({ cmd: "puback", messageId });
      await handled(client);
      expect(texts(client)).toHaveLength(count + 1);
    }
    expect(texts(client)).toEqual(["1", "2", "3", "4", "5"]);
  });

  test("after a reconnect the receive maximum holds for what comes again too", async ({ openHarness }) => {
    const harness = await openHarness();
    const sender = await open(harness, { clientId: "sender" });
    const client = await open(harness, lasting5);
    await subscribe(client, "news");
    await say(sender, "1", "2", "3");
    await handled(client);
    expect(texts(client)).toEqual(["1", "2", "3"]);
    await leave(client);
    const back = await open(harness, { ...lasting5, properties: { sessionExpiryInterval: 100, receiveMaximum: 1 } });
    await handled(back);
    expect(texts(back)).toEqual(["1"]);
    for (const text of ["2", "3"]) {
      back.send({ cmd: "puback", messageId: publishes(back).at(-1)?.messageId ?? 0 });
      await handled(back);
      expect(publishes(back).at(-1)).toMatchObject({ dup: true });
      expect(texts(back).at(-1)).toBe(text);
    }
  });

  test.for([0, 1, 2] as const)(
    "a packet larger than the client takes is not sent, and counted; QoS %i goes on [MQTT-3.1.2-24, -25]",
    async (qos, { openHarness }) => {
      const harness = await openHarness();
      const dropped: string[] = [];
      harness.events.on("dropped", (clientId, topic) => dropped.push(`${clientId} ${topic}`));
      const client = await open(harness, { ...five, properties: { maximumPacketSize: 100, receiveMaximum: 1 } });
      await subscribe(client, "news", qos);
      const sender = await open(harness, { clientId: "sender" });
      sender.send(publish({ topic: "news", qos, messageId: 1, payload: "x".repeat(100) }));
      sender.send(publish({ topic: "news", qos, messageId: 2, payload: "small" }));
      await client.next("publish");
      expect(texts(client)).toEqual(["small"]);
      expect(dropped).toEqual(["c1 news"]);
    },
  );

  test("is not lost when a QoS 0 message overtakes it in Aedes", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, { clientId: "all" });
    client.send({
      cmd: "subscribe",
      messageId: 1,
      subscriptions: [
        { topic: "kept/#", qos: 1 },
        { topic: "low/#", qos: 0 },
      ],
    });
    await client.next("suback");
    const sender = await open(harness, { clientId: "sender" });
    sender.send(
      publish({ topic: "kept/a", qos: 1, messageId: 1, payload: "1" }),
      publish({ topic: "low/a", qos: 1, messageId: 2, payload: "2" }),
      publish({ topic: "low/b", qos: 0, retain: true, payload: "3" }),
      publish({ topic: "low/c", qos: 0, payload: "4" }),
    );
    await handled(sender);
    await handled(client);
    expect([...texts(client)].toSorted()).toEqual(["1", "2", "3", "4"]);
  });

  test("has the highest QoS of all subscriptions that match, and their identifiers [MQTT-3.3.4-2, -3]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await open(harness, five);
    for (const [index, [topic, qos]] of (
      [
        ["a/+", 0],
        ["a/b", 2],
        ["a/#", 1],
      ] as const
    ).entries()) {
      await subscribe(client, topic, qos, { properties: { subscriptionIdentifier: index + 1 } });
    }
    client.send(publish({ topic: "a/b", qos: 2, messageId: 1 }));
    await client.next("publish");
    await handled(client);
    expect(publishes(client)).toHaveLength(1);
    expect(publishes(client)[0]).toMatchObject({ qos: 2 });
    const { subscriptionIdentifier } = publishes(client)[0]?.properties ?? {};
    expect(new Set([subscriptionIdentifier].flat())).toEqual(new Set([1, 2, 3]));
  });

  test.for([
    ["a/b", "a/#"],
    ["a/#", "a/b"],
    ["a/b", "+/b"],
    ["+/b", "a/b"],
  ] as const)(
    "comes once, from the queue, though %s is subscribed with QoS 0 and %s with 1",
    async (filters, { openHarness }) => {
      const harness = await openHarness();
      const client = await open(harness, {});
      for (const [qos, filter] of filters.entries()) await subscribe(client, filter, qos === 0 ? 0 : 1);
      client.send(publish({ topic: "a/b", qos: 1, messageId: 1 }));
      expect(await client.next("publish")).toMatchObject({ qos: 1 });
      await handled(client);
      expect(publishes(client)).toHaveLength(1);
    },
  );

  test("has no more than the QoS that was granted, also for a wildcard [MQTT-3.8.4-8]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, {});
    await subscribe(client, "a/+", 1);
    client.send(publish({ topic: "a/b", qos: 2, messageId: 1 }));
    expect(await client.next("publish")).toMatchObject({ qos: 1 });
  });

  test("No Local keeps a message from its publisher [MQTT-3.8.3-3], Retain As Published keeps its flag", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await open(harness, five);
    client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "a", qos: 1, nl: true }] });
    await client.next("suback");
    const other = await open(harness, { ...five, clientId: "other" });
    other.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "a", qos: 1, rap: true }] });
    await other.next("suback");
    const third = await open(harness, { ...five, clientId: "third" });
    await subscribe(third, "a");
    client.send(publish({ topic: "a", messageId: 1, retain: true }));
    expect(await other.next("publish")).toMatchObject({ retain: true });
    expect(await third.next("publish")).toMatchObject({ retain: false });
    await handled(client);
    expect(publishes(client)).toEqual([]);
  });

  test("a message that has expired in the queue is not sent, what is left of an expiry is told [MQTT-3.3.2-5, -6]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await open(harness, lasting5);
    await subscribe(client, "news");
    await leave(client);
    const sender = await open(harness, { ...five, clientId: "sender" });
    sender.send(publish({ topic: "news", messageId: 1, payload: "1", properties: { messageExpiryInterval: 1 } }));
    sender.send(publish({ topic: "news", messageId: 2, payload: "2", properties: { messageExpiryInterval: 100 } }));
    await handled(sender);
    const now = Date.now.bind(Date);
    const put = vi.spyOn(Date, "now").mockImplementation(() => now() + 2_000);
    const back = await open(harness, lasting5);
    const message = await back.next("publish");
    put.mockRestore();
    expect(texts(back)).toEqual(["2"]);
    expect(message.properties?.messageExpiryInterval).toBeLessThan(100);
  });
});

/** What goes out of a connection whose client is authenticated and not yet accepted, by itself. */
function openOutgoing() {
  const events = createEvents();
  const wills: string[] = [];
  const context = {
    limits: defaultLimits,
    events,
    sessions: new Sessions(defaultLimits, events, () => {}),
    traffic: createTraffic(),
    wills: new Wills(1, ({ topic }) => void wills.push(topic)),
  };
  const owner = {
    writable: true,
    writeCounted: () => {},
    accepted: () => {},
    refused: () => true,
    forward: () => {},
    failed: () => {},
  };
  const will = { topic: "w", payload: Buffer.from("x"), qos: 0, retain: false } as const;
  const connect = { cmd: "connect", clientId: "c", protocolId: "MQTT", protocolVersion: 4, clean: true, will } as const;
  const bytes = generate(connect);
  const facts = checkConnect(bytes, 0, 2, bytes.length, defaultWireLimits);
  if (facts.kind === "fault") throw new Error(facts.reason);
  const out = new Outgoing(context as unknown as ConnectionContext, owner, new Acknowledgements(), facts);
  out.prepare({ ...connect });
  out.open("c", undefined);
  return { out, wills };
}

function passes(out: Outgoing, packet: Packet): boolean {
  const bytes = generate(packet);
  return out.passes(bytes, 0, 2, bytes.length);
}

describe("before CONNACK", () => {
  test("there is no will", () => {
    const gone = openOutgoing();
    gone.out.leave(0);
    expect(gone.wills).toEqual([]);
    const connected = openOutgoing();
    passes(connected.out, { cmd: "connack", returnCode: 0, sessionPresent: false });
    connected.out.leave(0);
    expect(connected.wills).toEqual(["w"]);
  });

  test("nothing comes when a session resumes under traffic", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { queuedMessagesPerSession: 1_000 } });
    const client = await open(harness, lasting5);
    client.send({
      cmd: "subscribe",
      messageId: 1,
      subscriptions: [
        { topic: "news", qos: 1 },
        { topic: "fast", qos: 0 },
      ],
    });
    await client.next("suback");
    await leave(client);
    const back = await harness.open();
    // Between the restored subscriptions and CONNACK Aedes gives way once. What is this large is written at once.
    const payload = "x".repeat(100_000);
    let next: NodeJS.Immediate | undefined;
    const publishEachTurn = (): void => {
      void harness.broker.publish({ topic: "fast", payload });
      void harness.broker.publish({ topic: "news", payload: "x", qos: 1 });
      next = setImmediate(publishEachTurn);
    };
    publishEachTurn();
    await back.connect(lasting5);
    await back.next("publish");
    clearImmediate(next);
    expect(back.packets[0]?.cmd).toBe("connack");
    expect(isPresent(back)).toBe(true);
  });
});

async function ask(client: RawClient, topics: readonly string[]): Promise<unknown> {
  client.send({
    cmd: "subscribe",
    messageId: 1,
    subscriptions: topics.map((topic, index) => ({ topic, qos: (index % 3) as 0 | 1 | 2 })),
  });
  const { granted } = await client.next("suback");
  return granted;
}

describe("SUBACK and UNSUBACK", () => {
  test.for([{}, five])(
    "have a code for each filter, in its place: equal, number-like (%o)",
    async (options, { openHarness }) => {
      const harness = await openHarness({ limits: { maximumSubscriptionsPerClient: 10 } });
      const client = await open(harness, options);
      expect(await ask(client, ["b", "2", "b", "1", "a"])).toEqual([0, 1, 2, 0, 1]);
      client.send(publish({ topic: "b", qos: 2, messageId: 1 }));
      expect(await client.next("publish")).toMatchObject({ qos: 2 }); // the last one holds
    },
  );

  test("refuse a shared subscription: 0x9E in 5, 0x80 in 3.1.1, and nothing is left of it", async ({ openHarness }) => {
    const harness = await openHarness();
    const newer = await open(harness, { ...lasting5, clientId: "newer" });
    expect(await ask(newer, ["$share/g/a", "a"])).toEqual([0x9e, 1]);
    const older = await open(harness, { clean: false, clientId: "older" });
    expect(await ask(older, ["$share/g/a"])).toEqual([0x80]);
    await leave(newer);
    const back = await open(harness, { ...lasting5, clientId: "newer" });
    back.send({ cmd: "unsubscribe", messageId: 2, unsubscriptions: ["$share/g/a", "a"] });
    expect((await back.next("unsuback")).granted).toEqual([0x11, 0]);
  });

  test("refuse what is beyond the limit of a client: 0x97 in 5, 0x80 in 3.1.1", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumSubscriptionsPerClient: 2 } });
    const newer = await open(harness, { ...five, clientId: "newer" });
    expect(await ask(newer, ["a", "b", "c", "a"])).toEqual([0, 1, 0x97, 0]);
    const older = await open(harness, { clientId: "older" });
    expect(await ask(older, ["a", "b", "c", "a"])).toEqual([0, 1, 0x80, 0]);
  });

  test("say 0x11 where no subscription existed [MQTT-3.11.3-2]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, five);
    await subscribe(client, "a");
    client.send({ cmd: "unsubscribe", messageId: 2, unsubscriptions: ["a", "b", "a"] });
    expect((await client.next("unsuback")).granted).toEqual([0, 0x11, 0x11]);
    client.send(publish({ topic: "a", messageId: 1 }));
    await client.next("puback");
    await handled(client);
    expect(publishes(client)).toEqual([]);
  });
});
