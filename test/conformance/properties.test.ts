// Properties of MQTT 5: sections 2.2.2, 3.1.2.11, 3.3.2.3 and those of the acknowledgements.

import { setTimeout as delay } from "node:timers/promises";
import { describe, expect } from "vitest";
import { publish } from "../broker/harness.ts";
import { bytes, counted, packet, properties as withLength } from "../broker/wire.ts";
import {
  acknowledge,
  connackOf,
  end,
  join,
  joinLasting,
  leave,
  readToEnd,
  recordBytes,
  say,
  subscribe,
  test,
  textOf,
} from "./clients.ts";

const pair = (name: string, value: string): Buffer => bytes(0x26, counted(name), counted(value));

const topics = ["news", "devices/d1/telemetry"] as const;

describe("The properties of a PUBLISH", () => {
  const given = {
    payloadFormatIndicator: true,
    responseTopic: "answers/ä",
    correlationData: Buffer.from([0, 1, 0xff]),
    contentType: "application/json",
    userProperties: { z: ["1", "2"], a: "3" },
  };

  test.for(topics)(
    "on %s reach subscribers unaltered, user properties in order [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]",
    async (topic, { openHarness }) => {
      const harness = await openHarness();
      const client = await join(harness);
      await subscribe(client, [{ topic: "#", qos: 1 }]);
      await say(client, { topic, payload: "good", properties: given });
      const message = await client.next("publish");
      expect(message.properties).toEqual(given);
      await acknowledge(client, message);
    },
  );

  test.for(topics)("on %s are kept with a retained message [MQTT-3.3.2-17]", async (topic, { openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await say(client, { topic, payload: "good", retain: true, properties: given });
    await subscribe(client, [{ topic: "#", qos: 1 }]);
    expect((await client.next("publish")).properties).toEqual(given);
  });

  test.for(topics)("on %s wait with it for a session that is away [MQTT-3.3.2-17]", async (topic, { openHarness }) => {
    const harness = await openHarness();
    const away = await joinLasting(harness, 5);
    await subscribe(away, [{ topic: "#", qos: 1 }]);
    await leave(away);
    const sender = await join(harness, { clientId: "sender" });
    await say(sender, { topic, payload: "good", properties: given });
    const back = await joinLasting(harness, 5);
    expect((await back.next("publish")).properties).toEqual(given);
  });

  test.for(topics)("on %s are left out for a client of 3.1.1", async (topic, { openHarness }) => {
    const harness = await openHarness();
    const old = await join(harness, { clientId: "old", protocolVersion: 4 });
    await subscribe(old, [{ topic: "#", qos: 1 }]);
    const sender = await join(harness, { clientId: "sender" });
    await say(sender, { topic, payload: "good", properties: given });
    const message = await old.next("publish");
    expect(textOf(message)).toBe("good");
    expect(message.properties).toBeUndefined();
  });
});

describe.concurrent("Message Expiry Interval", () => {
  test.for(topics)("of a message on %s is passed on [MQTT-3.3.2-6]", async (topic, { openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await subscribe(client, [{ topic: "#", qos: 1 }]);
    await say(client, { topic, payload: "good", properties: { messageExpiryInterval: 100 } });
    const { properties } = await client.next("publish");
    expect(properties?.messageExpiryInterval).toBeGreaterThan(95);
    expect(properties?.messageExpiryInterval).toBeLessThanOrEqual(100);
  });

  test.for(topics)(
    "of a message on %s that waited is less by that time, and none is sent when it has passed [MQTT-3.3.2-5] [MQTT-3.3.2-6]",
    async (topic, { openHarness }) => {
      const harness = await openHarness();
      const away = await joinLasting(harness, 5);
      await subscribe(away, [{ topic: "#", qos: 1 }]);
      await leave(away);
      const sender = await join(harness, { clientId: "sender" });
      await say(sender, { topic, payload: "good, long", properties: { messageExpiryInterval: 100 } });
      await say(sender, { topic, payload: "good, short", properties: { messageExpiryInterval: 1 } });
      await delay(2_100); // intervals are in whole seconds
      const back = await joinLasting(harness, 5);
      await say(sender, end(topic));
      const messages = await readToEnd(back);
      expect(messages.map(textOf)).toEqual(["good, long"]);
      expect(messages[0]?.properties?.messageExpiryInterval).toBeLessThan(100);
      expect(messages[0]?.properties?.messageExpiryInterval).toBeGreaterThan(90);
    },
  );

  test.for(topics)(
    "of a retained message on %s ends it for later subscribers [MQTT-3.3.2-5]",
    async (topic, { openHarness }) => {
      const harness = await openHarness();
      const client = await join(harness);
      await say(client, { topic, payload: "good", retain: true, properties: { messageExpiryInterval: 1 } });
      await delay(2_100); // intervals are in whole seconds
      await subscribe(client, [{ topic: "#", qos: 1 }]);
      await say(client, end(topic));
      expect(await readToEnd(client)).toEqual([]);
    },
  );
});

describe.concurrent("A message that expires in its handshake", () => {
  test("is sent again, and its handshake goes on [MQTT-4.3.3-7] [MQTT-4.3.3-13]", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await joinLasting(harness, 5);
    await subscribe(first, [{ topic: "news", qos: 2 }]);
    const sender = await join(harness, { clientId: "sender" });
    await say(sender, { topic: "news", payload: "sent", qos: 2, properties: { messageExpiryInterval: 1 } });
    const { messageId } = await first.next("publish");
    await leave(first);
    await delay(2_100); // intervals are in whole seconds
    const second = await joinLasting(harness, 5);
    const again = await second.next("publish");
    expect(again).toMatchObject({ messageId, dup: true, payload: Buffer.from("sent") });
    await acknowledge(second, again);
  });
});

describe("User properties of different names", () => {
  test("keep the order in which they came in live telemetry of QoS 0 [MQTT-3.3.2-18]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await subscribe(client, [{ topic: "#", qos: 0 }]);
    const given = withLength(pair("z", "1"), pair("a", "2"), pair("z", "3"));
    const received = recordBytes(client);
    client.send(packet(0x30, counted("devices/d1/telemetry"), given, "good"));
    await client.next("publish");
    expect(received().includes(given)).toBe(true);
  });
});

