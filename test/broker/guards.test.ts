// What one hostile or stuck client could do to Aedes 2.0.0-beta.1, and must not (ADR 0002). Each fails without its guard.

import { duplexPair } from "node:stream";
import { setImmediate as turn, setTimeout as delay } from "node:timers/promises";
import { generate, parser as createParser, type Packet } from "mqtt-packet";
import { describe, expect } from "vitest";
import { forwardData } from "../../src/listener/listener.ts";
import { type Harness, publish, test } from "./harness.ts";

/** The gateway still does its work for somebody else. */
async function expectAlive(harness: Harness): Promise<void> {
  const client = await harness.open();
  await client.connect({ clientId: `alive-${Math.random()}` });
  const before = harness.taken.length;
  harness.autoCommit = true;
  client.send(publish({ messageId: 1 }));
  await client.next("puback");
  expect(harness.taken).toHaveLength(before + 1);
  client.socket.destroy();
}

const bytes = (...parts: readonly (number | string | Buffer)[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === "number" ? Buffer.from([part]) : Buffer.from(part as string))));

describe("guard 1: names from the wire", () => {
  test.for(["__proto__", "constructor", "toString", "hasOwnProperty"])(
    "a client may be called %s",
    async (clientId, { openHarness }) => {
      const harness = await openHarness();
      harness.autoCommit = true;
      for (let round = 0; round < 2; round += 1) {
        const client = await harness.open();
        await client.connect({ clientId, clean: false });
        client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "a/b", qos: 1 }] });
        await client.next("suback");
        client.send(publish({ messageId: 2, topic: "a/b" }));
        await client.next("publish");
        client.socket.destroy();
        await client.closed;
      }
      await expectAlive(harness);
    },
  );

  test.for(["__proto__", "constructor", "toString"])("the filter %s is refused", async (topic, { openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect();
    client.send({
      cmd: "subscribe",
      messageId: 1,
      subscriptions: [
        { topic, qos: 0 },
        { topic: "b", qos: 0 },
      ],
    });
    await client.closed;
    await expectAlive(harness);
  });
});

describe("guard 1: topics", () => {
  test.for(["__proto__", "constructor", "toString"])(
    "the topic %s reaches subscribers like any other",
    async (topic, { openHarness }) => {
      const harness = await openHarness();
      const client = await harness.open();
      await client.connect();
      client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "#", qos: 1 }] });
      await client.next("suback");
      client.send(publish({ topic, messageId: 2 }));
      expect(await client.next("publish")).toMatchObject({ topic, qos: 1 });
    },
  );
});

describe("guard 2: strict packets", () => {
  const connect = bytes(0x10, 14, 0, 4, "MQTT", 4, 2, 0, 0, 0, 2, "c1");
  const cases: readonly (readonly [string, Buffer])[] = [
    ["bytes that are no MQTT", bytes("GET / HTTP/1.1\r\n\r\n")],
    ["a packet before CONNECT", bytes(0xc0, 0)],
    ["a second CONNECT [MQTT-3.1.0-2]", Buffer.concat([connect, connect])],
    ["a remaining length of five bytes", bytes(0x10, 0xff, 0xff, 0xff, 0xff, 0x7f)],
    ["a wrong protocol name", bytes(0x10, 14, 0, 4, "MQTX", 4, 2, 0, 0, 0, 2, "c1")],
    ["packet identifier 0 [MQTT-2.3.1-1]", Buffer.concat([connect, bytes(0x32, 7, 0, 1, "a", 0, 0, "xy")])],
    ["QoS 3 [MQTT-3.3.1-4]", Buffer.concat([connect, bytes(0x36, 7, 0, 1, "a", 0, 1, "xy")])],
    ["a topic with a wildcard [MQTT-3.3.2-2]", Buffer.concat([connect, bytes(0x30, 5, 0, 3, "a/#")])],
    ["a topic with U+0000 [MQTT-1.5.3-2]", Buffer.concat([connect, bytes(0x30, 5, 0, 3, "a\0b")])],
    [
      "a topic that is not UTF-8 [MQTT-1.5.3-1]",
      Buffer.concat([connect, bytes(0x30, 5, 0, 3, Buffer.from([0xc3, 0x28, 0x61]))]),
    ],
    ["an empty topic [MQTT-4.7.3-1]", Buffer.concat([connect, bytes(0x30, 2, 0, 0)])],
    [
      "a topic of 65,535 bytes",
      Buffer.concat([connect, bytes(0x30, 0x81, 0x80, 4, 0xff, 0xff), Buffer.alloc(65_535, "a")]),
    ],
    ["a server's packet", Buffer.concat([connect, bytes(0xd0, 0)])],
    ["reserved flags [MQTT-2.2.2-2]", Buffer.concat([connect, bytes(0xc1, 0)])],
    ["SUBSCRIBE without a filter [MQTT-3.8.3-3]", Buffer.concat([connect, bytes(0x82, 2, 0, 1)])],
  ];
  test.for(cases)("%s ends the connection, is counted and harms nobody", async ([, hostile], { openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    client.send(hostile);
    await client.closed;
    expect(["protocol", "packet-too-large"]).toContain(await harness.nextEnd());
    expect(harness.taken).toEqual([]);
    await expectAlive(harness);
  });

  test("a packet above the limit is refused by its header, before its body", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumPacketBytes: 1_024 } });
    const client = await harness.open();
    await client.connect({ protocolVersion: 5 });
    client.send(bytes(0x30, 0xff, 0xff, 0xff, 0x7f));
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x95 });
    await client.closed;
    await expectAlive(harness);
  });

  test("a CONNECT that never comes ends the connection", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { connectTimeoutMs: 100 } });
    const client = await harness.open();
    client.send(bytes(0x10));
    await client.closed;
    expect(await harness.nextEnd()).toBe("connect-timeout");
  });

  test("connections beyond the limit are closed at once and counted", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumConnections: 2 } });
    const first = await harness.open();
    await first.connect({ clientId: "a" });
    const second = await harness.open();
    await second.connect({ clientId: "b" });
    const third = await harness.open();
    await third.closed;
    expect(await harness.nextEnd()).toBe("limit");
  });
});

