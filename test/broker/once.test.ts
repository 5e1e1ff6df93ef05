import { describe, expect } from "vitest";
import { type Harness, publish, type RawClient, test } from "./harness.ts";

type Connect = Parameters<RawClient["connect"]>[0];

async function open(harness: Harness, options: Connect): Promise<RawClient> {
  const client = await harness.open();
  await client.connect(options);
  return client;
}

/** Resolves when the broker has handled what was sent before. */
async function handled(client: RawClient): Promise<void> {
  client.send({ cmd: "pingreq" });
  await client.next("pingresp");
}

const sent = (client: RawClient): readonly string[] =>
  client.packets.map((packet) => ("messageId" in packet ? `${packet.cmd} ${packet.messageId}` : packet.cmd));
const isPresent = (client: RawClient): boolean | undefined =>
  client.packets.find((packet) => packet.cmd === "connack")?.sessionPresent;

const lasting = { clientId: "s", clean: false } as const;
const lasting5 = { ...lasting, protocolVersion: 5, properties: { sessionExpiryInterval: 60 } } as const;

describe("the end of a QoS 2 handshake", () => {
  test("PUBCOMP comes only when the release is on disk, and in its place", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, lasting);
    client.send(publish({ qos: 2, messageId: 1 }));
    await handled(client);
    harness.commit();
    await client.next("pubrec");
    client.send({ cmd: "pubrel", messageId: 1 }, publish({ messageId: 2 }));
    await handled(client);
    expect(harness.released).toEqual(["s/1"]);
    expect(sent(client)).not.toContain("pubcomp 1");
    harness.commit();
    await client.next("puback");
    expect(sent(client).slice(-2)).toEqual(["pubcomp 1", "puback 2"]);
  });

  test("a second PUBREL is not answered before the release of the first is on disk", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await open(harness, lasting);
    first.send(publish({ qos: 2, messageId: 1 }), { cmd: "pubrel", messageId: 1 });
    await handled(first);
    first.socket.destroy();
    await harness.nextEnd();
    const second = await open(harness, lasting);
    second.send({ cmd: "pubrel", messageId: 1 });
    await handled(second);
    // Aedes answers in a later turn of the event loop than the ping.
    await harness.broker.publish({ topic: "turn", payload: "" });
    await handled(second);
    expect(sent(second)).not.toContain("pubcomp 1");
    harness.commit();
    expect(await second.next("pubcomp")).toMatchObject({ messageId: 1 });
  });

  test("of a session that ends with its connection leaves no record, and the message no packet identifier", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await open(harness, { clientId: "s", clean: true });
    client.send(publish({ qos: 2, messageId: 1 }), publish({ qos: 2, messageId: 1, dup: true }));
    client.send({ cmd: "pubrel", messageId: 1 });
    await handled(client);
    harness.commit();
    await client.next("pubcomp");
    expect(sent(client).slice(-3)).toEqual(["pubrec 1", "pubrec 1", "pubcomp 1"]);
    expect(harness.taken.map(({ packetId }) => packetId)).toEqual([0]);
    expect(harness.released).toEqual([]);
  });

  test("of a session that lasts leaves the packet identifier with the record", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, lasting5);
    client.send(publish({ qos: 2, messageId: 7 }), publish({ qos: 1, messageId: 8 }));
    await handled(client);
    expect(harness.taken.map(({ packetId }) => packetId)).toEqual([7, 0]);
  });
});

describe("what was unfinished when the gateway ended", () => {
  test.for([
    ["3.1.1", lasting],
    ["5", lasting5],
  ] as const)(
    "is the session of a client that comes back, and it is told so, in %s",
    async ([, options], { openHarness }) => {
      const harness = await openHarness({ unfinished: [["s", 7]] });
      harness.autoCommit = true;
      const client = await open(harness, options);
      expect(isPresent(client)).toBe(true);
      client.send(publish({ qos: 2, messageId: 7, dup: true }));
      await client.next("pubrec");
      expect(harness.taken).toEqual([]);
      client.send({ cmd: "pubrel", messageId: 7 });
      await client.next("pubcomp");
      client.send(publish({ qos: 2, messageId: 7, payload: "new" }));
      await client.next("pubrec");
      expect(harness.taken.map(({ text }) => text)).toEqual(["new"]);
    },
  );

  test("is not told in 3.1, where the byte is reserved", async ({ openHarness }) => {
    const harness = await openHarness({ unfinished: [["s", 7]] });
    const client = await open(harness, { ...lasting, protocolId: "MQIsdp", protocolVersion: 3 });
    expect(isPresent(client)).toBe(false);
  });

  test("is nothing to other clients", async ({ openHarness }) => {
    const harness = await openHarness({ unfinished: [["s", 7]] });
    const client = await open(harness, { clientId: "other", clean: false });
    expect(isPresent(client)).toBe(false);
    client.send(publish({ qos: 2, messageId: 7, dup: true }));
    await handled(client);
    expect(harness.taken).toHaveLength(1);
  });

  test("is void after a clean start [MQTT-3.1.2-4]", async ({ openHarness }) => {
    const harness = await openHarness({ unfinished: [["s", 7]] });
    const client = await open(harness, { clientId: "s", clean: true });
    expect(isPresent(client)).toBe(false);
    expect(harness.released).toEqual(["s/0"]);
    client.send(publish({ qos: 2, messageId: 7, dup: true }));
    await handled(client);
    expect(harness.taken).toHaveLength(1);
  });

  test("counts among the messages that a client may have unfinished", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumInflightQos2: 2 }, unfinished: [["s", 7]] });
    const client = await open(harness, lasting);
    client.send(...[7, 1, 2].map((messageId) => publish({ qos: 2, messageId })));
    await client.closed;
    expect(harness.taken).toHaveLength(1);
  });
});

