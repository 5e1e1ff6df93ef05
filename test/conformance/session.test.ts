// Session state: MQTT 5 sections 3.1.2.4, 3.1.2.11.2, 4.1, 4.4 and 4.5, and the same in 3.1.1.

import { setTimeout as delay } from "node:timers/promises";
import { describe, expect } from "vitest";
import type { RawClient } from "../broker/harness.ts";
import {
  acknowledge,
  connackOf,
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

const news = [{ topic: "news", qos: 2 }] as const;
const sessionPresent = (client: RawClient): boolean => connackOf(client).sessionPresent;

describe.for(versions)("A session in version %s", (version) => {
  test("is gone after a clean start, with what waited in it [MQTT-3.1.2-4] [MQTT-3.2.2-2] [MQTT-3.1.4-4]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const first = await joinLasting(harness, version);
    await subscribe(first, news);
    await leave(first);
    const sender = await join(harness, { clientId: "sender" });
    await say(sender, { topic: "news", payload: "for the old session" });
    const second = await joinLasting(harness, version, { clean: true });
    expect(sessionPresent(second)).toBe(false);
    await say(sender, { topic: "news", payload: "nobody subscribes" });
    await subscribe(second, [{ topic: "end", qos: 1 }]);
    await say(sender, end());
    expect(await readToEnd(second)).toEqual([]);
  });

  test("is resumed without a clean start: subscriptions, and what came meanwhile [MQTT-3.1.2-5] [MQTT-3.2.2-3] [MQTT-4.5.0-1]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const first = await joinLasting(harness, version);
    expect(sessionPresent(first)).toBe(false);
    await subscribe(first, news);
    await leave(first);
    const sender = await join(harness, { clientId: "sender" });
    await say(sender, { topic: "news", payload: "one", qos: 1 });
    await say(sender, { topic: "news", payload: "two", qos: 2 });
    const second = await joinLasting(harness, version);
    expect(sessionPresent(second)).toBe(true);
    await say(sender, { topic: "news", payload: "three", qos: 1 });
    await say(sender, end("news"));
    expect((await readToEnd(second)).map((message) => [textOf(message), message.qos])).toEqual([
      ["one", 1],
      ["two", 2],
      ["three", 1],
    ]);
  });

  test("that nobody knows is new [MQTT-3.1.2-6]", async ({ openHarness }) => {
    const harness = await openHarness();
    expect(sessionPresent(await joinLasting(harness, version))).toBe(false);
  });

  test("without subscriptions is a session too [MQTT-3.2.2-3]", async ({ openHarness }) => {
    const harness = await openHarness();
    await leave(await joinLasting(harness, version));
    expect(sessionPresent(await joinLasting(harness, version))).toBe(true);
  });

  test("goes on when another connection takes it over [MQTT-3.1.4-3] [MQTT-4.1.0-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await joinLasting(harness, version);
    await subscribe(first, news);
    const second = await joinLasting(harness, version);
    await first.closed;
    expect(sessionPresent(second)).toBe(true);
    await say(second, { topic: "news", payload: "still subscribed" });
    expect(textOf(await second.next("publish"))).toBe("still subscribed");
  });

  test("that does not last ends with its connection [MQTT-4.1.0-2]", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await join(harness, { clientId: "short", protocolVersion: version, clean: true });
    await subscribe(first, news);
    await leave(first);
    const second = await join(harness, { clientId: "short", protocolVersion: version, clean: false });
    expect(sessionPresent(second)).toBe(false);
  });

  test("keeps retained messages when it ends, they are not part of it", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await join(harness, { clientId: "short", protocolVersion: version, clean: true });
    await say(first, { topic: "state", payload: "on", retain: true });
    await leave(first);
    const second = await join(harness, { clientId: "other" });
    await subscribe(second, [{ topic: "state", qos: 1 }]);
    expect(await second.next("publish")).toMatchObject({ retain: true });
  });

  test("sends what was not acknowledged again, with DUP and its packet identifier [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-2.2.1-5]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const first = await joinLasting(harness, version);
    await subscribe(first, news);
    await say(first, { topic: "news", payload: "one", qos: 1 });
    await say(first, { topic: "news", payload: "two", qos: 2 });
    const sent = [await first.next("publish"), await first.next("publish")];
    expect(sent.map(({ dup }) => dup)).toEqual([false, false]);
    await leave(first);
    const second = await joinLasting(harness, version);
    const again = [await second.next("publish"), await second.next("publish")];
    const known = ({ messageId, payload, dup }: (typeof sent)[number]) => ({ messageId, text: String(payload), dup });
    expect(again.map(known)).toEqual(sent.map((message) => ({ ...known(message), dup: true })));
    for (const message of again) await acknowledge(second, message);
  });

  test("sends the PUBREL again whose PUBCOMP did not come, and not the PUBLISH [MQTT-4.4.0-1] [MQTT-4.3.3-5] [MQTT-4.3.3-6]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const first = await joinLasting(harness, version);
    await subscribe(first, news);
    await say(first, { topic: "news", payload: "two", qos: 2 });
    const { messageId = 0 } = await first.next("publish");
    first.send({ cmd: "pubrec", messageId });
    await first.next("pubrel");
    await leave(first);
    const second = await joinLasting(harness, version);
    expect(await second.next("pubrel")).toMatchObject({ messageId });
    second.send({ cmd: "pubcomp", messageId });
    await say(second, end("news"));
    expect(await readToEnd(second)).toEqual([]);
  });

  test("does not send again what was acknowledged [MQTT-4.4.0-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await joinLasting(harness, version);
    await subscribe(first, news);
    await say(first, { topic: "news", payload: "one", qos: 1 });
    await acknowledge(first, await first.next("publish"));
    first.send({ cmd: "pingreq" });
    await first.next("pingresp");
    await leave(first);
    const second = await joinLasting(harness, version);
    await say(second, end("news"));
    expect(await readToEnd(second)).toEqual([]);
  });
});