describe("guard 3: what Aedes does not catch", () => {
  test("two PUBRELs for one message in one chunk", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect();
    client.send(publish({ topic: "other", qos: 2, messageId: 3 }));
    await client.next("pubrec");
    client.send({ cmd: "pubrel", messageId: 3 }, { cmd: "pubrel", messageId: 3 }, { cmd: "pingreq" });
    await client.next("pubcomp");
    await client.next("pingresp");
    await expectAlive(harness);
  });

  test("session expiry given twice in CONNECT", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    const expiry = bytes(0x11, 0, 0, 0, 1);
    const body = bytes(0, 4, "MQTT", 5, 2, 0, 0, 10, expiry, expiry, 0, 2, "c1");
    client.send(bytes(0x10, body.length, body));
    await client.closed;
    await expectAlive(harness);
  });

  test("session expiry given twice in DISCONNECT", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect({ protocolVersion: 5, properties: { sessionExpiryInterval: 100 } });
    const expiry = bytes(0x11, 0, 0, 0, 1);
    client.send(bytes(0xe0, 12, 0, 10, expiry, expiry));
    await client.closed;
    await expectAlive(harness);
  });

  test("SUBSCRIBE of a good and a hostile filter", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect({ clean: false });
    client.send(bytes(0x82, 12, 0, 1, 0, 1, "a", 0, 0, 3, "a#b", 0));
    await client.closed;
    await expectAlive(harness);
  });

  test("subscriptions beyond the limit of a client are refused", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumSubscriptionsPerClient: 2 } });
    const client = await harness.open();
    await client.connect();
    const granted: unknown[] = [];
    for (const [index, topic] of ["a", "b", "c"].entries()) {
      client.send({ cmd: "subscribe", messageId: index + 1, subscriptions: [{ topic, qos: 0 }] });
      granted.push(...(await client.next("suback")).granted);
    }
    expect(granted).toEqual([0, 0, 0x80]);
  });
});

describe("guard 6: frozen subscribers", () => {
  test("a subscriber that does not read holds up nobody, waits for little, and what it misses is counted", async ({
    openHarness,
  }) => {
    const harness = await openHarness({ limits: { subscriberQueueBytes: 65_536 } });
    harness.autoCommit = true;
    // A pair of streams instead of a socket: what waits, waits in the gateway and not in the kernel.
    const [far, near] = duplexPair();
    harness.broker.accept(near, { remoteAddress: "pair", remotePort: 0, incoming: forwardData(near) });
    far.write(bytes(0x10, 14, 0, 4, "MQTT", 4, 2, 0, 0, 0, 2, "fr", 0x82, 6, 0, 1, 0, 1, "#", 0));
    const live = await harness.open();
    await live.connect({ clientId: "live" });
    live.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "#", qos: 0 }] });
    await live.next("suback");
    const dropped = new Map<string, number>();
    harness.events.on("dropped", (clientId, _topic, messages = 1) =>
      dropped.set(clientId, (dropped.get(clientId) ?? 0) + messages),
    );

    const device = await harness.open();
    await device.connect({ clientId: "d1" });
    const payload = "x".repeat(10_000);
    const count = 500; // 5 MB
    for (let messageId = 1; messageId <= count; messageId += 1) {
      device.send(publish({ messageId, payload }));
      await device.next("puback");
      await live.next("publish");
    }
    expect(dropped.get("live")).toBeUndefined();
    const missed = dropped.get("fr") ?? 0;
    expect(missed).toBeGreaterThan(count * 0.9);

    const received: string[] = [];
    const last = new Promise<void>((resolve) => {
      const parser = createParser({ protocolVersion: 4 });
      parser.on("packet", (packet) => {
        if (packet.cmd !== "publish") return;
        received.push(packet.topic);
        if (received.length + missed === count) void harness.broker.publish({ topic: "last", payload: "" });
        if (packet.topic === "last") resolve();
      });
      far.on("data", (chunk: Buffer) => void parser.parse(chunk));
    });
    await last;
    expect(received).toHaveLength(count - missed + 1);
    far.destroy();
  });

  test("a client that does not read its answers is not read either", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { subscriberQueueBytes: 4_096 } });
    // A pair of streams instead of a socket: what is not read on one side waits on the other, without kernel buffers.
    const [far, near] = duplexPair();
    harness.broker.accept(near, { remoteAddress: "pair", remotePort: 0, incoming: forwardData(near) });
    far.write(bytes(0x10, 14, 0, 4, "MQTT", 4, 2, 0, 0, 0, 2, "c1"));
    harness.autoCommit = true;
    const message = generate(publish({ messageId: 1, payload: "" }));
    const messages = Buffer.concat(Array.from({ length: 2_000 }, () => message));
    let accepted = true;
    for (let round = 0; round < 100 && accepted; round += 1) {
      accepted = await Promise.race([
        new Promise<boolean>((resolve) => far.write(messages, () => resolve(true))),
        delay(500, false), // the gateway's side takes no more: the write stays unfinished
      ]);
      await turn(); // for the commit and its acknowledgements
    }
    expect(accepted).toBe(false);
    expect(near.writableLength).toBeLessThan(1_000_000);
    await expectAlive(harness);
    far.destroy();
  });
});

