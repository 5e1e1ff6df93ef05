// Sessions: how long they live, what is bounded in them, and who has them. Over real sockets, in 3.1.1 and 5.

import { type Duplex, duplexPair } from "node:stream";
import type { Packet } from "mqtt-packet";
import { generate, parser as createParser } from "mqtt-packet";
import { describe, expect, vi } from "vitest";
import { forwardData } from "../../src/listener/listener.ts";
import { type Harness, publish, type RawClient, test } from "./harness.ts";

type Connect = Partial<Extract<Packet, { cmd: "connect" }>>;

const lasting: Connect = { clean: false };
const expiring = (sessionExpiryInterval: number): Connect => ({
  protocolVersion: 5,
  clean: false,
  properties: { sessionExpiryInterval },
});

async function open(harness: Harness, options: Connect): Promise<RawClient> {
  const client = await harness.open();
  await client.connect(options);
  return client;
}

async function subscribe(client: RawClient, topic = "news"): Promise<void> {
  client.send({ cmd: "subscribe", messageId: 99, subscriptions: [{ topic, qos: 1 }] });
  await client.next("suback");
}

/** Everything sent so far was handled. Twice: Aedes publishes a QoS 1 message in the turn after its PUBACK. */
async function handled(client: RawClient): Promise<void> {
  for (let round = 0; round < 2; round += 1) {
    client.send({ cmd: "pingreq" });
    await client.next("pingresp");
  }
}

async function leave(harness: Harness, client: RawClient): Promise<void> {
  client.socket.destroy();
  await harness.nextEnd();
}

/** A client on a pair of streams, without kernel buffers, that subscribes and then reads no more. */
async function openFrozen(
  harness: Harness,
  protocolVersion: 4 | 5,
  topic: string,
  qos: 0 | 1,
): Promise<{ readonly far: Duplex; readonly near: Duplex }> {
  const [far, near] = duplexPair();
  harness.broker.accept(near, { remoteAddress: "pair", remotePort: 0, incoming: forwardData(near) });
  const options = { protocolVersion };
  const connect = { cmd: "connect", clientId: "c1", protocolId: "MQTT", clean: true, keepalive: 0 } as const;
  far.write(generate({ ...connect, protocolVersion }, options));
  far.write(generate({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic, qos }] }, options));
  const parser = createParser(options);
  const subscribed = new Promise<void>((resolve) => {
    parser.on("packet", ({ cmd }) => {
      if (cmd === "suback") resolve();
    });
  });
  far.on("data", (chunk: Buffer) => void parser.parse(chunk));
  await subscribed;
  far.removeAllListeners("data");
  far.pause();
  return { far, near };
}

const isPresent = (client: RawClient): boolean =>
  client.packets.some((packet) => packet.cmd === "connack" && packet.sessionPresent);

const texts = (client: RawClient): readonly string[] =>
  client.packets.flatMap((packet) => (packet.cmd === "publish" ? [packet.payload.toString()] : []));

/** Sessions of clients that are away end `ms` earlier, and wills are due: the clock of the sweep is put forward. */
async function later(seconds: number): Promise<void> {
  const now = performance.now.bind(performance);
  const put = vi.spyOn(performance, "now").mockImplementation(() => now() + seconds * 1_000);
  await new Promise((resolve) => setTimeout(resolve, 600)); // one sweep
  put.mockRestore();
}

