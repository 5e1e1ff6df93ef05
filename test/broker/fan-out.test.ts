// What live subscribers are given, of telemetry (which reaches them without Aedes) and of other topics alike.

import { generate, type Packet } from "mqtt-packet";
import { describe, expect } from "vitest";
import type { Authenticate } from "../../src/broker/authenticate.ts";
import { type Harness, publish, type RawClient, test } from "./harness.ts";
import { counted } from "./wire.ts";

type Publish = Extract<Packet, { cmd: "publish" }>;
type Subscription = Extract<Packet, { cmd: "subscribe" }>["subscriptions"][number];

const telemetry = "devices/d1/telemetry";
const other = "other/d1/topic";
const versions = [4, 5] as const;

interface Watching {
  readonly clientId: string;
  readonly version?: 3 | 4 | 5;
  readonly identifier?: number;
  readonly clean?: boolean;
  readonly connect?: Partial<Extract<Packet, { cmd: "connect" }>>;
}

let packetId = 0;
const nextId = (): number => (packetId += 1);

async function subscribe(
  client: RawClient,
  subscriptions: readonly (Partial<Subscription> & { readonly topic: string })[],
  identifier?: number,
): Promise<void> {
  const properties = identifier === undefined ? undefined : { properties: { subscriptionIdentifier: identifier } };
  for (const subscription of subscriptions) {
    client.send({
      cmd: "subscribe",
      messageId: nextId(),
      subscriptions: [{ qos: 0, ...subscription }],
      ...properties,
    });
    await client.next("suback");
  }
}

async function watch(
  harness: Harness,
  { clientId, version = 4, identifier, clean = true, connect }: Watching,
  ...subscriptions: readonly (Partial<Subscription> & { readonly topic: string })[]
): Promise<RawClient> {
  const client = await harness.open();
  const protocol = version === 3 ? ({ protocolId: "MQIsdp" } as const) : undefined;
  await client.connect({ clientId, protocolVersion: version, clean, ...protocol, ...connect });
  await subscribe(client, subscriptions, identifier);
  return client;
}

/** All messages until the one with the topic "last", which is sent now; answers QoS 1 and 2. */
async function untilLast(harness: Harness, client: RawClient): Promise<readonly Publish[]> {
  const got: Publish[] = [];
  await subscribe(client, [{ topic: "last" }]);
  await harness.broker.publish({ topic: "last", payload: "" });
  for (;;) {
    const message = await client.next("publish");
    if (message.topic === "last") return got;
    got.push(message);
  }
}

/** A client that publishes and has been answered: what it sent was handled. */
async function send(harness: Harness, ...messages: readonly Partial<Publish>[]): Promise<void> {
  const device = await harness.open();
  await device.connect({ clientId: `device-${nextId()}`, protocolVersion: 5 });
  await sendOver(device, ...messages);
}

async function sendOver(device: RawClient, ...messages: readonly Partial<Publish>[]): Promise<void> {
  for (const message of messages) {
    const qos = message.qos ?? 0;
    const messageId = nextId();
    device.send(publish({ qos: 0, ...message, ...(qos > 0 && { messageId }) }));
    if (qos === 1) await device.next("puback");
    if (qos === 2) {
      await device.next("pubrec");
      device.send({ cmd: "pubrel", messageId });
      await device.next("pubcomp");
    }
  }
  device.send({ cmd: "pingreq" });
  await device.next("pingresp");
}

const qosLevels = [0, 1, 2] as const;
/** A User Property. */
const pair = (name: string, value: string): Buffer =>
  Buffer.concat([Buffer.from([0x26]), counted(name), counted(value)]);
const textAndQos = ({ payload, qos }: Publish): string => `${payload.toString()} ${qos}`;
const textOf = ({ payload }: Publish): string => payload.toString();

