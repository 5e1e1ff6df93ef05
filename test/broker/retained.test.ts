// Retained messages: the store by itself, and over real sockets.

import type { Packet } from "mqtt-packet";
import { describe, expect, vi } from "vitest";
import { RetainedMessages } from "../../src/broker/retained.ts";
import { type Harness, publish, type RawClient, test } from "./harness.ts";

type Connect = Partial<Extract<Packet, { cmd: "connect" }>>;

const limits = { retainedMessages: 1_000, retainedBytes: 1_000_000 };

const message = (topic: string, payload = "x", expiresAt?: number) => ({
  topic,
  payload,
  qos: 0 as const,
  retain: true,
  properties: undefined,
  expiresAt,
  bytes: payload.length,
});

async function topicsOf(store: RetainedMessages, filter: string): Promise<readonly string[]> {
  const topics: string[] = [];
  for await (const { topic } of store.match(filter)) topics.push(topic);
  return topics.toSorted();
}

describe("the store", () => {
  const topics = ["a", "a/b", "a/b/c", "a//c", "/a", "b", "$SYS/x", "$SYS/x/y"];
  test.for([
    ["a", ["a"]],
    ["a/b", ["a/b"]],
    ["a/#", ["a", "a//c", "a/b", "a/b/c"]],
    ["a/+", ["a/b"]],
    ["a/+/c", ["a//c", "a/b/c"]],
    ["+/a", ["/a"]],
    ["+", ["a", "b"]],
    ["#", ["/a", "a", "a//c", "a/b", "a/b/c", "b"]],
    ["+/+", ["/a", "a/b"]],
    ["$SYS/#", ["$SYS/x", "$SYS/x/y"]],
    ["$SYS/+", ["$SYS/x"]],
    ["c", []],
    ["a/b/c/#", ["a/b/c"]],
  ] as const)("finds for %s what matches", async ([filter, expected]) => {
    const store = new RetainedMessages(limits);
    for (const topic of topics) store.store(message(topic));
    expect(await topicsOf(store, filter)).toEqual(expected);
  });

  test("keeps the last message of a topic, and nothing after an empty one [MQTT-3.3.1-5, -6]", async () => {
    const store = new RetainedMessages(limits);
    store.store(message("a/b", "first"));
    store.store(message("a/b", "second"));
    expect([store.size, store.bytes]).toEqual([1, 6]);
    store.store(message("a/b", ""));
    expect([store.size, store.bytes]).toEqual([0, 0]);
    expect(await topicsOf(store, "#")).toEqual([]);
  });

  test("holds no more messages and bytes than it may; one in the place of another is taken", () => {
    const store = new RetainedMessages({ retainedMessages: 2, retainedBytes: 10 });
    expect(store.store(message("a", "12345"))).toBeUndefined();
    expect(store.store(message("b", "123456"))).toBe("retainedBytes");
    expect(store.store(message("b", "1"))).toBeUndefined();
    expect(store.store(message("c", "1"))).toBe("retainedMessages");
    expect(store.store(message("a", "123456789"))).toBeUndefined();
    expect(store.store(message("a", "1234567890"))).toBe("retainedBytes");
    expect([store.size, store.bytes]).toEqual([2, 10]);
  });

  test("forgets what has expired when it is looked for, or swept over", async () => {
    const store = new RetainedMessages(limits);
    store.store(message("a", "x", Date.now() - 1));
    store.store(message("b", "x", Date.now() - 1));
    store.store(message("c", "x", Date.now() + 100_000));
    expect(await topicsOf(store, "a")).toEqual([]);
    expect(store.size).toBe(2);
    store.sweep();
    expect(store.size).toBe(1);
  });

  test("lets others work while it searches", async () => {
    const store = new RetainedMessages({ retainedMessages: 100_000, retainedBytes: 1e9 });
    for (let index = 0; index < 20_000; index += 1) store.store(message(`a/${index}/b`));
    let turns = 0;
    const count = (): void => {
      turns += 1;
      timer = setImmediate(count);
    };
    let timer = setImmediate(count);
    expect(await topicsOf(store, "+/+/c")).toEqual([]);
    clearImmediate(timer);
    expect(turns).toBeGreaterThan(30);
  });
});

async function open(harness: Harness, options: Connect): Promise<RawClient> {
  const client = await harness.open();
  await client.connect(options);
  return client;
}

async function handled(client: RawClient): Promise<void> {
  client.send({ cmd: "pingreq" });
  await client.next("pingresp");
}

type Asked = Partial<Extract<Packet, { cmd: "subscribe" }>["subscriptions"][number]>;

