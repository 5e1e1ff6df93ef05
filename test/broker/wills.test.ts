// Wills over real sockets: when they are published, when not, and what with.

import type { Packet } from "mqtt-packet";
import { describe, expect, vi } from "vitest";
import { type Harness, publish, type RawClient, test } from "./harness.ts";

type Connect = Partial<Extract<Packet, { cmd: "connect" }>>;
type WillProperties = NonNullable<NonNullable<Connect["will"]>["properties"]>;

async function open(harness: Harness, options: Connect): Promise<RawClient> {
  const client = await harness.open();
  await client.connect(options);
  return client;
}

async function watch(harness: Harness, topic = "wills/#"): Promise<RawClient> {
  const watcher = await open(harness, { clientId: "watcher", protocolVersion: 5 });
  watcher.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic, qos: 1 }] });
  await watcher.next("suback");
  return watcher;
}

async function handled(client: RawClient): Promise<void> {
  client.send({ cmd: "pingreq" });
  await client.next("pingresp");
}

const texts = (client: RawClient): readonly string[] =>
  client.packets.flatMap((packet) => (packet.cmd === "publish" ? [packet.payload.toString()] : []));

const withWill = (payload: string, properties?: WillProperties, sessionExpiryInterval = 0): Connect => ({
  clientId: "mortal",
  protocolVersion: 5,
  properties: { sessionExpiryInterval },
  will: { topic: "wills/a", payload: Buffer.from(payload), qos: 1, retain: false, ...(properties && { properties }) },
});

const old = (payload: string): Connect => ({
  clientId: "mortal",
  will: { topic: "wills/a", payload: Buffer.from(payload), qos: 1, retain: false },
});

const EOF_MARK = "the last";

/** Everything that was published before has been seen: returns the wills. */
async function seen(harness: Harness, watcher: RawClient): Promise<readonly string[]> {
  await harness.broker.publish({ topic: "wills/last", payload: EOF_MARK, qos: 1 });
  await vi.waitUntil(() => texts(watcher).includes(EOF_MARK));
  return texts(watcher).filter((text) => text !== EOF_MARK);
}

/** The clock of the sweep is put forward, for one sweep. */
async function later(seconds: number): Promise<void> {
  const now = performance.now.bind(performance);
  const put = vi.spyOn(performance, "now").mockImplementation(() => now() + seconds * 1_000);
  await new Promise((resolve) => setTimeout(resolve, 600));
  put.mockRestore();
}

describe("a will is published", () => {
  test.for([
    ["3.1.1", old("will")],
    ["5", withWill("will")],
  ] as const)("when the network connection ends without DISCONNECT, in %s", async ([, options], { openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    const client = await open(harness, options);
    client.socket.destroy();
    await harness.nextEnd();
    expect(await seen(harness, watcher)).toEqual(["will"]);
  });

  test("after a protocol error", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    const client = await open(harness, old("will"));
    client.send(Buffer.from([0xd0, 0]));
    await harness.nextEnd();
    expect(await seen(harness, watcher)).toEqual(["will"]);
  });

  test("after the keep-alive has passed", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    await handled(await open(harness, { ...old("will"), keepalive: 100 })); // it is being read, by the clock of now
    await later(151);
    expect(await harness.nextEnd()).toBe("keep-alive");
    expect(await seen(harness, watcher)).toEqual(["will"]);
  });

  test.for([0x04, 0x80, 0x97])("after DISCONNECT with %i [MQTT-3.14.4-3]", async (reasonCode, { openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    const client = await open(harness, withWill("will"));
    client.send({ cmd: "disconnect", reasonCode });
    await harness.nextEnd();
    expect(await seen(harness, watcher)).toEqual(["will"]);
  });

  test("when another connection takes over", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    await open(harness, old("first"));
    const second = await open(harness, old("second"));
    expect(await harness.nextEnd()).toBe("taken-over");
    expect(await seen(harness, watcher)).toEqual(["first"]);
    second.send({ cmd: "disconnect" });
    await harness.nextEnd();
    expect(texts(watcher)).not.toContain("second");
  });

  test("with the properties of a message, and without its delay", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    const properties = { willDelayInterval: 1, contentType: "text/plain", userProperties: { a: "b" } };
    const client = await open(harness, withWill("will", properties, 0));
    client.socket.destroy();
    const will = await watcher.next("publish");
    expect(will.properties).toEqual({ contentType: "text/plain", userProperties: { a: "b" } });
    expect(will).toMatchObject({ qos: 1, retain: false, topic: "wills/a" });
  });

  test("and kept when it is to be retained", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, {
      will: { topic: "wills/a", payload: Buffer.from("will"), qos: 0, retain: true },
    });
    client.socket.destroy();
    await harness.nextEnd();
    const watcher = await watch(harness);
    expect(await watcher.next("publish")).toMatchObject({ retain: true, topic: "wills/a" });
  });

  test("when the gateway stops, also one that is delayed", async ({ openHarness }) => {
    const harness = await openHarness();
    const topic = "devices/d1/telemetry";
    const will = { topic, payload: Buffer.from("one"), qos: 0, retain: false } as const;
    await open(harness, { clientId: "one", will });
    const delayed = await open(harness, {
      clientId: "two",
      protocolVersion: 5,
      properties: { sessionExpiryInterval: 100 },
      will: { ...will, payload: Buffer.from("two"), properties: { willDelayInterval: 50 } },
    });
    delayed.socket.destroy();
    await harness.nextEnd();
    await harness.broker[Symbol.asyncDispose]();
    expect(harness.taken.map(({ text }) => text)).toEqual(["one", "two"]);
  });
});