describe.for([telemetry, other])("%s", (topic) => {
  const wildcard = topic.replace("d1", "+");

  test.for(versions)(
    "version %d: QoS is the lower of published and granted, one copy each [MQTT-3.8.4-8]",
    async (version, { openHarness }) => {
      const harness = await openHarness();
      harness.autoCommit = true;
      for (const filter of [topic, wildcard, "#"]) {
        for (const granted of qosLevels) {
          const clientId = `${filter} ${granted}`;
          const client = await watch(harness, { clientId, version }, { topic: filter, qos: granted });
          await send(harness, ...qosLevels.map((qos) => ({ topic, qos, payload: String(qos) })));
          const got = await untilLast(harness, client);
          expect(got.map(textAndQos).toSorted()).toEqual(qosLevels.map((qos) => `${qos} ${Math.min(qos, granted)}`));
          client.socket.destroy();
        }
      }
    },
  );

  test("filters that overlap give one copy, with the highest QoS and all identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-4]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const client = await watch(harness, { clientId: "w", version: 5, identifier: 7 }, { topic, qos: 0 });
    await subscribe(client, [{ topic: wildcard, qos: 1 }], 300);
    await subscribe(client, [{ topic: "#", qos: 0 }]);
    await send(harness, { topic, qos: 2, payload: "two" }, { topic, qos: 0, payload: "zero" });
    const got = await untilLast(harness, client);
    expect(got.map(textAndQos).toSorted()).toEqual(["two 1", "zero 0"]);
    for (const { properties } of got) {
      expect(properties?.subscriptionIdentifier).toHaveLength(2);
      expect(new Set(properties?.subscriptionIdentifier as unknown as number[])).toEqual(new Set([7, 300]));
    }
  });

  test("3.1.1: filters that overlap give one copy with the highest QoS [MQTT-3.3.5-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const client = await watch(harness, { clientId: "w" }, { topic, qos: 1 }, { topic: wildcard, qos: 0 });
    await send(harness, { topic, qos: 1 });
    expect((await untilLast(harness, client)).map(({ qos }) => qos)).toEqual([1]);
  });

  test("No Local keeps a client's own messages from it, for that filter only [MQTT-3.8.3-3]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const options = { clientId: "own", version: 5, identifier: 1 } as const;
    const client = await watch(harness, options, { topic, nl: true, qos: 1 });
    await sendOver(client, { topic, qos: 0, payload: "mine" }, { topic, qos: 1, payload: "mine" });
    await send(harness, { topic, qos: 0, payload: "theirs" }, { topic, qos: 1, payload: "theirs" });
    await subscribe(client, [{ topic: wildcard, nl: false, qos: 0 }], 2);
    await sendOver(client, { topic, qos: 1, payload: "mine too" });
    const got = await untilLast(harness, client);
    expect(got.map((message) => [textOf(message), message.qos, message.properties?.subscriptionIdentifier])).toEqual([
      ["theirs", 0, 1],
      ["theirs", 1, 1],
      ["mine too", 0, 2],
    ]);
  });

  test("RETAIN is 0 for live delivery, and as published for who asks for it [MQTT-3.3.1-12] [MQTT-3.3.1-13]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const old = await watch(harness, { clientId: "old" }, { topic: "#", qos: 1 });
    const plain = await watch(harness, { clientId: "plain", version: 5 }, { topic: "#", qos: 1 });
    const asked = await watch(harness, { clientId: "asked", version: 5 }, { topic: "#", qos: 1, rap: true });
    await send(
      harness,
      ...[true, false].flatMap((retain) =>
        [0, 1].map((qos) => ({ topic, retain, qos: qos as 0 | 1, payload: `${retain} ${qos}` })),
      ),
    );
    for (const client of [old, plain, asked]) {
      const got = await untilLast(harness, client);
      expect(got.map(textOf).toSorted()).toEqual(["false 0", "false 1", "true 0", "true 1"]);
      for (const message of got) expect(message.retain).toBe(client === asked && textOf(message).startsWith("true"));
    }
  });

  test("all properties reach MQTT 5 subscribers, and none the others [MQTT-3.3.2-4]", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const subscriptions = [0, 1].map((qos) => ({ topic: qos === 0 ? topic : wildcard, qos: qos as 0 | 1 }));
    const clients = await Promise.all(
      versions.flatMap((version) =>
        subscriptions.map((subscription) =>
          watch(harness, { clientId: `${version} ${subscription.qos}`, version }, subscription),
        ),
      ),
    );
    const properties = {
      payloadFormatIndicator: true,
      messageExpiryInterval: 100,
      contentType: "application/json",
      responseTopic: "answers/d1",
      correlationData: Buffer.from([0, 1, 2]),
      userProperties: { site: ["north", "south"], unit: "°C" },
    };
    await send(harness, { topic, qos: 1, properties });
    for (const [index, client] of clients.entries()) {
      const [message] = await untilLast(harness, client);
      expect({ ...message?.properties }).toEqual(index < 2 ? {} : properties);
    }
  });

  test("a packet larger than the client takes is not sent, and counted [MQTT-3.1.2-24] [MQTT-3.1.2-25]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const dropped: unknown[] = [];
    harness.events.on("dropped", (...about) => dropped.push(about));
    harness.events.on("limited", (...about) => dropped.push(about));
    const connect = { properties: { maximumPacketSize: 60 } };
    const client = await watch(harness, { clientId: "small", version: 5, connect }, { topic: "#", qos: 0 });
    const room = 60 - 2 - 2 - topic.length - 1;
    await send(
      harness,
      { topic, payload: "x".repeat(room) },
      { topic, payload: "y".repeat(room + 1) },
      { topic, payload: "z" },
    );
    const got = await untilLast(harness, client);
    expect(got.map(textOf)).toEqual(["x".repeat(room), "z"]);
    expect(dropped).toEqual([["small", topic, 1]]);
  });

  test("subscribers of all versions get the same bytes, encoded once", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const named = versions.flatMap((version) => ["a", "b"].map((name) => ({ version, clientId: `${name}${version}` })));
    const streams: Buffer[][] = [];
    const clients: RawClient[] = [];
    for (const options of [...named, { version: 3, clientId: "c3" } as const]) {
      const client = await watch(harness, options, { topic: "#", qos: 0 });
      const stream: Buffer[] = [];
      client.socket.on("data", (chunk: Buffer) => stream.push(chunk));
      streams.push(stream);
      clients.push(client);
    }
    const messages = Array.from({ length: 300 }, (_, index) => publish({ topic, qos: 0, payload: "p".repeat(index) }));
    const device = await harness.open();
    await device.connect({ clientId: "device" });
    device.send(...messages, { cmd: "pingreq" });
    await device.next("pingresp");
    await harness.broker.publish({ topic: "end", payload: "" });
    for (const client of clients) while ((await client.next("publish")).topic !== "end");
    const [a4, b4, a5, b5, c3] = streams.map((stream) => Buffer.concat(stream));
    const expected = (protocolVersion: number): Buffer =>
      Buffer.concat(
        [...messages, publish({ topic: "end", payload: "", qos: 0 })].map((packet) =>
          generate(packet, { protocolVersion }),
        ),
      );
    for (const bytes of [a4, b4, c3]) expect(bytes?.equals(expected(4))).toBe(true);
    for (const bytes of [a5, b5]) expect(bytes?.equals(expected(5))).toBe(true);
  });
});

