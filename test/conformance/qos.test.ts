// Delivery protocols and order: MQTT 5 sections 4.3 and 4.6. Telemetry's side of them is in broker/telemetry.test.ts.

import { describe, expect } from "vitest";
import { publish } from "../broker/harness.ts";
import { acknowledge, end, join, readToEnd, say, subscribe, test, textOf, versions } from "./clients.ts";

/** A topic that Aedes handles and one that goes to the journal. */
const topics = ["news", "devices/d1/telemetry"] as const;

describe.for(versions)("What the gateway receives in version %s", (version) => {
  test("is answered as its QoS asks, with its packet identifier [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT-2.2.1-5]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    for (const topic of topics) {
      client.send(publish({ topic, qos: 0 }), publish({ topic, qos: 1, messageId: 11 }));
      expect(await client.next("puback")).toMatchObject({ messageId: 11 });
      client.send(publish({ topic, qos: 2, messageId: 12 }));
      expect(await client.next("pubrec")).toMatchObject({ messageId: 12 });
      client.send({ cmd: "pubrel", messageId: 12 });
      expect(await client.next("pubcomp")).toMatchObject({ messageId: 12 });
    }
    expect(client.packets.filter(({ cmd }) => cmd.startsWith("pub"))).toHaveLength(6);
  });

  test("is new again with an identifier that was acknowledged, whatever DUP says [MQTT-4.3.2-5] [MQTT-4.3.3-12]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await subscribe(client, [{ topic: "#", qos: 2 }]);
    for (const topic of topics) {
      for (const qos of [1, 2] as const) {
        await say(client, { topic, qos, payload: "good first", messageId: 5 });
        await say(client, { topic, qos, payload: "good second", messageId: 5, dup: true });
      }
      await say(client, { topic, qos: 2, payload: "end" });
      expect((await readToEnd(client)).map(textOf)).toEqual(["good first", "good second", "good first", "good second"]);
    }
  });

  test("in QoS 2 is delivered once until PUBREL, however often it comes [MQTT-4.3.3-10]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await subscribe(client, [{ topic: "#", qos: 1 }]);
    for (const topic of topics) {
      for (let round = 0; round < 3; round += 1) {
        client.send(publish({ topic, qos: 2, messageId: 6, payload: "good", dup: round > 0 }));
        expect(await client.next("pubrec")).toMatchObject({ messageId: 6 });
      }
      client.send({ cmd: "pubrel", messageId: 6 });
      await client.next("pubcomp");
      await say(client, { topic, payload: "end" });
      expect((await readToEnd(client)).map(textOf)).toEqual(["good"]);
    }
  });

  test("is acknowledged in the order in which it came, telemetry and other topics alike [MQTT-4.6.0-2] [MQTT-4.6.0-3]", async ({
    openHarness,
  }) => {
    const harness = await openHarness({ limits: { maximumInflightQos2: 100 } });
    const client = await join(harness, { protocolVersion: version });
    const ids = Array.from({ length: 40 }, (_, index) => index + 1);
    client.send(
      ...ids.map((id) => publish({ topic: topics[id % 3 === 0 ? 0 : 1], qos: id % 2 === 0 ? 1 : 2, messageId: id })),
    );
    for (let left = ids.length; left > 0; left -= 2) {
      await client.next("pubrec");
      await client.next("puback");
    }
    const answered = client.packets.filter(({ cmd }) => cmd === "puback" || cmd === "pubrec");
    expect(answered.map(({ messageId }) => messageId)).toEqual(ids);
  });

  test("PUBREL is answered by PUBCOMP also when nobody knows the message [MQTT-4.3.3-11]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    client.send({ cmd: "pubrel", messageId: 77 });
    const { messageId, reasonCode = 0 } = await client.next("pubcomp");
    expect(messageId).toBe(77);
    expect([0, 0x92]).toContain(reasonCode);
  });
});

