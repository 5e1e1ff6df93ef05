// Each limit of a connection over real sockets: what it does, and that it is counted.

import { once } from "node:events";
import { duplexPair } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { forwardData } from "../../src/listener/listener.ts";
import { describe, expect, vi } from "vitest";
import { networkOf } from "../../src/broker/arrivals.ts";
import { type Harness, publish, type RawClient, test } from "./harness.ts";
import { bytes } from "./wire.ts";

type Connect = NonNullable<Parameters<RawClient["connect"]>[0]>;

const versions: readonly (readonly [string, Connect])[] = [
  ["3.1.1", { protocolVersion: 4 }],
  ["5", { protocolVersion: 5 }],
];

function countLimits(harness: Harness): Map<string, number> {
  const counts = new Map<string, number>();
  harness.events.on("limited", (limit) => counts.set(limit, (counts.get(limit) ?? 0) + 1));
  return counts;
}

async function open(harness: Harness, options: Connect): Promise<RawClient> {
  const client = await harness.open();
  await client.connect(options);
  return client;
}

const told = (client: RawClient): number | undefined => {
  const packet = client.packets.find(({ cmd }) => cmd === "disconnect");
  return packet?.cmd === "disconnect" ? packet.reasonCode : undefined;
};

describe.concurrent.for(versions)("in %s", ([version, options]) => {
  const is5 = version === "5";

  test("a packet above the limit ends the connection by its header, and counts", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumPacketBytes: 1_024 } });
    const counts = countLimits(harness);
    const client = await open(harness, options);
    client.send(bytes(0x30, 0xff, 0xff, 0xff, 0x7f)); // 256 MB
    await client.closed;
    expect(await harness.nextEnd()).toBe("packet-too-large");
    expect(told(client)).toBe(is5 ? 0x95 : undefined);
    expect(counts).toEqual(new Map([["maximumPacketBytes", 1]]));
  });

  test("a topic with too many levels ends the connection, and counts", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumTopicLevels: 3 } });
    const counts = countLimits(harness);
    const client = await open(harness, options);
    client.send(publish({ topic: "a/b/c/d", messageId: 1 }));
    await client.closed;
    expect(told(client)).toBe(is5 ? 0x90 : undefined);
    expect(counts).toEqual(new Map([["maximumTopicLevels", 1]]));
  });

  test("a topic that is too long ends the connection, and counts", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumTopicBytes: 20 } });
    const counts = countLimits(harness);
    const client = await open(harness, options);
    client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "x".repeat(21), qos: 0 }] });
    await client.closed;
    expect(told(client)).toBe(is5 ? 0x8f : undefined);
    expect(counts).toEqual(new Map([["maximumTopicBytes", 1]]));
  });

  test("too many filters in one SUBSCRIBE end the connection, and count", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumFiltersPerSubscribe: 1 } });
    const counts = countLimits(harness);
    const client = await open(harness, options);
    const subscriptions = ["a", "b"].map((topic) => ({ topic, qos: 0 }) as const);
    client.send({ cmd: "subscribe", messageId: 1, subscriptions });
    await client.closed;
    expect(told(client)).toBe(is5 ? 0x97 : undefined);
    expect(counts).toEqual(new Map([["maximumFiltersPerSubscribe", 1]]));
  });

  test("too many unfinished QoS 2 messages end the connection, and count", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumInflightQos2: 2 } });
    const counts = countLimits(harness);
    const client = await open(harness, options);
    client.send(...[1, 2, 3].map((messageId) => publish({ qos: 2, messageId })));
    await client.closed;
    expect(await harness.nextEnd()).toBe("limit");
    expect(told(client)).toBe(is5 ? 0x93 : undefined);
    expect(counts).toEqual(new Map([["maximumInflightQos2", 1]]));
  });

  test("subscriptions beyond the limit of a client are refused, and count", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumSubscriptionsPerClient: 1 } });
    const counts = countLimits(harness);
    const client = await open(harness, options);
    const subscriptions = ["a", "b"].map((topic) => ({ topic, qos: 0 }) as const);
    client.send({ cmd: "subscribe", messageId: 1, subscriptions });
    expect(await client.next("suback")).toMatchObject({ granted: [0, is5 ? 0x97 : 0x80] });
    expect(counts).toEqual(new Map([["maximumSubscriptionsPerClient", 1]]));
  });

  test.for([
    ["retainedMessages", { retainedMessages: 1 }],
    ["retainedBytes", { retainedBytes: 0 }],
  ] as const)("retained messages beyond %s are not kept, and count", async ([limit, given], { openHarness }) => {
    const harness = await openHarness({ limits: given });
    const counts = countLimits(harness);
    const client = await open(harness, options);
    for (const [index, topic] of ["a", "b"].entries()) {
      client.send(publish({ topic, messageId: index + 1, retain: true }));
      await client.next("puback");
    }
    await vi.waitUntil(() => counts.get(limit) === (limit === "retainedBytes" ? 2 : 1));
  });

  test("a client that sends faster than it may is slowed, loses nothing, and counts", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { messagesPerSecond: 100, maximumInflightQos2: 1_000 } });
    harness.autoCommit = true;
    const client = await open(harness, { ...options, keepalive: 1 });
    const count = 130;
    const messages = Array.from({ length: count }, (_, index) =>
      publish({ messageId: index + 1, payload: `${index}` }),
    );
    for (const message of messages) client.send(message);
    client.send({ cmd: "pingreq" });
    // What may be sent in a second may come at once; then it takes its time, and another client does not.
    const [limit] = await once(harness.events, "limited");
    expect(limit).toBe("messagesPerSecond");
    expect(harness.taken.length).toBeLessThan(count);
    const other = await open(harness, { ...options, clientId: "other" });
    other.send({ cmd: "pingreq" });
    await other.next("pingresp");
    await client.next("pingresp");
    expect(harness.taken.map(({ text }) => text)).toEqual(messages.map((_, index) => `${index}`));
  });

  test("a client that sends more bytes than it may is slowed, and lives on though it is not read", async ({
    openHarness,
  }) => {
    const harness = await openHarness({ limits: { bytesPerSecond: 2_000 } });
    harness.autoCommit = true;
    const counts = countLimits(harness);
    const client = await open(harness, { ...options, keepalive: 1 });
    // Three seconds' worth: longer than 1.5 times its keep-alive.
    client.send(publish({ messageId: 1, payload: "x".repeat(8_000) }), publish({ messageId: 2 }));
    await client.next("puback");
    expect(counts).toEqual(new Map([["bytesPerSecond", 1]]));
    expect(await client.next("puback")).toMatchObject({ messageId: 2 });
  });

  test("an MQTT 5 client is held to the longest keep-alive, an older one to its own", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumKeepAliveS: 1 } });
    const client = await open(harness, { ...options, keepalive: 0 });
    const witness = await open(harness, { protocolVersion: 5, clientId: "witness", keepalive: 0 });
    await witness.closed;
    expect(told(witness)).toBe(0x8d);
    if (is5) {
      await client.closed;
    } else {
      client.send({ cmd: "pingreq" });
      await client.next("pingresp");
    }
  });

  test("a client that was not read for long is not taken for a silent one", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const client = await open(harness, { ...options, keepalive: 1 });
    harness.setCongested(true);
    client.send(publish({ messageId: 1 }));
    await new Promise((resolve) => setTimeout(resolve, 2_000)); // longer than 1.5 times its keep-alive
    harness.setCongested(false);
    await client.next("puback");
    await new Promise((resolve) => setTimeout(resolve, 700)); // another sweep
    client.send({ cmd: "pingreq" });
    await client.next("pingresp");
  });
});