describe("the end of a session", () => {
  test.for([
    ["of 3.1.1 comes after the limit", lasting, 1_000],
    ["of MQTT 5 comes after its expiry", expiring(100), 100],
    ["of MQTT 5 that asked for none comes after the limit", expiring(0xffff_ffff), 1_000],
  ] as const)("%s", async ([, options, seconds], { openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, options);
    await subscribe(client);
    await leave(harness, client);
    await later(seconds - 10);
    const back = await open(harness, options);
    expect(isPresent(back)).toBe(true);
    await leave(harness, back);
    await later(seconds + 1);
    expect(isPresent(await open(harness, options))).toBe(false);
  });

  test("releases the unfinished QoS 2 messages of its client, also those of an earlier run", async ({
    openHarness,
  }) => {
    const harness = await openHarness({ unfinished: [["old", 3]] });
    const client = await open(harness, { ...lasting, clientId: "new" });
    client.send(publish({ qos: 2, messageId: 7 }));
    await handled(client);
    await leave(harness, client);
    await later(1_001);
    expect([...harness.released].toSorted()).toEqual(["new/0", "old/0"]);
  });

  test("comes with DISCONNECT when that says so, and later when it says so", async ({ openHarness }) => {
    const harness = await openHarness();
    const ends = await open(harness, expiring(100));
    ends.send({ cmd: "disconnect", reasonCode: 0, properties: { sessionExpiryInterval: 0 } });
    await harness.nextEnd();
    const stays = await open(harness, expiring(5));
    expect(isPresent(stays)).toBe(false);
    stays.send({ cmd: "disconnect", reasonCode: 0, properties: { sessionExpiryInterval: 0xffff_ffff } });
    await harness.nextEnd();
    await later(900);
    expect(isPresent(await open(harness, expiring(5)))).toBe(true);
  });

  test("comes with the connection without an expiry; until then it is the one that was resumed", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const sender = await open(harness, { clientId: "sender" });
    const first = await open(harness, expiring(100));
    await subscribe(first);
    await leave(harness, first);
    sender.send(publish({ topic: "news", messageId: 1, payload: "queued" }));
    await handled(sender);
    const second = await open(harness, { protocolVersion: 5, clean: false });
    expect(isPresent(second)).toBe(true);
    await second.next("publish");
    expect(texts(second)).toEqual(["queued"]);
    await leave(harness, second);
    expect(isPresent(await open(harness, { protocolVersion: 5, clean: false }))).toBe(false);
  });

  test("comes with a clean start, which ends subscriptions, queue and half received messages [MQTT-3.1.2-4]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const sender = await open(harness, { clientId: "sender" });
    const first = await open(harness, expiring(100));
    await subscribe(first);
    first.send(publish({ topic: "other", qos: 2, messageId: 5 }));
    await first.next("pubrec");
    await leave(harness, first);
    sender.send(publish({ topic: "news", messageId: 1, payload: "queued" }));
    await handled(sender);
    const second = await open(harness, { ...expiring(100), clean: true });
    expect(isPresent(second)).toBe(false);
    await subscribe(second, "other");
    second.send(publish({ topic: "other", qos: 2, messageId: 5, payload: "new" }));
    expect((await second.next("publish")).payload.toString()).toBe("new");
    sender.send(publish({ topic: "news", messageId: 2, payload: "missed" }));
    await handled(sender);
    await handled(second);
    expect(texts(second)).toEqual(["new"]);
  });

  test("does not come with the clean start of somebody who is not known", async ({ openHarness }) => {
    const harness = await openHarness({
      authenticate: ({ username }) =>
        Promise.resolve(
          username === "owner" ? { kind: "known", deviceId: undefined } : { kind: "refused", reason: "who are you?" },
        ),
    });
    const owner = await open(harness, { ...lasting, username: "owner" });
    owner.send(publish({ topic: "other", qos: 2, messageId: 5 }));
    await owner.next("pubrec");
    const stranger = await open(harness, { clean: true, username: "stranger" });
    await stranger.closed;
    await handled(owner);
    await leave(harness, stranger);
    await leave(harness, owner);
    const back = await open(harness, { ...lasting, username: "owner" });
    expect(isPresent(back)).toBe(true);
    await subscribe(back, "other");
    back.send(publish({ topic: "other", qos: 2, messageId: 5, dup: true }));
    await back.next("pubrec");
    await handled(back);
    expect(texts(back)).toEqual([]);
  });
});

