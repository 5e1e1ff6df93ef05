// Flow control: MQTT 5 section 4.9. What a client may send is in broker/telemetry.test.ts and broker/once.test.ts.

import { describe, expect } from "vitest";
import { publish } from "../broker/harness.ts";
import { acknowledge, join, joinLasting, leave, say, subscribe, test } from "./clients.ts";

const publishes = (client: { readonly packets: readonly { readonly cmd: string }[] }): number =>
  client.packets.filter(({ cmd }) => cmd === "publish").length;

describe("The client's Receive Maximum", () => {
  test.for(["news", "devices/d1/telemetry"])(
    "bounds the messages on %s that it has not acknowledged, and delays nothing else [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3]",
    async (topic, { openHarness }) => {
      const harness = await openHarness();
      const client = await join(harness, { properties: { receiveMaximum: 2 } });
      await subscribe(client, [{ topic: "#", qos: 2 }]);
      const sender = await join(harness, { clientId: "sender" });
      for (let index = 0; index < 5; index += 1)
        await say(sender, { topic, payload: `good ${index}`, qos: index % 2 === 0 ? 1 : 2 });
      client.send({ cmd: "pingreq" });
      await client.next("pingresp");
      await subscribe(client, [{ topic: "other", qos: 0 }]);
      await say(sender, { topic: "other", qos: 0 }); // QoS 0 is not counted
      const unacknowledged = client.packets.filter(
        ({ cmd, ...packet }) => cmd === "publish" && "qos" in packet && packet.qos > 0,
      );
      expect(unacknowledged).toHaveLength(2);
      for (let index = 0; index < 6; index += 1) {
        const message = await client.next("publish");
        await acknowledge(client, message);
      }
      expect(publishes(client)).toBe(6);
    },
  );

  test("bounds what waited for the session too [MQTT-3.3.4-9]", async ({ openHarness }) => {
    const harness = await openHarness();
    const properties = { sessionExpiryInterval: 100, receiveMaximum: 2 };
    const away = await joinLasting(harness, 5, { properties });
    await subscribe(away, [{ topic: "news", qos: 1 }]);
    await leave(away);
    const sender = await join(harness, { clientId: "sender" });
    for (let index = 0; index < 5; index += 1) await say(sender, { topic: "news" });
    const back = await joinLasting(harness, 5, { properties });
    for (let index = 0; index < 5; index += 1) {
      const message = await back.next("publish");
      back.send({ cmd: "pingreq" });
      await back.next("pingresp");
      expect(publishes(back) - index).toBeLessThanOrEqual(2);
      await acknowledge(back, message);
    }
  });
});

describe("The gateway's Receive Maximum", () => {
  test("exceeded ends the connection with 0x93, what is acknowledged does not count [MQTT-3.3.4-7]", async ({
    openHarness,
  }) => {
    const harness = await openHarness({ limits: { maximumInflightQos2: 3 } });
    const client = await join(harness);
    for (let messageId = 1; messageId <= 10; messageId += 1) await say(client, { messageId, qos: 2 });
    for (let messageId = 1; messageId <= 4; messageId += 1) client.send(publish({ messageId, qos: 2 }));
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x93 });
    await client.closed;
  });

  test("of PUBREC with 0x80 or more frees its place [MQTT-3.3.4-7]", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumInflightQos2: 2 } });
    const client = await join(harness);
    for (let messageId = 1; messageId <= 6; messageId += 1) {
      client.send(publish({ topic: "$SYS/x", messageId, qos: 2 }));
      expect(await client.next("pubrec")).toMatchObject({ reasonCode: 0x87 });
    }
    client.send({ cmd: "pingreq" });
    await client.next("pingresp");
  });
});