describe.concurrent("Session Expiry Interval", () => {
  test("of 0 or none ends the session with its connection [MQTT-4.1.0-2]", async ({ openHarness }) => {
    const harness = await openHarness();
    for (const properties of [{ sessionExpiryInterval: 0 }, {}]) {
      const first = await join(harness, { clientId: "short", clean: false, properties });
      await subscribe(first, news);
      await leave(first);
      const second = await join(harness, { clientId: "short", clean: false, properties });
      expect(sessionPresent(second)).toBe(false);
      await leave(second);
    }
  });

  test("ends the session when it has passed [MQTT-4.1.0-2]", async ({ openHarness }) => {
    const harness = await openHarness();
    const lasting = { clientId: "short", clean: false, properties: { sessionExpiryInterval: 1 } };
    const first = await join(harness, lasting);
    await subscribe(first, news);
    await leave(first);
    const soon = await join(harness, lasting);
    expect(sessionPresent(soon)).toBe(true);
    await leave(soon);
    await delay(2_500); // the interval is in whole seconds
    expect(sessionPresent(await join(harness, lasting))).toBe(false);
  });

  test("may be changed by DISCONNECT", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await joinLasting(harness, 5);
    await subscribe(first, news);
    first.send({ cmd: "disconnect", reasonCode: 0, properties: { sessionExpiryInterval: 0 } });
    await first.closed;
    expect(sessionPresent(await joinLasting(harness, 5))).toBe(false);
  });

  test("of 0xFFFFFFFF does not end", async ({ openHarness }) => {
    const harness = await openHarness();
    const lasting = { properties: { sessionExpiryInterval: 0xff_ff_ff_ff } };
    const first = await joinLasting(harness, 5, lasting);
    await subscribe(first, news);
    await leave(first);
    expect(sessionPresent(await joinLasting(harness, 5, lasting))).toBe(true);
  });

  test("a clean start with an interval begins a session that lasts [MQTT-3.1.2-4]", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await joinLasting(harness, 5, { clean: true });
    await subscribe(first, news);
    await leave(first);
    expect(sessionPresent(await joinLasting(harness, 5))).toBe(true);
  });
});

describe("A negative acknowledgement", () => {
  test("of 0x80 or more finishes a message too [MQTT-4.4.0-2]", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await joinLasting(harness, 5);
    await subscribe(first, news);
    await say(first, { topic: "news", qos: 1 });
    const one = await first.next("publish");
    first.send({ cmd: "puback", messageId: one.messageId ?? 0, reasonCode: 0x83 });
    await say(first, { topic: "news", qos: 2 });
    const two = await first.next("publish");
    first.send({ cmd: "pubrec", messageId: two.messageId ?? 0, reasonCode: 0x83 });
    first.send({ cmd: "pingreq" });
    await first.next("pingresp");
    expect(first.packets.map(({ cmd }) => cmd)).not.toContain("pubrel");
    await leave(first);
    const second = await joinLasting(harness, 5);
    await say(second, end("news"));
    expect(await readToEnd(second)).toEqual([]);
  });
});