/** What a session that was away gets of these. */
async function fill(harness: Harness, payloads: readonly string[]): Promise<readonly string[]> {
  const away = await open(harness, { ...lasting, clientId: "away" });
  await subscribe(away);
  await leave(harness, away);
  const sender = await open(harness, { clientId: "sender" });
  for (const payload of payloads) sender.send(publish({ topic: "news", messageId: 1, payload }));
  await handled(sender);
  const back = await open(harness, { ...lasting, clientId: "away" });
  await handled(back);
  return texts(back);
}

describe("the queue of a session", () => {
  test.for([
    ["newest", ["1", "2", "3"]],
    ["oldest", ["3", "4", "5"]],
  ] as const)(
    "gives up the %s when as many wait as may, and counts it",
    async ([whenQueueFull, kept], { openHarness }) => {
      const harness = await openHarness({ limits: { whenQueueFull, queuedMessagesPerSession: 3 } });
      const dropped: string[] = [];
      harness.events.on("dropped", (clientId, topic) => dropped.push(`${clientId} ${topic}`));
      const limits: string[] = [];
      harness.events.on("limited", (limit) => limits.push(limit));
      expect(await fill(harness, ["1", "2", "3", "4", "5"])).toEqual(kept);
      expect(limits).toEqual(["queuedMessagesPerSession", "queuedMessagesPerSession"]);
      expect(dropped).toEqual(["away news", "away news"]);
    },
  );

  test.for([{ queuedBytesPerSession: 3_000 }, { queuedBytes: 3_000 }])(
    "is bounded by %o",
    async (limits, { openHarness }) => {
      const harness = await openHarness({ limits });
      const dropped: string[] = [];
      harness.events.on("dropped", (clientId) => dropped.push(clientId));
      const kilobyte = "x".repeat(1_000);
      expect(await fill(harness, [kilobyte, kilobyte, kilobyte, "small"])).toEqual([kilobyte, kilobyte, "small"]);
      expect(dropped).toEqual(["away"]);
    },
  );

  test("has its room back when the client has acknowledged, or the session has ended", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { queuedBytes: 3_000 } });
    const kilobyte = "x".repeat(1_000);
    for (let round = 0; round < 5; round += 1) {
      const client = await open(harness, { clientId: "live", clean: true });
      await subscribe(client);
      for (let messageId = 1; messageId <= 2; messageId += 1) {
        client.send(publish({ topic: "news", messageId, payload: kilobyte }));
        const { messageId: id = 0 } = await client.next("publish");
        if (messageId === 1) client.send({ cmd: "puback", messageId: id });
      }
      await leave(harness, client);
    }
  });

  test("a client that does not read is sent no more than its socket takes, and nothing is lost", async ({
    openHarness,
  }) => {
    const harness = await openHarness({
      limits: { queuedMessagesPerSession: 1_000, queuedBytesPerSession: 10_000_000, queuedBytes: 10_000_000 },
    });
    const { far, near } = await openFrozen(harness, 4, "news", 1);
    const sender = await open(harness, { clientId: "sender" });
    const count = 500;
    const payload = "x".repeat(2_000);
    for (let messageId = 1; messageId <= count; messageId += 1)
      sender.send(publish({ topic: "news", messageId, payload }));
    await handled(sender);
    expect(near.writableLength).toBeLessThan(300_000);
    const received = await new Promise<number>((resolve) => {
      const parser = createParser({ protocolVersion: 4 });
      let publishes = 0;
      parser.on("packet", (packet) => {
        if (packet.cmd !== "publish") return;
        publishes += 1;
        far.write(generate({ cmd: "puback", messageId: packet.messageId ?? 0 }));
        if (publishes === count) resolve(publishes);
      });
      far.on("data", (chunk: Buffer) => void parser.parse(chunk));
      far.resume();
    });
    expect(received).toBe(count);
    far.destroy();
  });

  test("unfinished QoS 2 messages that are no telemetry are bounded too", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumInflightQos2: 3 } });
    const client = await open(harness, lasting);
    for (let messageId = 1; messageId <= 3; messageId += 1) {
      client.send(publish({ topic: "other", qos: 2, messageId }));
      await client.next("pubrec");
    }
    client.send(publish({ topic: "other", qos: 2, messageId: 4 }));
    await client.closed;
    expect(client.packets.filter(({ cmd }) => cmd === "pubrec")).toHaveLength(3);
  });
});