describe("Topic Alias", () => {
  test("stands for a topic as far as CONNACK allows, on one connection [MQTT-3.3.2-7] [MQTT-3.3.2-12]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness);
    const { topicAliasMaximum = 0 } = connackOf(client).properties ?? {};
    expect(topicAliasMaximum).toBeGreaterThan(0);
    await subscribe(client, [{ topic: "#", qos: 1 }]);
    for (const topic of topics) {
      for (const topicAlias of [1, topicAliasMaximum]) {
        await say(client, { topic, payload: "good 1", properties: { topicAlias } });
        await say(client, { topic: "", payload: "good 2", properties: { topicAlias } });
      }
      await say(client, end(topic));
      expect((await readToEnd(client)).map((message) => [message.topic, textOf(message)])).toEqual([
        [topic, "good 1"],
        [topic, "good 2"],
        [topic, "good 1"],
        [topic, "good 2"],
      ]);
    }
    await leave(client);
    const again = await join(harness);
    again.send(publish({ topic: "", messageId: 1, properties: { topicAlias: 1 } }));
    expect(await again.next("disconnect")).toMatchObject({ reasonCode: 0x82 });
    await again.closed;
  });

  test("of 0 or beyond the maximum ends the connection with 0x94 [MQTT-3.3.2-8] [MQTT-3.3.2-9]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    for (const topicAlias of [0, 65_535]) {
      const client = await join(harness);
      client.send(publish({ topic: "news", messageId: 1, properties: { topicAlias } }));
      expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x94 });
      await client.closed;
    }
  });

  test("is not passed on, and none is sent to a client that did not ask [MQTT-3.1.2-27] [MQTT-3.3.2-11]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await subscribe(client, [{ topic: "#", qos: 1 }]);
    for (const topic of topics) {
      const alias = connackOf(client).properties?.topicAliasMaximum === undefined ? {} : { topicAlias: 1 };
      await say(client, { topic, payload: "good", properties: alias });
      const message = await client.next("publish");
      expect(message.properties ?? {}).not.toHaveProperty("topicAlias");
      expect(message.topic).toBe(topic);
    }
  });

  test("to a client is at most what it asked for, and stands for one topic [MQTT-3.1.2-26] [MQTT-3.3.2-11]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { properties: { topicAliasMaximum: 2 } });
    await subscribe(client, [{ topic: "#", qos: 0 }]);
    const known = new Map<number, string>();
    for (const topic of ["a", "b", "c", "a", "b", "c"]) {
      await say(client, { topic, payload: "x" });
      const message = await client.next("publish");
      const { topicAlias } = message.properties ?? {};
      expect(topicAlias ?? 1).toBeLessThanOrEqual(2);
      if (topicAlias !== undefined && message.topic !== "") known.set(topicAlias, message.topic);
      expect(message.topic === "" ? known.get(topicAlias ?? 0) : message.topic).toBe(topic);
    }
  });
});

