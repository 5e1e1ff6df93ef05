// PUBLISH: MQTT 5 section 3.3. QoS handshakes are in qos.test.ts, properties in properties.test.ts.

import { describe, expect } from "vitest";
import { publish } from "../broker/harness.ts";
import { acknowledge, end, join, readToEnd, say, subscribe, test, textOf, versions } from "./clients.ts";

describe.for(versions)("The DUP flag in version %s", (version) => {
  test("of a message that comes is not that of the one that goes out [MQTT-3.3.1-3]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await subscribe(client, [{ topic: "news", qos: 1 }]);
    client.send(publish({ topic: "news", messageId: 9, dup: true }));
    expect(await client.next("publish")).toMatchObject({ dup: false, qos: 1 });
  });

  test("is 0 for QoS 0 [MQTT-3.3.1-2] [MQTT-4.3.1-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await subscribe(client, [{ topic: "news", qos: 0 }]);
    client.send(publish({ topic: "news", messageId: 9, dup: true }));
    const message = await client.next("publish");
    expect(message).toMatchObject({ dup: false, qos: 0 });
    expect(message.messageId).toBeUndefined(); // [MQTT-2.2.1-2]
  });
});

describe.for(versions)("The RETAIN flag in version %s", (version) => {
  test("stores a message with its QoS, in place of the one before [MQTT-3.3.1-5]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    for (const [payload, qos] of [
      ["one", 2],
      ["two", 1],
    ] as const) {
      await say(client, { topic: "state", payload, qos, retain: true });
    }
    await subscribe(client, [{ topic: "state", qos: 2 }]);
    await say(client, end("state"));
    const [only, ...rest] = await readToEnd(client);
    expect(rest).toEqual([]);
    expect(only).toMatchObject({ qos: 1, retain: true, payload: Buffer.from("two") });
  });

  test("of a QoS 0 message replaces the message before too", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await say(client, { topic: "state", payload: "one", qos: 1, retain: true });
    await say(client, { topic: "state", payload: "two", qos: 0, retain: true });
    client.send({ cmd: "pingreq" });
    await client.next("pingresp");
    await subscribe(client, [{ topic: "state", qos: 2 }]);
    await say(client, end("state"));
    expect((await readToEnd(client)).map(textOf)).toEqual(["two"]);
  });

  test("with an empty payload removes the retained message, and is delivered like any other [MQTT-3.3.1-6] [MQTT-3.3.1-7]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await say(client, { topic: "state", payload: "one", retain: true });
    const live = await join(harness, { clientId: "live", protocolVersion: version });
    await subscribe(live, [{ topic: "state", qos: 1 }]);
    await acknowledge(live, await live.next("publish"));
    await say(client, { topic: "state", payload: "", retain: true });
    expect(await live.next("publish")).toMatchObject({ payload: Buffer.alloc(0), retain: false });
    const later = await join(harness, { clientId: "later", protocolVersion: version });
    await subscribe(later, [{ topic: "state", qos: 1 }]);
    await say(client, end("state"));
    expect(await readToEnd(later)).toEqual([]);
  });

  test("of 0 stores nothing and removes nothing [MQTT-3.3.1-8]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await say(client, { topic: "state", payload: "kept", retain: true });
    await say(client, { topic: "state", payload: "passing" });
    await say(client, { topic: "state", payload: "" });
    await say(client, { topic: "other", payload: "passing" });
    await subscribe(client, [
      { topic: "state", qos: 1 },
      { topic: "other", qos: 1 },
    ]);
    await say(client, end("state"));
    expect((await readToEnd(client)).map(textOf)).toEqual(["kept"]);
  });

  test("goes out as 1 to a new subscriber and as 0 to one that was there [MQTT-3.3.1-12]", async ({ openHarness }) => {
    const harness = await openHarness();
    const there = await join(harness, { clientId: "there", protocolVersion: version });
    await subscribe(there, [{ topic: "state", qos: 1 }]);
    const client = await join(harness, { protocolVersion: version });
    await say(client, { topic: "state", payload: "on", retain: true });
    expect(await there.next("publish")).toMatchObject({ retain: false });
    const later = await join(harness, { clientId: "later", protocolVersion: version });
    await subscribe(later, [{ topic: "#", qos: 1 }]);
    expect(await later.next("publish")).toMatchObject({ retain: true, topic: "state" });
  });

  test("of telemetry does the same [MQTT-3.3.1-5]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await say(client, { payload: "good 1", retain: true });
    await say(client, { payload: "good 2", retain: true });
    await say(client, { payload: "good 3" });
    await subscribe(client, [{ topic: "devices/+/telemetry", qos: 1 }]);
    await say(client, { payload: "end" });
    expect((await readToEnd(client)).map((message) => [textOf(message), message.retain])).toEqual([["good 2", true]]);
  });
});