describe("telemetry", () => {
  test("user properties keep their order [MQTT-3.3.2-18], the bytes of all properties are as they came", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const client = await watch(harness, { clientId: "w", version: 5 }, { topic: "#", qos: 0 });
    const received: Buffer[] = [];
    client.socket.on("data", (chunk: Buffer) => received.push(chunk));
    const properties = Buffer.concat([pair("a", "1"), Buffer.from([0x02, 0, 0, 0, 9]), pair("b", "2"), pair("a", "3")]);
    const body = Buffer.concat([counted(telemetry), Buffer.from([properties.length]), properties, Buffer.from("data")]);
    const whole = Buffer.concat([Buffer.from([0x30, body.length]), body]);
    const device = await harness.open();
    await device.connect({ clientId: "device", protocolVersion: 5 });
    device.send(whole);
    await client.next("publish");
    expect(Buffer.concat(received)).toEqual(whole);
  });

  test("a topic alias is between publisher and gateway alone [MQTT-3.3.2-7]", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const zero = await watch(harness, { clientId: "zero", version: 5 }, { topic: "#", qos: 0 });
    const one = await watch(harness, { clientId: "one", version: 5 }, { topic: "#", qos: 1 });
    const properties = { topicAlias: 1, contentType: "text/plain", userProperties: { a: "b" } };
    await send(
      harness,
      { topic: telemetry, qos: 1, payload: "first", properties },
      { topic: "", qos: 1, payload: "second", properties },
    );
    const { topicAlias: _alias, ...others } = properties;
    for (const client of [zero, one]) {
      const got = await untilLast(harness, client);
      expect(got.map((message) => [message.topic, textOf(message), { ...message.properties }])).toEqual([
        [telemetry, "first", others],
        [telemetry, "second", others],
      ]);
    }
  });

  test("a publisher's messages come in their order, whatever their QoS and RETAIN [MQTT-4.6.0-5]", async ({
    openHarness,
  }) => {
    const harness = await openHarness({ limits: { queuedMessagesPerSession: 100 } });
    harness.autoCommit = true;
    const zero = await watch(harness, { clientId: "zero" }, { topic: "#", qos: 0 });
    const one = await watch(harness, { clientId: "one" }, { topic: "#", qos: 1 });
    const kept = await watch(harness, { clientId: "kept", clean: false }, { topic: "#", qos: 1 });
    const device = await harness.open();
    await device.connect({ clientId: "device" });
    const numbers = Array.from({ length: 30 }, (_, index) => index);
    device.send(
      ...numbers.map((index) =>
        publish({
          qos: (index % 3) as 0 | 1 | 2,
          messageId: index + 1,
          retain: index % 4 === 0,
          payload: String(index),
        }),
      ),
    );
    const all = async (client: RawClient): Promise<readonly Publish[]> => {
      const got: Publish[] = [];
      while (got.length < numbers.length) got.push(await client.next("publish"));
      return got;
    };
    expect((await all(zero)).map(textOf)).toEqual(numbers.map(String));
    for (const client of [one, kept]) {
      const got = await all(client);
      // Messages of QoS 0 may overtake others.
      for (const granted of [0, 1]) {
        const expected = numbers.filter((index) => Math.min(index % 3, 1) === granted);
        expect(got.filter(({ qos }) => qos === granted).map(textOf)).toEqual(expected.map(String));
      }
    }
  });

  test("a session that is away gets QoS 1 telemetry, and those who watch with QoS 0 get it once", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const away = await watch(harness, { clientId: "away", clean: false }, { topic: telemetry, qos: 1 });
    away.socket.destroy();
    await away.closed;
    const zero = await watch(harness, { clientId: "zero" }, { topic: "#", qos: 0 });
    await send(harness, { qos: 1, payload: "kept" }, { qos: 0, payload: "not kept" });
    expect((await untilLast(harness, zero)).map(textOf)).toEqual(["kept", "not kept"]);
    const back = await watch(harness, { clientId: "away", clean: false });
    expect((await untilLast(harness, back)).map(textOf)).toEqual(["kept"]);
  });

  test("a session that unsubscribed or was ended by a clean start gets nothing more", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const first = await watch(harness, { clientId: "s", clean: false }, { topic: telemetry, qos: 1 });
    first.send({ cmd: "unsubscribe", messageId: nextId(), unsubscriptions: [telemetry] });
    await first.next("unsuback");
    await send(harness, { qos: 1, payload: "unsubscribed" });
    const second = await watch(harness, { clientId: "s", clean: false }, { topic: telemetry, qos: 1 });
    await send(harness, { qos: 1, payload: "subscribed" });
    expect((await untilLast(harness, second)).map(textOf)).toEqual(["subscribed"]);
    await watch(harness, { clientId: "s", clean: true });
    await send(harness, { qos: 1, payload: "ended" });
    const third = await watch(harness, { clientId: "s", clean: false });
    expect(await untilLast(harness, third)).toEqual([]);
  });

  test("what a subscription changes counts from the next message on", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const device = await harness.open();
    await device.connect({ clientId: "device" });
    const say = (payload: string): Promise<void> => sendOver(device, { payload });
    await say("before");
    const client = await watch(harness, { clientId: "w" }, { topic: telemetry });
    await say("exact");
    client.send({ cmd: "unsubscribe", messageId: nextId(), unsubscriptions: [telemetry] });
    await client.next("unsuback");
    await say("unsubscribed");
    await subscribe(client, [{ topic: "devices/#" }]);
    await say("wildcard");
    await subscribe(client, [{ topic: telemetry }]);
    await say("both");
    client.send({ cmd: "unsubscribe", messageId: nextId(), unsubscriptions: ["devices/#"] });
    await client.next("unsuback");
    await say("exact again");
    await subscribe(client, [{ topic: telemetry, qos: 1 }]);
    await sendOver(device, { payload: "with QoS", qos: 1 });
    const got = await untilLast(harness, client);
    expect(got.map((message) => [textOf(message), message.qos])).toEqual([
      ["exact", 0],
      ["wildcard", 0],
      ["both", 0],
      ["exact again", 0],
      ["with QoS", 1],
    ]);
  });

  test("UNSUBSCRIBE and SUBSCRIBE in the same bytes subscribe", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const client = await watch(harness, { clientId: "w" }, { topic: telemetry, qos: 1 });
    client.send(
      { cmd: "unsubscribe", messageId: 1001, unsubscriptions: [telemetry] },
      { cmd: "subscribe", messageId: 1002, subscriptions: [{ topic: telemetry, qos: 1 }] },
    );
    await client.next("unsuback");
    await client.next("suback");
    await send(harness, { qos: 1, payload: "one" }, { qos: 0, payload: "zero" });
    expect((await untilLast(harness, client)).map(textAndQos).toSorted()).toEqual(["one 1", "zero 0"]);
  });

  test("a session that resumes under traffic is given nothing before CONNACK", async ({ openHarness }) => {
    const payload = "x".repeat(70_000); // large enough to be sent at once
    let harness: Harness | undefined;
    const harassed: Authenticate = async ({ clientId }) => {
      // One message after each step that Aedes takes from here to CONNACK; its subscriptions come back on the way.
      if (clientId === "s") {
        void (async () => {
          for (let step = 0; step < 100; step += 1) {
            void harness?.broker.publish({ topic: "early", payload });
            await Promise.resolve();
          }
        })();
      }
      return await Promise.resolve({ kind: "known", deviceId: undefined });
    };
    harness = await openHarness({ authenticate: harassed });
    const before = await watch(harness, { clientId: "s", clean: false }, { topic: "#", qos: 0 });
    before.socket.destroy();
    expect(await harness.nextEnd()).toBe("closed");
    const client = await harness.open();
    await client.connect({ clientId: "s", clean: false });
    expect(client.packets[0]?.cmd).toBe("connack");
  });

  test("traffic counts what is sent", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const clients = await Promise.all([
      watch(harness, { clientId: "w4" }, { topic: "#" }),
      watch(harness, { clientId: "w5", version: 5 }, { topic: "#" }),
    ]);
    const device = await harness.open();
    await device.connect({ clientId: "device" });
    const before = { ...harness.traffic };
    device.send(...Array.from({ length: 100 }, () => publish({ qos: 0, payload: "12345" })));
    for (const client of clients) for (let got = 0; got < 100; got += 1) await client.next("publish");
    const after = harness.traffic;
    expect(after.publishSent - before.publishSent).toBe(200);
    expect(after.packetsSent - before.packetsSent).toBe(200);
    expect(after.publishBytesSent - before.publishBytesSent).toBe(1000);
    const size = generate(publish({ qos: 0, payload: "12345" })).length;
    expect(after.bytesSent - before.bytesSent).toBe(100 * size + 100 * (size + 1));
  });
});