describe("A QoS 2 message that is refused", () => {
  test("leaves its packet identifier free [MQTT-4.3.3-9]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    client.send(publish({ topic: "$SYS/x", qos: 2, messageId: 8 }));
    expect(await client.next("pubrec")).toMatchObject({ messageId: 8, reasonCode: 0x87 });
    await say(client, { qos: 2, messageId: 8, payload: "good" });
    expect(harness.taken.map(({ text }) => text)).toEqual(["good"]);
  });
});

describe.for(versions)("What the gateway sends in version %s", (version) => {
  test("in QoS 1 and 2 has identifiers that are not 0 and not in use [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.3-1] [MQTT-4.3.3-2]", async ({
    openHarness,
  }) => {
    const harness = await openHarness({ limits: { queuedMessagesPerSession: 100 } });
    const client = await join(harness, { protocolVersion: version });
    await subscribe(client, [{ topic: "#", qos: 2 }]);
    const sender = await join(harness, { clientId: "sender" });
    const used = new Set<number>();
    for (let index = 0; index < 20; index += 1) {
      const qos = index % 2 === 0 ? 1 : 2;
      await say(sender, { topic: topics[index % 2] ?? "news", qos, payload: "good" });
      const message = await client.next("publish");
      expect(message).toMatchObject({ qos, dup: false });
      used.add(message.messageId ?? 0);
    }
    expect(used.size).toBe(20);
    expect(used).not.toContain(0);
  });

  test("in QoS 2 goes through PUBREC, PUBREL and PUBCOMP [MQTT-4.3.3-3] [MQTT-4.3.3-4]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await subscribe(client, [{ topic: "news", qos: 2 }]);
    await say(client, { topic: "news", qos: 2 });
    const { messageId = 0 } = await client.next("publish");
    client.send({ cmd: "pubrec", messageId });
    expect(await client.next("pubrel")).toMatchObject({ messageId });
    client.send({ cmd: "pubcomp", messageId });
    await say(client, { topic: "news", payload: "end", qos: 2 });
    expect(await readToEnd(client)).toEqual([]);
  });

  test.for(topics)(
    "on %s comes in the order in which it was published [MQTT-4.6.0-5] [MQTT-4.6.0-6]",
    async (topic, { openHarness }) => {
      const harness = await openHarness({ limits: { maximumInflightQos2: 100, queuedMessagesPerSession: 100 } });
      const client = await join(harness, { protocolVersion: version });
      await subscribe(client, [{ topic: "#", qos: 1 }]);
      const sender = await join(harness, { clientId: "sender" });
      const payloads = Array.from({ length: 50 }, (_, index) => `good ${index}`);
      sender.send(...payloads.map((payload, index) => publish({ topic, payload, messageId: index + 1 })));
      for (let index = 0; index < payloads.length; index += 1) await sender.next("puback");
      await say(sender, { ...end(topic), messageId: 99 });
      expect((await readToEnd(client)).map(textOf)).toEqual(payloads);
    },
  );

  test("again after a reconnection comes in its first order [MQTT-4.6.0-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const lasting = {
      clientId: "lasting",
      protocolVersion: version,
      clean: false,
      ...(version === 5 ? { properties: { sessionExpiryInterval: 100 } } : undefined),
    };
    const first = await join(harness, lasting);
    await subscribe(first, [{ topic: "news", qos: 2 }]);
    const sender = await join(harness, { clientId: "sender" });
    for (let index = 0; index < 5; index += 1)
      await say(sender, { topic: "news", payload: String(index), qos: index % 2 === 0 ? 1 : 2 });
    for (let index = 0; index < 5; index += 1) await first.next("publish");
    first.socket.destroy();
    await first.closed;
    const second = await join(harness, lasting);
    const again: string[] = [];
    for (let index = 0; index < 5; index += 1) {
      const message = await second.next("publish");
      again.push(textOf(message));
      await acknowledge(second, message);
    }
    expect(again).toEqual(["0", "1", "2", "3", "4"]);
  });
});
