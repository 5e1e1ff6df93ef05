import { describe, expect } from "vitest";
import type { Authenticate } from "../../src/broker/authenticate.ts";
import { publish, test } from "./harness.ts";

const believeUsername: Authenticate = ({ username }) => Promise.resolve({ kind: "known", deviceId: username });

describe("telemetry", () => {
  test("a PUBACK comes only after the record is durable", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect();
    client.send(publish({ messageId: 7 }), { cmd: "pingreq" });
    await client.next("pingresp"); // what came before it was handled
    expect(harness.taken.map(({ text }) => text)).toEqual(["good"]);
    expect(client.packets.map(({ cmd }) => cmd)).not.toContain("puback");
    harness.commit();
    expect(await client.next("puback")).toMatchObject({ messageId: 7 });
  });

  test("PUBACKs come in the order of the PUBLISH packets, also between telemetry and other topics [MQTT-4.6.0-2]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect();
    client.send(
      publish({ messageId: 1 }),
      publish({ messageId: 2, topic: "other" }),
      publish({ messageId: 3 }),
      publish({ messageId: 4, topic: "other" }),
      { cmd: "pingreq" },
    );
    await client.next("pingresp");
    expect(client.packets.filter(({ cmd }) => cmd === "puback")).toEqual([]);
    harness.commit();
    for (const messageId of [1, 2, 3, 4]) expect(await client.next("puback")).toMatchObject({ messageId });
  });

  test("the order of the socket is the order of the journal, whatever the QoS", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect();
    const sent = [2, 1, 0, 2, 1, 0, 1, 2] as const;
    client.send(
      ...sent.map((qos, index) => publish({ qos, payload: String(index), ...(qos > 0 && { messageId: index + 1 }) })),
      { cmd: "pingreq" },
    );
    await client.next("pingresp");
    expect(harness.taken.map(({ text }) => text)).toEqual(sent.map((_, index) => String(index)));
  });

  test("a QoS 2 message enters the journal once, however often it is sent [MQTT-4.3.3-10]", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await harness.open();
    await first.connect({ clientId: "once", clean: false });
    const message = publish({ qos: 2, messageId: 9 });
    first.send(message, { ...message, dup: true } as never, { cmd: "pingreq" });
    await first.next("pingresp");
    expect(first.packets.map(({ cmd }) => cmd)).not.toContain("pubrec");
    harness.commit();
    await first.next("pubrec");
    await first.next("pubrec");
    first.socket.destroy();
    await first.closed;

    const second = await harness.open();
    await second.connect({ clientId: "once", clean: false });
    second.send({ ...message, dup: true } as never);
    expect(await second.next("pubrec")).toMatchObject({ messageId: 9 });
    harness.autoCommit = true;
    second.send({ cmd: "pubrel", messageId: 9 });
    expect(await second.next("pubcomp")).toMatchObject({ messageId: 9 });
    expect(harness.taken).toHaveLength(1);

    second.send(message, { cmd: "pingreq" }); // the packet identifier is free again: a new message
    await second.next("pingresp");
    expect(harness.taken).toHaveLength(2);
  });

  test("a clean start forgets the unfinished QoS 2 messages of the session before", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await harness.open();
    await first.connect({ clientId: "s", clean: false });
    first.send(publish({ qos: 2, messageId: 1 }), { cmd: "pingreq" });
    await first.next("pingresp");
    const second = await harness.open();
    await second.connect({ clientId: "s", clean: true });
    second.send(publish({ qos: 2, messageId: 1, payload: "new" }), { cmd: "pingreq" });
    await second.next("pingresp");
    expect(harness.taken.map(({ text }) => text)).toEqual(["good", "new"]);
  });

  test("unfinished QoS 2 messages are kept for as many sessions as allowed", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { sessions: 1 } });
    const send = async (clientId: string): Promise<void> => {
      const client = await harness.open();
      await client.connect({ clientId, clean: false });
      client.send(publish({ qos: 2, messageId: 1, payload: clientId }), { cmd: "pingreq" });
      await client.next("pingresp");
      client.socket.destroy();
      await harness.nextEnd();
    };
    for (const clientId of ["kept", "one too many", "kept", "one too many"]) await send(clientId);
    expect(harness.taken.map(({ text }) => text)).toEqual(["kept", "one too many", "one too many"]);
  });

  test("more unfinished QoS 2 messages than allowed end the connection", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumInflightQos2: 3 } });
    const client = await harness.open();
    await client.connect();
    client.send(...[1, 2, 3, 4].map((messageId) => publish({ qos: 2, messageId })));
    await client.closed;
    expect(harness.taken).toHaveLength(3);
  });

  test("a journal that cannot take more holds its messages and nobody else", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect();
    harness.setCongested(true);
    client.send(publish({ messageId: 1 }), { cmd: "pingreq" });
    // Devices may connect and subscribers are served, so that a full journal can be watched.
    const other = await harness.open();
    await other.connect({ clientId: "other" });
    other.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "turn", qos: 0 }] });
    await other.next("suback");
    await harness.broker.publish({ topic: "turn", payload: "" });
    await other.next("publish");
    other.send(publish({ messageId: 1 }), { cmd: "pingreq" });
    const third = await harness.open();
    await third.connect({ clientId: "third" });
    third.send({ cmd: "pingreq" });
    await third.next("pingresp");
    expect(harness.taken).toEqual([]);
    expect([client, other].flatMap(({ packets }) => packets.filter(({ cmd }) => cmd === "pingresp"))).toEqual([]);
    harness.autoCommit = true;
    harness.setCongested(false);
    await client.next("puback");
    await client.next("pingresp");
    await other.next("puback");
    expect(harness.taken).toHaveLength(2);
  });

  test("a rejected message is acknowledged, and shown with its reason to who listens", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const watcher = await harness.open();
    await watcher.connect({ clientId: "watcher" });
    watcher.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "sluice/rejected/#", qos: 0 }] });
    await watcher.next("suback");
    const client = await harness.open();
    await client.connect({ clientId: "d1" });
    client.send(publish({ messageId: 5, payload: "bad payload" }));
    expect(await client.next("puback")).toMatchObject({ messageId: 5 });
    const shown = await watcher.next("publish");
    expect(shown.topic).toBe("sluice/rejected/climate/d1");
    expect(JSON.parse(shown.payload.toString())).toMatchObject({
      topic: "devices/d1/telemetry",
      device: "d1",
      reason: "invalid",
      issues: [{ path: "metrics.t", message: "bad" }],
      payload: Buffer.from("bad payload").toString("base64"),
    });
  });

  test("subscribers see accepted telemetry with its properties, and not what was rejected", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const watcher = await harness.open();
    await watcher.connect({ clientId: "watcher", protocolVersion: 5 });
    watcher.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "#", qos: 0 }] });
    await watcher.next("suback");
    const client = await harness.open();
    await client.connect({ protocolVersion: 5 });
    client.send(
      publish({ messageId: 1, payload: "bad" }),
      publish({ messageId: 2, properties: { contentType: "application/json", userProperties: { site: "north" } } }),
    );
    await client.next("puback");
    await client.next("puback");
    const shown = [await watcher.next("publish"), await watcher.next("publish")];
    expect(shown.map(({ topic }) => topic)).toEqual(["sluice/rejected/climate/d1", "devices/d1/telemetry"]);
    expect(shown[1]).toMatchObject({
      payload: Buffer.from("good"),
      properties: { contentType: "application/json", userProperties: { site: "north" } },
    });
  });

  test("retained telemetry is durable before its PUBACK and kept for later subscribers", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect();
    client.send(publish({ messageId: 1, retain: true }), { cmd: "pingreq" });
    await client.next("pingresp");
    expect(client.packets.map(({ cmd }) => cmd)).not.toContain("puback");
    harness.commit();
    await client.next("puback");
    const late = await harness.open();
    await late.connect({ clientId: "late" });
    late.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "devices/+/telemetry", qos: 0 }] });
    expect(await late.next("publish")).toMatchObject({ retain: true, payload: Buffer.from("good") });
  });

  test("a will on a stream's topic is telemetry like any other", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect({
      will: { topic: "devices/d1/telemetry", payload: Buffer.from("last words"), qos: 1, retain: false },
    });
    const taken = new Promise<void>((resolve) => {
      harness.events.once("received", () => setImmediate(resolve));
    });
    client.socket.destroy();
    await taken;
    expect(harness.taken.map(({ text }) => text)).toEqual(["last words"]);
  });

  test("messages and wills carry the identity that the credentials stand for", async ({ openHarness }) => {
    const harness = await openHarness({ authenticate: believeUsername });
    const client = await harness.open();
    await client.connect({
      username: "d7",
      will: { topic: "devices/d1/telemetry", payload: Buffer.from("last words"), qos: 1, retain: false },
    });
    client.send(publish({ qos: 0 }), { cmd: "pingreq" });
    await client.next("pingresp");
    const taken = new Promise<void>((resolve) => {
      harness.events.once("received", () => setImmediate(resolve));
    });
    client.socket.destroy();
    await taken;
    expect(harness.taken.map(({ text, identity }) => [text, identity])).toEqual([
      ["good", "d7"],
      ["last words", "d7"],
    ]);
  });
});