describe("Maximum Packet Size of the client", () => {
  test.for(topics)(
    "keeps a larger message on %s from it, and what follows comes [MQTT-3.1.2-24] [MQTT-3.1.2-25]",
    async (topic, { openHarness }) => {
      const harness = await openHarness({ limits: { queuedMessagesPerSession: 100 } });
      const client = await join(harness, { properties: { maximumPacketSize: 200 } });
      await subscribe(client, [{ topic: "#", qos: 1 }]);
      const sender = await join(harness, { clientId: "sender" });
      for (let round = 0; round < 10; round += 1) {
        await say(sender, { topic, payload: `good ${"x".repeat(300)}` });
        await say(sender, { topic, payload: "good" });
      }
      await say(sender, end(topic));
      expect((await readToEnd(client)).map(textOf)).toEqual(Array.from({ length: 10 }, () => "good"));
    },
  );
});

describe("Request Problem Information", () => {
  test("of 0 keeps reasons and user properties from every acknowledgement [MQTT-3.1.2-29]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { properties: { requestProblemInformation: false } });
    client.send(publish({ messageId: 1, payload: "bad" }), publish({ topic: "sluice/x", messageId: 2 }));
    const rejected = await client.next("puback");
    const refused = await client.next("puback");
    const { properties } = await subscribe(client, [{ topic: "a", qos: 1 }]);
    for (const given of [rejected.properties, refused.properties, properties])
      expect(Object.keys(given ?? {})).toEqual([]);
  });

  test("by default lets a rejected message be answered with 0x99 and what was wrong [MQTT-3.4.2-1]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness);
    client.send(publish({ messageId: 1, payload: "bad" }));
    const answer = await client.next("puback");
    expect(answer.reasonCode).toBe(0x99);
    expect(answer.properties?.reasonString).toMatch(/./);
    expect(answer.properties?.userProperties).toMatchObject({ path: "metrics.t" });
    client.send(publish({ messageId: 2, qos: 2, payload: "bad" }));
    expect(await client.next("pubrec")).toMatchObject({ messageId: 2, reasonCode: 0x99 });
  });

  test("a reason is left out where the packet would be too large for the client [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { properties: { maximumPacketSize: 20 } });
    const received = recordBytes(client);
    client.send(publish({ messageId: 1, payload: "bad" }));
    await client.next("puback");
    const pubackBytes = received().length;
    expect(pubackBytes).toBeLessThanOrEqual(20);
    client.send(publish({ messageId: 2, qos: 2, payload: "bad" }));
    await client.next("pubrec");
    expect(received().length - pubackBytes).toBeLessThanOrEqual(20);
  });
});

describe("A property length", () => {
  test("is there in every packet that has properties, also when it is 0 [MQTT-2.2.2-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    const received = recordBytes(client);
    client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "a", qos: 0 }] });
    await client.next("suback");
    client.send(publish({ topic: "a", payload: "x", qos: 0 }));
    await client.next("publish");
    client.send({ cmd: "unsubscribe", messageId: 2, unsubscriptions: ["a"] });
    await client.next("unsuback");
    const [suback, message, unsuback] = ["900400010000", "30050001610078", "b00400020000"];
    expect(received().toString("hex")).toBe(`${suback}${message}${unsuback}`);
  });
});