describe("sessions", () => {
  test("what waits for a session that is away is bounded, and the rest is counted", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { queuedMessagesPerSession: 5 } });
    const away = await harness.open();
    await away.connect({ clientId: "away", clean: false });
    away.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "news", qos: 1 }] });
    await away.next("suback");
    away.socket.destroy();
    await away.closed;
    const dropped: string[] = [];
    harness.events.on("dropped", (clientId, topic) => dropped.push(`${clientId} ${topic}`));
    const sender = await harness.open();
    await sender.connect({ clientId: "sender" });
    for (let messageId = 1; messageId <= 8; messageId += 1) {
      sender.send(publish({ topic: "news", messageId, payload: String(messageId) }));
      await sender.next("puback");
    }
    sender.send({ cmd: "pingreq" });
    await sender.next("pingresp");
    const back = await harness.open();
    await back.connect({ clientId: "away", clean: false });
    const got: string[] = [];
    for (let index = 0; index < 5; index += 1) {
      const message: Extract<Packet, { cmd: "publish" }> = await back.next("publish");
      got.push(message.payload.toString());
      back.send({ cmd: "puback", messageId: message.messageId ?? 0 });
    }
    expect(got).toEqual(["1", "2", "3", "4", "5"]);
    expect(dropped).toEqual(["away news", "away news", "away news"]);
  });

  test("sessions beyond the limit are refused, those that are held may come back", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { sessions: 1 } });
    const open = async (clientId: string): Promise<number> => {
      const client = await harness.open();
      client.send({ cmd: "connect", clientId, protocolId: "MQTT", protocolVersion: 4, clean: false, keepalive: 0 });
      const { returnCode = 0 } = await client.next("connack");
      if (returnCode === 0) {
        client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "news", qos: 1 }] });
        await client.next("suback");
      }
      client.socket.destroy();
      await client.closed;
      return returnCode;
    };
    expect(await open("first")).toBe(0);
    expect(await open("second")).toBe(3);
    expect(await open("first")).toBe(0);
    await expectAlive(harness);
  });

  test("a second connection with the same client id takes the first one's place", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await harness.open();
    await first.connect({ clientId: "same", protocolVersion: 5 });
    const second = await harness.open();
    await second.connect({ clientId: "same" });
    expect(await first.next("disconnect")).toMatchObject({ reasonCode: 0x8e });
    await first.closed;
    expect(await harness.nextEnd()).toBe("taken-over");
    second.send({ cmd: "pingreq" });
    await second.next("pingresp");
  });

  test("a silent client is ended after 1.5 times its keep-alive, one that publishes telemetry is not [MQTT-3.1.2-24]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const busy = await harness.open();
    await busy.connect({ clientId: "busy", keepalive: 2 });
    const silent = await harness.open();
    await silent.connect({ clientId: "silent", keepalive: 2 });
    let messageId = 0;
    const timer = setInterval(() => busy.send(publish({ messageId: (messageId += 1) })), 200);
    await silent.closed;
    await busy.next("puback");
    clearInterval(timer);
    busy.send({ cmd: "pingreq" });
    await busy.next("pingresp");
  });
});

describe("the end", () => {
  test("MQTT 5 clients are told that the server is shutting down", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect({ protocolVersion: 5 });
    await harness.broker[Symbol.asyncDispose]();
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x8b });
    await client.closed;
  });
});