describe("a will is not published", () => {
  test.for([
    ["3.1.1", old("will")],
    ["5", withWill("will")],
  ] as const)("after DISCONNECT [MQTT-3.1.2-10], in %s", async ([, options], { openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    const client = await open(harness, options);
    // With the end of the stream behind it, and something unfinished before it.
    client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "a", qos: 0 }] }, { cmd: "disconnect" });
    client.socket.end();
    await harness.nextEnd();
    expect(await seen(harness, watcher)).toEqual([]);
  });

  test("while its client is connected, however long [aedes takes it for another broker's]", async ({ openHarness }) => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    const harness = await openHarness();
    const watcher = await watch(harness);
    const client = await open(harness, old("will"));
    vi.advanceTimersByTime(3_600_000);
    vi.useRealTimers();
    await handled(client);
    expect(await seen(harness, watcher)).toEqual([]);
  });

  test("when its client was refused", async ({ openHarness }) => {
    const harness = await openHarness({
      authenticate: ({ clientId }) =>
        Promise.resolve(
          clientId === "mortal" ? { kind: "refused", reason: "no" } : { kind: "known", deviceId: undefined },
        ),
    });
    const watcher = await watch(harness);
    const client = await open(harness, old("will"));
    await client.closed;
    await harness.nextEnd();
    expect(await seen(harness, watcher)).toEqual([]);
  });

  test("on a topic of the gateway", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness, "sluice/#");
    const client = await open(harness, {
      will: { topic: "sluice/x", payload: Buffer.from("w"), qos: 1, retain: false },
    });
    client.socket.destroy();
    await harness.nextEnd();
    await harness.broker.publish({ topic: "sluice/last", payload: EOF_MARK, qos: 1 });
    expect((await watcher.next("publish")).payload.toString()).toBe(EOF_MARK);
  });
});

/** A client that connects and is gone. */
async function leave(harness: Harness, options: Connect): Promise<void> {
  const client = await open(harness, options);
  client.socket.destroy();
  await harness.nextEnd();
}

describe("a delayed will", () => {
  test("is published after its delay, and not before", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    await leave(harness, withWill("will", { willDelayInterval: 50 }, 100));
    await later(40);
    expect(await seen(harness, watcher)).toEqual([]);
    await later(51);
    expect(await seen(harness, watcher)).toEqual(["will"]);
  });

  test("is published at the end of its session, if that is before", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    await leave(harness, withWill("at once", { willDelayInterval: 50 }, 0));
    expect(await seen(harness, watcher)).toEqual(["at once"]);
    await leave(harness, withWill("later", { willDelayInterval: 500 }, 30));
    await later(31);
    expect(await seen(harness, watcher)).toEqual(["at once", "later"]);
  });

  test("is not published when its client comes back [MQTT-3.1.3-9]", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    await leave(harness, withWill("will", { willDelayInterval: 50 }, 100));
    await open(harness, { clientId: "mortal", clean: false });
    await later(60);
    expect(await seen(harness, watcher)).toEqual([]);
  });

  test("is not published when its client takes over its own connection, but is with a clean start", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    await open(harness, withWill("first", { willDelayInterval: 50 }, 100));
    await open(harness, { ...withWill("second", { willDelayInterval: 50 }, 100), clean: false });
    await harness.nextEnd();
    expect(await seen(harness, watcher)).toEqual([]);
    await open(harness, { ...withWill("third", { willDelayInterval: 50 }, 100), clean: true });
    await harness.nextEnd();
    expect(await seen(harness, watcher)).toEqual(["second"]);
  });

  test("is published with a clean start of a client that was away: its session has ended", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await watch(harness);
    await leave(harness, withWill("will", { willDelayInterval: 50 }, 100));
    await open(harness, { clientId: "mortal", clean: true });
    expect(await seen(harness, watcher)).toEqual(["will"]);
  });
});

describe("a will on a stream's topic", () => {
  test("is judged like telemetry, with the identity of its client, and shown when it is valid", async ({
    openHarness,
  }) => {
    const harness = await openHarness({
      authenticate: () => Promise.resolve({ kind: "known", deviceId: "known" }),
    });
    const watcher = await watch(harness, "devices/#");
    for (const payload of ["bad", "good"]) {
      const will = { topic: "devices/d1/telemetry", payload: Buffer.from(payload), qos: 1, retain: false } as const;
      const client = await open(harness, { clientId: "d1", will });
      client.socket.destroy();
      await harness.nextEnd();
    }
    expect(harness.taken.map(({ text, identity, deviceId }) => [text, identity, deviceId])).toEqual([
      ["bad", "known", "d1"],
      ["good", "known", "d1"],
    ]);
    expect((await watcher.next("publish")).payload.toString()).toBe("good");
    watcher.send(publish({ topic: "other", messageId: 1 }));
    await watcher.next("puback");
    expect(texts(watcher)).toEqual(["good"]);
  });
});