describe("$-topics", () => {
  test.for(versions)(
    "version %d: a filter that begins with a wildcard does not match them [MQTT-4.7.2-1]",
    async (version, { openHarness }) => {
      const harness = await openHarness();
      const all = await watch(harness, { clientId: "all", version }, { topic: "#" }, { topic: "+/test" });
      const own = await watch(harness, { clientId: "own", version }, { topic: "$own/#" });
      await harness.broker.publish({ topic: "$own/test", payload: "hidden" });
      await send(harness, { topic: "open/test", payload: "shown" });
      expect((await untilLast(harness, all)).map(textOf)).toEqual(["shown"]);
      expect((await untilLast(harness, own)).map(textOf)).toEqual(["hidden"]);
    },
  );
});

describe("wills", () => {
  test("the will's delay is no property of the message", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await watch(harness, { clientId: "w", version: 5 }, { topic: "#", qos: 0 });
    const mortal = await harness.open();
    const properties = { willDelayInterval: 5, contentType: "text/plain" };
    await mortal.connect({
      clientId: "mortal",
      protocolVersion: 5,
      will: { topic: "will", payload: Buffer.from("bye"), qos: 0, retain: false, properties },
    });
    mortal.socket.destroy();
    const message = await client.next("publish");
    expect({ ...message.properties }).toEqual({ contentType: "text/plain" });
  });
});