describe.concurrent("before the CONNECT is there", () => {
  test("one above the limit ends the connection by its header, and counts", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumConnectBytes: 128 } });
    const counts = countLimits(harness);
    const client = await harness.open();
    client.send(bytes(0x10, 0x80, 0x01)); // 131 bytes
    await client.closed;
    expect(await harness.nextEnd()).toBe("packet-too-large");
    expect(counts).toEqual(new Map([["maximumConnectBytes", 1]]));
  });

  test("what comes behind it in the same chunk may be larger", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumConnectBytes: 128 } });
    const client = await harness.open();
    const connect = bytes(0x10, 14, 0, 4, "MQTT", 4, 2, 0, 0, 0, 2, "c1");
    client.send(connect, publish({ messageId: 1, payload: "x".repeat(1_000) }), { cmd: "pingreq" });
    await client.next("pingresp");
    expect(harness.taken).toHaveLength(1);
  });

  test("dripping bytes do not keep the connection open, and it counts", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { connectTimeoutMs: 300 } });
    const counts = countLimits(harness);
    const client = await harness.open();
    const connect = bytes(0x10, 114, 0, 4, "MQTT", 4, 2, 0, 0, 0, 102, "c".repeat(102));
    let at = 0;
    const timer = setInterval(() => client.socket.write(connect.subarray(at, (at += 1))), 50);
    await client.closed;
    clearInterval(timer);
    expect(await harness.nextEnd()).toBe("connect-timeout");
    expect(at).toBeLessThan(connect.length);
    expect(counts).toEqual(new Map([["connectTimeoutMs", 1]]));
  });
});