async function subscribe(client: RawClient, topic: string, more: Asked = {}, properties?: object): Promise<void> {
  client.send({
    cmd: "subscribe",
    messageId: 9,
    subscriptions: [{ topic, qos: 1, ...more }],
    ...(properties === undefined ? undefined : { properties }),
  });
  await client.next("suback");
}

const publishes = (client: RawClient): readonly Extract<Packet, { cmd: "publish" }>[] =>
  client.packets.filter((packet) => packet.cmd === "publish");

describe("over a socket", () => {
  test("a new subscription gets what is retained, with no more than its QoS, and its identifier", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const sender = await open(harness, { clientId: "sender", protocolVersion: 5 });
    sender.send(publish({ topic: "a/b", qos: 2, retain: true, messageId: 1, properties: { contentType: "t" } }));
    await sender.next("pubrec");
    const client = await open(harness, { protocolVersion: 5 });
    await subscribe(client, "a/+", { qos: 1 }, { subscriptionIdentifier: 7 });
    expect(await client.next("publish")).toMatchObject({
      qos: 1,
      retain: true,
      properties: { contentType: "t", subscriptionIdentifier: 7 },
    });
    await subscribe(client, "a/#", { qos: 0 });
    expect(await client.next("publish")).toMatchObject({ qos: 0, retain: true });
  });

  test("Retain Handling says which subscriptions get it [MQTT-3.3.1-9, -10, -11]", async ({ openHarness }) => {
    const harness = await openHarness();
    await harness.broker.publish({ topic: "a", payload: "x", retain: true });
    const client = await open(harness, { protocolVersion: 5 });
    const counts: number[] = [];
    for (const rh of [2, 1, 1, 0] as const) {
      if (counts.length === 1) {
        client.send({ cmd: "unsubscribe", messageId: 3, unsubscriptions: ["a"] });
        await client.next("unsuback");
      }
      await subscribe(client, "a", { rh });
      await handled(client);
      counts.push(publishes(client).length);
    }
    expect(counts).toEqual([0, 1, 1, 2]);
  });

  test("a restored subscription gets none", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, { clean: false });
    await subscribe(client, "a");
    client.socket.destroy();
    await client.closed;
    await harness.broker.publish({ topic: "a", payload: "x", retain: true });
    const back = await open(harness, { clean: false });
    await handled(back);
    expect(publishes(back)).toEqual([]);
  });

  test("what is left of an expiry is told, and nothing of what has expired [MQTT-3.3.2-6]", async ({ openHarness }) => {
    const harness = await openHarness();
    const sender = await open(harness, { clientId: "sender", protocolVersion: 5 });
    for (const [topic, messageExpiryInterval] of [
      ["a/1", 1],
      ["a/2", 100],
    ] as const) {
      sender.send(publish({ topic, qos: 1, messageId: 1, retain: true, properties: { messageExpiryInterval } }));
      await sender.next("puback");
    }
    const now = Date.now.bind(Date);
    const put = vi.spyOn(Date, "now").mockImplementation(() => now() + 10_000);
    const client = await open(harness, { protocolVersion: 5 });
    await subscribe(client, "a/#");
    const { topic, properties } = await client.next("publish");
    await handled(client);
    put.mockRestore();
    expect(topic).toBe("a/2");
    expect(properties?.messageExpiryInterval).toBeLessThanOrEqual(90);
    expect(publishes(client)).toHaveLength(1);
  });

  test.for([0, 1] as const)(
    "a client gets more of them than may wait for it, QoS %i, as fast as it takes them",
    async (qos, { openHarness }) => {
      const harness = await openHarness({
        limits: { retainedMessages: 10_000, retainedBytes: 10_000_000, queuedMessagesPerSession: 20 },
      });
      const count = 1_000;
      for (let index = 0; index < count; index += 1) {
        await harness.broker.publish({ topic: `a/${index}`, payload: "x".repeat(500), qos, retain: true });
      }
      let dropped = 0;
      harness.events.on("dropped", () => {
        dropped += 1;
      });
      const client = await open(harness, {});
      await subscribe(client, "a/#");
      for (let index = 0; index < count; index += 1) {
        const { messageId } = await client.next("publish");
        if (messageId !== undefined) client.send({ cmd: "puback", messageId });
      }
      expect(new Set(publishes(client).map(({ topic }) => topic)).size).toBe(count);
      expect(dropped).toBe(0);
    },
  );

  test("messages beyond the limit are not kept, and counted", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { retainedMessages: 2 } });
    const bitten: string[] = [];
    harness.events.on("limited", (limit) => bitten.push(limit));
    for (const topic of ["a/1", "a/2", "a/3", "a/1"]) {
      await harness.broker.publish({ topic, payload: "x", retain: true });
    }
    expect(bitten).toEqual(["retainedMessages"]);
  });
});