describe("as many sessions as may be kept", () => {
  test("a client without subscriptions is let in, but may not subscribe", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { sessions: 1 } });
    const early = await open(harness, { ...expiring(100), clientId: "early" });
    const first = await open(harness, { ...expiring(100), clientId: "first" });
    await subscribe(first);
    early.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "news", qos: 1 }] });
    expect((await early.next("suback")).granted).toEqual([0x97]);
    await leave(harness, first);
    const late = await open(harness, { ...expiring(100), clientId: "late" });
    expect(late.packets[0]).toMatchObject({ reasonCode: 0x97 });
    const passing = await open(harness, { protocolVersion: 5, clientId: "passing" });
    await subscribe(passing);
  });
});

describe("a take-over", () => {
  test("tells the one before 0x8E, also when both come at once, and the last one stays [MQTT-3.1.4-3]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const first = await open(harness, expiring(100));
    await subscribe(first);
    const [second, third] = await Promise.all([harness.open(), harness.open()]);
    const connect = {
      cmd: "connect",
      clientId: "c1",
      protocolId: "MQTT",
      protocolVersion: 4,
      clean: false,
      keepalive: 0,
    } as const;
    second.send(connect);
    third.send(connect);
    expect(await first.next("disconnect")).toMatchObject({ reasonCode: 0x8e });
    await first.closed;
    const left = await Promise.race([second.closed.then(() => third), third.closed.then(() => second)]);
    await left.next("connack");
    expect(isPresent(left)).toBe(true);
    left.send(publish({ topic: "news", messageId: 1 }));
    await left.next("publish");
    expect([await harness.nextEnd(), await harness.nextEnd()]).toEqual(["taken-over", "taken-over"]);
    // Who comes next takes over the one that is left: it is the one that is known.
    const next = await open(harness, lasting);
    await left.closed;
    await handled(next);
    expect(harness.traffic.clientsConnected).toBe(1);
  });

  test("of a client that does not read is not held up by it", async ({ openHarness }) => {
    const harness = await openHarness();
    const { far, near } = await openFrozen(harness, 5, "fast", 0);
    for (let count = 0; count < 200; count += 1) {
      await harness.broker.publish({ topic: "fast", payload: "x".repeat(1_000) });
    }
    await vi.waitUntil(() => near.writableNeedDrain);
    const second = await open(harness, { protocolVersion: 5 });
    await subscribe(second);
    const third = await open(harness, { protocolVersion: 5 });
    expect(await second.next("disconnect")).toMatchObject({ reasonCode: 0x8e });
    await subscribe(third);
    far.destroy();
  });

  test.for([4, 5] as const)("many at once leave one connection, in %i", async (protocolVersion, { openHarness }) => {
    const harness = await openHarness();
    for (let round = 0; round < 5; round += 1) {
      const clients = await Promise.all(Array.from({ length: 8 }, () => harness.open()));
      for (const client of clients) {
        client.send(
          generate(
            { cmd: "connect", clientId: "c1", protocolId: "MQTT", protocolVersion, clean: false, keepalive: 0 },
            { protocolVersion },
          ),
        );
      }
      await Promise.all(clients.slice(1).map(() => harness.nextEnd()));
      const last = await open(harness, { ...lasting, protocolVersion });
      await harness.nextEnd();
      await handled(last);
      expect(harness.traffic.clientsConnected).toBe(1);
      await leave(harness, last);
    }
  });
});