describe("Subscription options", () => {
  test("Retain Handling 0 sends retained messages each time [MQTT-3.3.1-9] [MQTT-3.8.4-4]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await say(client, { topic: "state", payload: "on", retain: true });
    for (let round = 0; round < 2; round += 1) {
      await subscribe(client, [{ topic: "state", qos: 1, rh: 0 }]);
      await acknowledge(client, await client.next("publish"));
    }
  });

  test("Retain Handling 1 sends them to a new subscription only [MQTT-3.3.1-10]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await say(client, { topic: "state", payload: "on", retain: true });
    await subscribe(client, [{ topic: "state", qos: 1, rh: 1 }]);
    await acknowledge(client, await client.next("publish"));
    await subscribe(client, [{ topic: "state", qos: 1, rh: 1 }]);
    await say(client, end("state"));
    expect(await readToEnd(client)).toEqual([]);
  });

  test("Retain Handling 2 sends none [MQTT-3.3.1-11]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await say(client, { topic: "state", payload: "on", retain: true });
    await subscribe(client, [{ topic: "state", qos: 1, rh: 2 }]);
    await say(client, end("state"));
    expect(await readToEnd(client)).toEqual([]);
  });

  test("Retain As Published passes the flag on as it came [MQTT-3.3.1-13]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await subscribe(client, [
      { topic: "state", qos: 1, rap: true },
      { topic: "devices/+/telemetry", qos: 1, rap: true },
    ]);
    for (const topic of ["state", "devices/d1/telemetry"]) {
      await say(client, { topic, payload: "on", retain: true });
      expect(await client.next("publish")).toMatchObject({ topic, retain: true });
      await say(client, { topic, payload: "on", retain: false });
      expect(await client.next("publish")).toMatchObject({ topic, retain: false });
    }
  });
});

describe("Overlapping subscriptions", () => {
  const overlapping = [
    { topic: "a/#", qos: 0 },
    { topic: "a/b", qos: 2 },
    { topic: "+/b", qos: 1 },
  ] as const;

  test.for(versions)(
    "deliver a message with the highest QoS among them in version %s [MQTT-3.3.4-2]",
    async (protocolVersion, { openHarness }) => {
      const harness = await openHarness();
      const client = await join(harness, { protocolVersion });
      await subscribe(client, overlapping);
      await say(client, { topic: "a/b", qos: 2 });
      await say(client, { topic: "a/b", payload: "end", qos: 2 });
      const copies = await readToEnd(client);
      expect(Math.max(...copies.map(({ qos }) => qos))).toBe(2);
    },
  );

  test("tell the identifiers of all that match [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness);
    for (const [index, subscription] of overlapping.entries())
      await subscribe(client, [subscription], { subscriptionIdentifier: index + 1 });
    await say(client, { topic: "a/b", qos: 1 });
    await say(client, end("a/b"));
    const copies = await readToEnd(client);
    const identifiers = copies.flatMap(({ properties }) => properties?.subscriptionIdentifier ?? []);
    expect(identifiers.toSorted((a, b) => a - b)).toEqual([1, 2, 3]);
  });
});

describe("A PUBLISH that is refused", () => {
  test("goes to the retained store of nobody and to nobody", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await subscribe(client, [{ topic: "sluice/#", qos: 1 }]);
    client.send(publish({ topic: "sluice/x", messageId: 7, retain: true }));
    expect(await client.next("puback")).toMatchObject({ messageId: 7, reasonCode: 0x87 });
    await subscribe(client, [
      { topic: "sluice/x", qos: 1 },
      { topic: "end", qos: 1 },
    ]);
    await say(client, end());
    expect(await readToEnd(client)).toEqual([]);
  });

  test("may come with a Subscription Identifier from a client never [MQTT-3.3.4-6]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    client.send(publish({ qos: 0, properties: { subscriptionIdentifier: 1 } }));
    const { reasonCode } = await client.next("disconnect");
    expect([0x81, 0x82]).toContain(reasonCode);
    await client.closed;
    expect(harness.taken).toEqual([]);
  });
});
