// Wills: MQTT 5 sections 3.1.2.5 to 3.1.2.7, 3.1.3.2 and 3.14.4.

import { describe, expect } from "vitest";
import type { Harness, RawClient } from "../broker/harness.ts";
import { bytes } from "../broker/wire.ts";
import {
  end,
  join,
  joinLasting,
  leave,
  type Of,
  readToEnd,
  say,
  subscribe,
  test,
  textOf,
  versions,
} from "./clients.ts";

type Will = NonNullable<Of<"connect">["will"]>;

const gone: Will = { topic: "wills", payload: Buffer.from("gone"), qos: 1, retain: false };

async function joinWatcher(harness: Harness): Promise<RawClient> {
  const watcher = await join(harness, { clientId: "watcher" });
  await subscribe(watcher, [{ topic: "wills", qos: 2, rap: true }]);
  return watcher;
}

/** What the watcher was sent so far: wills are published before a later message of another client. */
async function willsSeen(harness: Harness, watcher: RawClient): Promise<readonly string[]> {
  const sender = await join(harness, { clientId: "sender" });
  await say(sender, { ...end("wills"), qos: 1 });
  await leave(sender);
  return (await readToEnd(watcher)).map(textOf);
}

describe.concurrent.for(versions)("A will in version %s", (protocolVersion) => {
  test.for([0, 1, 2] as const)(
    "of QoS %s is published when the network connection ends without DISCONNECT [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-12] [MQTT-3.1.2-14]",
    async (qos, { openHarness }) => {
      const harness = await openHarness();
      const watcher = await joinWatcher(harness);
      await leave(await join(harness, { protocolVersion, will: { ...gone, qos } }));
      expect(await watcher.next("publish")).toMatchObject({ topic: "wills", qos, retain: false });
    },
  );

  test("that asks for it is retained [MQTT-3.1.2-15]", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    await leave(await join(harness, { protocolVersion, will: { ...gone, retain: true } }));
    await watcher.next("publish");
    const later = await join(harness, { clientId: "later", protocolVersion });
    await subscribe(later, [{ topic: "wills", qos: 1 }]);
    expect(await later.next("publish")).toMatchObject({ retain: true, payload: Buffer.from("gone") });
  });

  test("is dropped by DISCONNECT [MQTT-3.1.2-10] [MQTT-3.14.4-3]", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    const client = await join(harness, { protocolVersion, will: gone });
    client.send({ cmd: "disconnect" });
    await client.closed;
    expect(await willsSeen(harness, watcher)).toEqual([]);
  });

  test("that was not given is not published", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    await leave(await join(harness, { protocolVersion, clientId: "same", will: gone }));
    expect(textOf(await watcher.next("publish"))).toBe("gone");
    await leave(await join(harness, { protocolVersion, clientId: "same" }));
    expect(await willsSeen(harness, watcher)).toEqual([]);
  });

  test("is published after a protocol error of the client [MQTT-3.1.2-8]", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    const client = await join(harness, { protocolVersion, will: gone });
    client.send(bytes(0x36, 4, 0, 1, "a", 0));
    await client.closed;
    expect(textOf(await watcher.next("publish"))).toBe("gone");
  });

  test("is published when another connection takes the client identifier [MQTT-3.1.2-8]", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    await join(harness, { protocolVersion, clientId: "same", will: gone });
    await join(harness, { protocolVersion, clientId: "same" });
    expect(textOf(await watcher.next("publish"))).toBe("gone");
  });

  test("is published when the keep-alive runs out [MQTT-3.1.2-22]", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    await join(harness, { protocolVersion, keepalive: 1, will: gone });
    expect(textOf(await watcher.next("publish"))).toBe("gone");
    expect(await harness.nextEnd()).toBe("keep-alive");
  });
});

describe.concurrent("A will of MQTT 5", () => {
  test("is published after DISCONNECT with 0x04 [MQTT-3.1.2-8]", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    const client = await join(harness, { will: gone });
    client.send({ cmd: "disconnect", reasonCode: 4 });
    await client.closed;
    expect(textOf(await watcher.next("publish"))).toBe("gone");
  });

  test("comes with its properties, user properties in order, and without its delay [MQTT-3.1.3-10]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    const properties = {
      contentType: "text/plain",
      payloadFormatIndicator: true,
      responseTopic: "answers",
      correlationData: Buffer.from([1, 2]),
      userProperties: { b: ["1", "2"], a: "3" },
    };
    await leave(await join(harness, { will: { ...gone, properties } }));
    const message = await watcher.next("publish");
    expect(message.properties).toEqual({ ...properties, userProperties: { b: ["1", "2"], a: "3" } });
  });

  test("waits for its delay, and does not go out when the session is resumed before [MQTT-3.1.3-9]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    const will = { ...gone, properties: { willDelayInterval: 1 } };
    await leave(await joinLasting(harness, 5, { will }));
    expect(await willsSeen(harness, watcher)).toEqual([]);
    await joinLasting(harness, 5);
    const second = await joinLasting(harness, 5, { clientId: "second", will });
    await leave(second);
    // The second client's will comes after its delay, so the first one's is not coming any more.
    expect(textOf(await watcher.next("publish"))).toBe("gone");
    expect(await willsSeen(harness, watcher)).toEqual([]);
  });

  test("goes out when the session ends before its delay [MQTT-3.1.2-8]", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    const will = { ...gone, properties: { willDelayInterval: 1_000 } };
    await leave(await join(harness, { will, properties: { sessionExpiryInterval: 0 } }));
    expect(textOf(await watcher.next("publish"))).toBe("gone");
    await leave(await joinLasting(harness, 5, { will }));
    await joinLasting(harness, 5, { clean: true }); // ends the session
    expect(textOf(await watcher.next("publish"))).toBe("gone");
  });

  test("does not tell its delay to subscribers", async ({ openHarness }) => {
    const harness = await openHarness();
    const watcher = await joinWatcher(harness);
    const properties = { willDelayInterval: 1, contentType: "text/plain" };
    await leave(await joinLasting(harness, 5, { will: { ...gone, properties } }));
    const message = await watcher.next("publish");
    expect(message.properties).toEqual({ contentType: "text/plain" });
  });
});
