// SUBSCRIBE and UNSUBSCRIBE: MQTT 5 sections 3.8 to 3.11 and 4.8.

import { describe, expect } from "vitest";
import { publish } from "../broker/harness.ts";
import { counted, packet, properties, u16 } from "../broker/wire.ts";
import {
  acknowledge,
  end,
  join,
  joinLasting,
  leave,
  readToEnd,
  say,
  subscribe,
  test,
  textOf,
  versions,
} from "./clients.ts";

describe.for(versions)("SUBSCRIBE in version %s", (version) => {
  test("is answered by a SUBACK with its identifier and a code for each filter, in order [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2] [MQTT-2.2.1-6]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    client.send({
      cmd: "subscribe",
      messageId: 0x1234,
      subscriptions: [
        { topic: "c", qos: 2 },
        { topic: "a", qos: 0 },
        { topic: "b/+", qos: 1 },
        { topic: "#", qos: 2 },
      ],
    });
    expect(await client.next("suback")).toMatchObject({ messageId: 0x1234, granted: [2, 0, 1, 2] });
  });

  test("answers each of two equal filters, and the last one counts [MQTT-3.8.4-5] [MQTT-3.8.4-6]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    const { granted } = await subscribe(client, [
      { topic: "a", qos: 2 },
      { topic: "b", qos: 1 },
      { topic: "a", qos: 0 },
    ]);
    expect(granted).toEqual([2, 1, 0]);
    await say(client, { topic: "a", qos: 2 });
    expect(await client.next("publish")).toMatchObject({ topic: "a", qos: 0 });
  });

  test("with a filter that is there replaces it, and loses nothing [MQTT-3.8.4-3] [MQTT-3.8.4-4]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await say(client, { topic: "state", payload: "kept", retain: true });
    await subscribe(client, [{ topic: "state", qos: 0 }]);
    expect(await client.next("publish")).toMatchObject({ qos: 0, retain: true });
    await subscribe(client, [{ topic: "state", qos: 2 }]);
    const again = await client.next("publish");
    expect(again).toMatchObject({ qos: 1, retain: true });
    await acknowledge(client, again);
    await say(client, { topic: "state", payload: "live", qos: 2 });
    await say(client, { topic: "state", payload: "end", qos: 2 });
    expect((await readToEnd(client)).map((message) => [textOf(message), message.qos])).toEqual([["live", 2]]);
  });

  test.for(["a/b", "a/+", "#"])(
    "to %s lowers the QoS of a message to the granted one [MQTT-3.8.4-8]",
    async (filter, { openHarness }) => {
      const harness = await openHarness();
      const sender = await join(harness, { clientId: "sender" });
      for (const granted of [0, 1, 2] as const) {
        const client = await join(harness, { clientId: `c${granted}`, protocolVersion: version });
        await subscribe(client, [{ topic: filter, qos: granted }]);
        for (const qos of [0, 1, 2] as const) {
          await say(sender, { topic: "a/b", qos });
          const message = await client.next("publish");
          expect(message.qos).toBe(Math.min(qos, granted));
          await acknowledge(client, message);
        }
        await leave(client);
      }
    },
  );

  test.for(["a/b", "a/+"])(
    "to %s lowers the QoS of a retained message too [MQTT-3.8.4-8]",
    async (filter, { openHarness }) => {
      const harness = await openHarness();
      const sender = await join(harness, { clientId: "sender" });
      await say(sender, { topic: "a/b", qos: 2, retain: true });
      for (const granted of [0, 1, 2] as const) {
        const client = await join(harness, { clientId: `c${granted}`, protocolVersion: version });
        await subscribe(client, [{ topic: filter, qos: granted }]);
        expect((await client.next("publish")).qos).toBe(granted);
        await leave(client);
      }
    },
  );

  test("lowers the QoS of what waits for a session that is away [MQTT-3.8.4-8]", async ({ openHarness }) => {
    const harness = await openHarness();
    const away = await joinLasting(harness, version);
    await subscribe(away, [{ topic: "a/+", qos: 1 }]);
    await leave(away);
    const sender = await join(harness, { clientId: "sender" });
    await say(sender, { topic: "a/b", qos: 2 });
    const back = await joinLasting(harness, version);
    expect((await back.next("publish")).qos).toBe(1);
  });

  test("with other flags than 2 ends the connection [MQTT-3.8.1-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    client.send(packet(0x80, u16(1), ...(version === 5 ? [properties()] : []), counted("a"), 0));
    await client.closed;
    expect(await harness.nextEnd()).toBe("protocol");
  });
});