describe("other topics", () => {
  test("commands reach devices as in any broker", async ({ openHarness }) => {
    const harness = await openHarness();
    const device = await harness.open();
    await device.connect({ clientId: "d1" });
    device.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "devices/d1/commands", qos: 1 }] });
    await device.next("suback");
    const operator = await harness.open();
    await operator.connect({ clientId: "operator" });
    operator.send(publish({ topic: "devices/d1/commands", messageId: 1, payload: "restart" }));
    await operator.next("puback");
    expect(await device.next("publish")).toMatchObject({ payload: Buffer.from("restart") });
    expect(harness.taken).toEqual([]);
  });

  test.for(["$SYS/broker/version", "sluice/rejected/climate/d1", "$SYS"])(
    "%s is the gateway's own: publishing there is refused and counted",
    async (topic, { openHarness }) => {
      const harness = await openHarness();
      const refused: string[] = [];
      harness.events.on("refused", (_clientId, name, reason) => refused.push(`${name} ${reason}`));
      const client = await harness.open();
      await client.connect({ protocolVersion: 5 });
      client.send(publish({ topic, messageId: 1 }));
      expect(await client.next("puback")).toMatchObject({ messageId: 1, reasonCode: 0x87 });
      expect(refused).toEqual([`${topic} reserved-topic`]);
    },
  );

  test("$SYS tells version and clients, retained", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect();
    client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "$SYS/broker/version", qos: 0 }] });
    expect(await client.next("publish")).toMatchObject({ payload: Buffer.from("sluice version test") });
    client.send({
      cmd: "subscribe",
      messageId: 2,
      subscriptions: [{ topic: "$SYS/broker/clients/connected", qos: 0 }],
    });
    let connected = "";
    while (connected !== "1") connected = (await client.next("publish")).payload.toString();
  });

  test("Aedes' own housekeeping topics are not shown", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await harness.open();
    await watcher.connect({ clientId: "watcher" });
    watcher.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "$SYS/#", qos: 0 }] });
    await watcher.next("suback");
    const other = await harness.open();
    await other.connect({ clientId: "other" });
    other.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "x", qos: 0 }] });
    await other.next("suback");
    await harness.broker.publish({ topic: "$SYS/last", payload: "" });
    let topic = "";
    const topics: string[] = [];
    while (topic !== "$SYS/last") {
      ({ topic } = await watcher.next("publish"));
      topics.push(topic);
    }
    expect(topics.filter((name) => !name.startsWith("$SYS/broker/") && name !== "$SYS/last")).toEqual([]);
  });
});