describe("a session that ends while messages are unfinished", () => {
  test("releases them all: the client has said that it lasts no longer", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, lasting5);
    client.send(publish({ qos: 2, messageId: 1 }), publish({ qos: 2, messageId: 2 }));
    client.send({ cmd: "disconnect", reasonCode: 0, properties: { sessionExpiryInterval: 0 } });
    await harness.nextEnd();
    expect(harness.released).toEqual(["s/0"]);
  });

  test("releases them all: it is one session too many", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { sessions: 1 }, unfinished: [["away", 1]] });
    const client = await open(harness, lasting);
    client.send(publish({ qos: 2, messageId: 1 }));
    await handled(client);
    client.socket.destroy();
    await harness.nextEnd();
    expect(harness.released).toEqual(["s/0"]);
  });

  test("releases them all when it is taken over and was to end with its connection", async ({ openHarness }) => {
    const harness = await openHarness({ unfinished: [["s", 7]] });
    await open(harness, { ...lasting5, properties: { sessionExpiryInterval: 0 } });
    const second = await open(harness, lasting);
    expect(await harness.nextEnd()).toBe("taken-over");
    expect(isPresent(second)).toBe(false);
    expect(harness.released).toEqual(["s/0"]);
    second.send(publish({ qos: 2, messageId: 7, dup: true }));
    await handled(second);
    expect(harness.taken).toHaveLength(1);
  });

  test("goes on when another connection has taken it over", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await open(harness, lasting);
    first.send(publish({ qos: 2, messageId: 1 }));
    await handled(first);
    const second = await open(harness, { ...lasting5, properties: { sessionExpiryInterval: 0 } });
    await first.closed;
    second.send(publish({ qos: 2, messageId: 1, dup: true }));
    await handled(second);
    expect(harness.taken).toHaveLength(1);
    expect(harness.released).toEqual([]);
    second.socket.destroy();
    expect([await harness.nextEnd(), await harness.nextEnd()]).toEqual(["taken-over", "closed"]);
    expect(harness.released).toEqual(["s/0"]);
  });
});

describe("a message that comes again", () => {
  test("is taken again in QoS 1: DUP alone drops nothing", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, lasting);
    client.send(publish({ messageId: 1 }), publish({ messageId: 1, dup: true }), publish({ messageId: 2, dup: true }));
    await handled(client);
    harness.commit();
    for (const messageId of [1, 1, 2]) expect(await client.next("puback")).toMatchObject({ messageId });
    expect(harness.taken).toHaveLength(3);
  });

  test.for([1, 2] as const)(
    "is acknowledged in QoS %i like the first one when it is a duplicate, but not shown again",
    async (qos, { openHarness }) => {
      const harness = await openHarness();
      const watcher = await open(harness, { clientId: "watcher" });
      watcher.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "#", qos: 0 }] });
      await watcher.next("suback");
      const client = await open(harness, lasting);
      client.send(publish({ messageId: 1 }));
      await handled(client);
      client.send(publish({ qos, messageId: 2, payload: "again", retain: true }));
      await handled(client);
      expect(sent(client).filter((packet) => packet.startsWith("pub"))).toEqual([]);
      harness.commit();
      expect(await client.next("puback")).toMatchObject({ messageId: 1 });
      expect(await client.next(qos === 1 ? "puback" : "pubrec")).toMatchObject({ messageId: 2 });
      // No further commit: the first one is on disk.
      client.send(publish({ qos: 1, messageId: 3, payload: "again" }));
      expect(await client.next("puback")).toMatchObject({ messageId: 3 });
      await harness.broker.publish({ topic: "last", payload: "" });
      const topics = [(await watcher.next("publish")).topic, (await watcher.next("publish")).topic];
      expect(topics).toEqual(["devices/d1/telemetry", "last"]);
    },
  );
});