describe.concurrent("new connections", () => {
  test("beyond the limit are closed, count, and may come when another has gone", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumConnections: 2, maximumConnectionsPerAddress: 2 } });
    const counts = countLimits(harness);
    const first = await open(harness, { clientId: "a" });
    await open(harness, { clientId: "b" });
    const third = await harness.open();
    await third.closed;
    expect(counts).toEqual(new Map([["maximumConnections", 1]]));
    first.socket.destroy();
    expect(await harness.nextEnd()).toBe("limit");
    expect(await harness.nextEnd()).toBe("closed");
    await open(harness, { clientId: "c" });
  });

  test("of one address beyond its limit are closed, and count; by default it cannot take all places", async ({
    openHarness,
  }) => {
    const harness = await openHarness({ limits: { maximumConnections: 4 } });
    const counts = countLimits(harness);
    for (const clientId of ["a", "b", "c"]) await open(harness, { clientId });
    const fourth = await harness.open();
    await fourth.closed;
    expect(await harness.nextEnd()).toBe("limit");
    expect(counts).toEqual(new Map([["maximumConnectionsPerAddress", 1]]));
  });

  test("wait their turn beyond their rate, all come in, and it counts", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { connectionsPerSecond: 20 } });
    const begun: number[] = [];
    harness.events.on("limited", () => begun.push(harness.traffic.socketsOpened));
    const clients = await Promise.all(Array.from({ length: 11 }, () => harness.open()));
    await Promise.all(clients.map((client, index) => client.connect({ clientId: `c${index}` })));
    expect(begun[0]).toBeLessThan(clients.length);
  });

  test("that wait lose nothing of what they have sent meanwhile", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { connectionsPerSecond: 4, maximumConnectBytes: 128 } });
    harness.autoCommit = true;
    await open(harness, { clientId: "first" });
    const eager = await harness.open();
    eager.send(bytes(0x10, 14, 0, 4, "MQTT", 4, 2, 0, 0, 0, 2, "c1"));
    for (let messageId = 1; messageId <= 5; messageId += 1)
      eager.send(publish({ messageId, payload: String(messageId).repeat(50_000) }));
    for (let messageId = 1; messageId <= 5; messageId += 1)
      expect(await eager.next("puback")).toMatchObject({ messageId });
    expect(harness.taken.map(({ text }) => text[0])).toEqual(["1", "2", "3", "4", "5"]);
  });

  test("that wait are not read any further when they have sent as much as a CONNECT may have", async ({
    openHarness,
  }) => {
    const harness = await openHarness({ limits: { connectionsPerSecond: 1, maximumConnectBytes: 128 } });
    await open(harness, { clientId: "first" });
    // A pair of streams instead of a socket: what is not read on one side waits on the other, without kernel buffers.
    const [far, near] = duplexPair();
    const waits = once(harness.events, "limited");
    harness.broker.accept(near, { remoteAddress: "pair", remotePort: 0, incoming: forwardData(near) });
    await waits;
    let taken = 0;
    for (let count = 0; count < 100; count += 1) far.write(Buffer.alloc(10_000), () => (taken += 1));
    for (let count = 0; count < 300; count += 1) await turn();
    expect(taken).toBeLessThan(20);
    far.destroy();
  });

  test("that wait for their turn when the gateway stops are closed", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { connectionsPerSecond: 1 } });
    await open(harness, { clientId: "first" });
    const waiting = await harness.open();
    await harness.broker[Symbol.asyncDispose]();
    await waiting.closed;
  });

  test("that wait are forgotten when they go", async ({ openHarness }) => {
    const harness = await openHarness({
      limits: { connectionsPerSecond: 2, maximumConnections: 3, maximumConnectionsPerAddress: 3 },
    });
    await open(harness, { clientId: "first" });
    const waiting = await Promise.all([harness.open(), harness.open()]);
    for (const { socket } of waiting) socket.end(bytes(0x10, 14, 0, 4, "MQTT", 4, 2, 0, 0, 0, 2, "c1"));
    await Promise.all(waiting.map(({ closed }) => closed));
    await open(harness, { clientId: "last" });
    expect(harness.traffic.socketsOpened).toBe(2);
  });

  test.for([
    ["10.1.2.3", "10.1.2.3"],
    ["::ffff:10.1.2.3", "10.1.2.3"],
    ["2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"],
    ["2001:0DB8:0000:0001::1", "2001:db8:0:1::/64"],
    ["2001:db8::1", "2001:db8:0:0::/64"],
    ["1::2:3:4:5:6:7", "1:0:2:3::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["::1", "0:0:0:0::/64"],
    ["unknown", "unknown"],
  ] as const)("from %s are counted for %s", ([address, network]) => {
    expect(networkOf(address)).toBe(network);
  });
});