describe("a subscriber that does not read", () => {
  test("is dropped for exactly, while others get everything in order", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { subscriberQueueBytes: 65_536 } });
    harness.autoCommit = true;
    const dropped = new Map<string, number>();
    harness.events.on("dropped", (clientId, _topic, messages = 1) =>
      dropped.set(clientId, (dropped.get(clientId) ?? 0) + messages),
    );
    let limited = 0;
    harness.events.on("limited", (limit, times = 1) => {
      limited += limit === "subscriberQueueBytes" ? times : 0;
    });
    const frozen = await watch(harness, { clientId: "frozen", version: 5 }, { topic: "#" });
    frozen.socket.pause();
    const live = await watch(harness, { clientId: "live" }, { topic: "#" });
    const device = await harness.open();
    await device.connect({ clientId: "device" });
    const payload = "x".repeat(10_000);
    let sent = 0;
    const got: string[] = [];
    // Until the kernel's buffers are full too.
    while ((dropped.get("frozen") ?? 0) < 100) {
      device.send(publish({ qos: 0, payload: `${sent} ${payload}` }));
      sent += 1;
      got.push(textOf(await live.next("publish")).split(" ")[0] ?? "");
    }
    expect(got).toEqual(Array.from({ length: sent }, (_, index) => String(index)));
    expect(dropped.get("live")).toBeUndefined();
    frozen.socket.resume();
    const missed = dropped.get("frozen") ?? 0;
    const numbers: number[] = [];
    while (numbers.length < sent - missed) numbers.push(Number.parseInt(textOf(await frozen.next("publish")), 10));
    expect(numbers).toEqual([...new Set(numbers)].toSorted((a, b) => a - b));
    // It is served again, and has missed nothing since.
    await send(harness, { payload: "served again" });
    expect(textOf(await frozen.next("publish"))).toBe("served again");
    expect(dropped.get("frozen")).toBe(missed);
    expect(limited).toBe(missed);
  });

  test("with QoS 1 it is dropped for exactly too", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { subscriberQueueBytes: 4_096 } });
    harness.autoCommit = true;
    const dropped = new Map([["frozen", 0]]);
    harness.events.on("dropped", (clientId, _topic, messages = 1) =>
      dropped.set(clientId, (dropped.get(clientId) ?? 0) + messages),
    );
    const frozen = await watch(harness, { clientId: "frozen" }, { topic: "#", qos: 1 });
    frozen.socket.pause();
    const live = await watch(harness, { clientId: "live" }, { topic: "#" });
    const device = await harness.open();
    await device.connect({ clientId: "device" });
    const payload = "x".repeat(10_000);
    let sent = 0;
    while ((dropped.get("frozen") ?? 0) < 100) {
      device.send(publish({ messageId: 1 + (sent % 60_000), payload }));
      sent += 1;
      await live.next("publish");
    }
    const missed = dropped.get("frozen") ?? 0;
    frozen.socket.resume();
    for (let got = 0; got < sent - missed; got += 1) {
      const { messageId = 0 } = await frozen.next("publish");
      frozen.send({ cmd: "puback", messageId });
    }
    frozen.send({ cmd: "pingreq" });
    await frozen.next("pingresp");
    device.send(publish({ messageId: 60_001, payload: "served again" }));
    expect(textAndQos(await frozen.next("publish"))).toBe("served again 1");
    expect([...dropped]).toEqual([["frozen", missed]]);
  });
});