describe("Options of SUBSCRIBE", () => {
  test("No Local keeps a client's own messages from it and nobody else's [MQTT-3.8.3-3]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await subscribe(client, [
      { topic: "news", qos: 1, nl: true },
      { topic: "devices/+/telemetry", qos: 1, nl: true },
    ]);
    const other = await join(harness, { clientId: "other" });
    for (const topic of ["news", "devices/d1/telemetry"]) {
      await say(client, { topic, payload: "good, mine" });
      await say(other, { topic, payload: "good, theirs" });
      await say(other, end(topic));
      expect((await readToEnd(client)).map(textOf)).toEqual(["good, theirs"]);
    }
  });

  test("a Subscription Identifier comes with what the subscription delivers [MQTT-3.3.4-3]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await say(client, { topic: "news", payload: "kept", retain: true });
    await subscribe(client, [{ topic: "news", qos: 1 }], { subscriptionIdentifier: 268_435_455 });
    await subscribe(client, [{ topic: "devices/#", qos: 1 }], { subscriptionIdentifier: 1 });
    const retained = await client.next("publish");
    await acknowledge(client, retained);
    await say(client, { topic: "news", payload: "live" });
    const live = await client.next("publish");
    await acknowledge(client, live);
    await say(client, { payload: "good" });
    const telemetry = await client.next("publish");
    expect([retained, live, telemetry].map((message) => message.properties?.subscriptionIdentifier)).toEqual([
      268_435_455, 268_435_455, 1,
    ]);
  });

  test("a shared subscription is refused with 0x9E, and the filter beside it granted", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    const { granted } = await subscribe(client, [
      { topic: "$share/group/news", qos: 1 },
      { topic: "news", qos: 1 },
    ]);
    expect(granted).toEqual([0x9e, 1]);
    await say(client, { topic: "news" });
    await say(client, end("news"));
    expect(await readToEnd(client)).toHaveLength(1);
  });

  test("a malformed share name and No Local on a share end the connection [MQTT-3.8.3-4] [MQTT-4.8.2-1] [MQTT-4.8.2-2]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    for (const [filter, options, code] of [
      ["$share//news", 1, 0x8f],
      ["$share/gr+up/news", 1, 0x8f],
      ["$share/group", 1, 0x8f],
      ["$share/group/", 1, 0x8f],
      ["$share/group/news", 5, 0x82],
    ] as const) {
      const client = await join(harness);
      client.send(packet(0x82, u16(1), properties(), counted(filter), options));
      expect(await client.next("disconnect")).toMatchObject({ reasonCode: code });
      await client.closed;
    }
  });

  test("reserved bits, QoS 3 and Retain Handling 3 end the connection [MQTT-3.8.3-5]", async ({ openHarness }) => {
    const harness = await openHarness();
    for (const [options, code] of [
      [0x40, 0x81],
      [0x80, 0x81],
      [0x03, 0x81],
      [0x30, 0x82],
    ] as const) {
      const client = await join(harness);
      client.send(packet(0x82, u16(1), properties(), counted("a"), options));
      expect(await client.next("disconnect")).toMatchObject({ reasonCode: code });
      await client.closed;
    }
  });
});

describe.for(versions)("UNSUBSCRIBE in version %s", (version) => {
  test("is answered by one UNSUBACK with its identifier, also when nothing matches [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2] [MQTT-2.2.1-6]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await subscribe(client, [{ topic: "a", qos: 1 }]);
    client.send({ cmd: "unsubscribe", messageId: 0x4321, unsubscriptions: ["never", "a"] });
    const answer = await client.next("unsuback");
    expect(answer.messageId).toBe(0x4321);
    expect(version === 5 ? answer.granted : undefined).toEqual(version === 5 ? [0x11, 0] : undefined);
  });

  test("ends the subscription whose filter is the same character by character, and no other [MQTT-3.10.4-1] [MQTT-3.10.4-2]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    await subscribe(client, [
      { topic: "a/b", qos: 1 },
      { topic: "c/+", qos: 1 },
      { topic: "end", qos: 1 },
    ]);
    client.send({ cmd: "unsubscribe", messageId: 1, unsubscriptions: ["a/+", "A/b", "c/d", "#"] });
    await client.next("unsuback");
    await say(client, { topic: "a/b" });
    await say(client, { topic: "c/d" });
    await say(client, end());
    expect((await readToEnd(client)).map(({ topic }) => topic)).toEqual(["a/b", "c/d"]);
    client.send({ cmd: "unsubscribe", messageId: 1, unsubscriptions: ["a/b", "c/+"] });
    await client.next("unsuback");
    await say(client, { topic: "a/b" });
    await say(client, { topic: "c/d" });
    await say(client, end());
    expect(await readToEnd(client)).toEqual([]);
  });

  test("completes what was begun [MQTT-3.10.4-3]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await joinLasting(harness, version);
    await subscribe(client, [{ topic: "a", qos: 2 }]);
    await say(client, { topic: "a", qos: 2 });
    const message = await client.next("publish");
    client.send({ cmd: "unsubscribe", messageId: 1, unsubscriptions: ["a"] });
    await client.next("unsuback");
    client.send({ cmd: "pubrec", messageId: message.messageId ?? 0 });
    expect(await client.next("pubrel")).toMatchObject({ messageId: message.messageId });
  });

  test("with other flags than 2 ends the connection [MQTT-3.10.1-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    client.send(packet(0xa0, u16(1), ...(version === 5 ? [properties()] : []), counted("a")));
    await client.closed;
    expect(await harness.nextEnd()).toBe("protocol");
  });
});

describe("A subscription", () => {
  test("delivers only what it matches [MQTT-3.3.2-3]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    await subscribe(client, [
      { topic: "a/+", qos: 1 },
      { topic: "end", qos: 1 },
    ]);
    client.send(...["a", "a/b", "a/b/c", "b/a"].map((topic) => publish({ topic, qos: 0 })));
    await say(client, end());
    expect((await readToEnd(client)).map(({ topic }) => topic)).toEqual(["a/b"]);
  });
});
