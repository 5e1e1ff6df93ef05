// MQTT.js, the client of most gateways and dashboards in Node.

import { setTimeout as delay } from "node:timers/promises";
import type { IClientOptions, IPublishPacket, MqttClient } from "mqtt";
import { describe, expect } from "vitest";
import { climate } from "../../fixtures.ts";
import { test } from "./fixtures.ts";

const versions = [3, 4, 5] as const;
type Version = (typeof versions)[number];

const speaking = (protocolVersion: Version): IClientOptions => ({
  protocolVersion,
  ...(protocolVersion === 3 ? { protocolId: "MQIsdp" as const } : undefined),
});

const lasting = (version: Version, clientId: string): IClientOptions => ({
  ...speaking(version),
  clientId,
  clean: false,
  ...(version === 5 ? { properties: { sessionExpiryInterval: 60 } } : undefined),
});

/** Resolves with the first packet that the client is given by this event. */
const firstOf = (client: MqttClient, event: "connect" | "disconnect" | "packetreceive"): Promise<object> =>
  new Promise((resolve) => void client.once(event, (packet: object) => resolve(packet)));

/** Resolves with the packets of the first `count` messages. */
function receive(client: MqttClient, count: number): Promise<readonly IPublishPacket[]> {
  const packets: IPublishPacket[] = [];
  return new Promise((resolve) => {
    client.on("message", (_topic, _payload, packet) => {
      packets.push(packet);
      if (packets.length === count) resolve(packets);
    });
  });
}

const known = ({ topic, payload, qos, retain }: IPublishPacket): string =>
  `${qos} ${Number(retain)} ${topic} ${payload.toString()}`;

describe.for(versions)("MQTT.js with protocol level %s", (version) => {
  test("QoS 0, 1 and 2 arrive as they were published", async ({ gateway, connect }) => {
    const client = await connect(gateway, speaking(version));
    const topic = `js/qos/${version}`;
    await client.subscribeAsync(topic, { qos: 2 });
    const received = receive(client, 3);
    for (const qos of [0, 1, 2] as const) await client.publishAsync(topic, `hello ${qos}`, { qos });
    expect((await received).map(known)).toEqual([0, 1, 2].map((qos) => `${qos} 0 ${topic} hello ${qos}`));
  });

  test("telemetry is acknowledged and shown in order", async ({ gateway, connect }) => {
    const topic = `devices/js-${version}/telemetry`;
    const watcher = await connect(gateway, speaking(version));
    await watcher.subscribeAsync(topic, { qos: 1 });
    const received = receive(watcher, 100);
    const device = await connect(gateway, speaking(version));
    const messages = Array.from({ length: 100 }, (_, seq) => climate(seq));
    await Promise.all(messages.map((message) => device.publishAsync(topic, message, { qos: 1 })));
    expect((await received).map(({ payload }) => payload.toString())).toEqual(messages);
  });

  test("a retained message waits for a subscriber", async ({ gateway, connect }) => {
    const client = await connect(gateway, speaking(version));
    const topic = `js/retained/${version}`;
    await client.publishAsync(topic, "kept", { qos: 2, retain: true });
    const received = receive(client, 1);
    await client.subscribeAsync(topic, { qos: 2 });
    expect((await received).map(known)).toEqual([`2 1 ${topic} kept`]);
  });

  test("a will is published when the connection breaks", async ({ gateway, connect }) => {
    const topic = `js/will/${version}`;
    const watcher = await connect(gateway, speaking(version));
    await watcher.subscribeAsync(topic, { qos: 1 });
    const received = receive(watcher, 1);
    const will = { topic, payload: Buffer.from("gone"), qos: 1, retain: false } as const;
    const client = await connect(gateway, { ...speaking(version), will });
    client.stream.destroy();
    expect((await received).map(known)).toEqual([`1 0 ${topic} gone`]);
  });

  test("a session gets what came while it was away", async ({ gateway, connect }) => {
    const topic = `js/session/${version}`;
    const client = await connect(gateway, lasting(version, `js-lasting-${version}`));
    await client.subscribeAsync(topic, { qos: 2 });
    await client.endAsync();
    const sender = await connect(gateway, speaking(version));
    await sender.publishAsync(topic, "one", { qos: 1 });
    await sender.publishAsync(topic, "two", { qos: 2 });
    const received = receive(client, 2);
    client.reconnect();
    expect((await received).map(known)).toEqual([`1 0 ${topic} one`, `2 0 ${topic} two`]);
  });

  test("a second client of the same name takes the first one's place", async ({ gateway, connect }) => {
    const same = { ...speaking(version), clientId: `js-same-${version}` };
    const first = await connect(gateway, same);
    const closed = new Promise<void>((resolve) => void first.once("close", resolve));
    const second = await connect(gateway, same);
    await closed;
    await second.publishAsync("js/takeover", "x", { qos: 1 });
  });
});

describe("MQTT.js with MQTT 5", () => {
  test("a client that is taken over is told 0x8E", async ({ gateway, connect }) => {
    const same = { ...speaking(5), clientId: "js-told" };
    const first = await connect(gateway, same);
    const told = firstOf(first, "disconnect");
    await connect(gateway, same);
    expect(await told).toMatchObject({ reasonCode: 0x8e });
  });

  test("a session without subscriptions is present too", async ({ gateway, connect }) => {
    const first = await connect(gateway, lasting(5, "js-present"));
    await first.endAsync();
    const connack = firstOf(first, "connect");
    first.reconnect();
    expect(await connack).toMatchObject({ sessionPresent: true });
  });

  test("a rejected message is told with 0x99 and the failing path", async ({ gateway, connect }) => {
    const device = await connect(gateway, { ...speaking(5), clientId: "js-rejected" });
    const answer = firstOf(device, "packetreceive");
    const failed = device.publishAsync("devices/js/telemetry", '{"ts":1,"seq":1,"metrics":{"t":"hot"}}', { qos: 1 });
    await expect(failed).rejects.toThrow(/Payload format invalid/);
    expect(await answer).toMatchObject({
      cmd: "puback",
      reasonCode: 0x99,
      properties: { userProperties: { path: "metrics.t" } },
    });
  });

  test("topic aliases are taken as many as CONNACK says", async ({ gateway, connect }) => {
    const watcher = await connect(gateway, speaking(5));
    await watcher.subscribeAsync("devices/js-alias/#", { qos: 1 });
    const received = receive(watcher, 3);
    const device = await connect(gateway, { ...speaking(5), autoAssignTopicAlias: true });
    for (let seq = 0; seq < 3; seq += 1)
      await device.publishAsync("devices/js-alias/telemetry", climate(seq), { qos: 1, properties: {} });
    expect((await received).map(({ topic }) => topic)).toEqual(
      Array.from({ length: 3 }, () => "devices/js-alias/telemetry"),
    );
  });

  test("a message that has expired is not delivered", async ({ gateway, connect }) => {
    const sender = await connect(gateway, speaking(5));
    const kept = { qos: 1, retain: true, properties: { messageExpiryInterval: 1 } } as const;
    await sender.publishAsync("js/expiry", "kept", kept);
    await delay(2_100); // intervals are in whole seconds
    const received = receive(sender, 1);
    await sender.subscribeAsync("js/expiry", { qos: 1 });
    await sender.publishAsync("js/expiry", "live", { qos: 1 });
    expect((await received).map(known)).toEqual(["1 0 js/expiry live"]);
  });

  test("user properties arrive, in order where a name comes twice", async ({ gateway, connect }) => {
    const client = await connect(gateway, speaking(5));
    await client.subscribeAsync("js/properties", { qos: 1 });
    const received = receive(client, 1);
    const userProperties = { z: ["1", "2"], a: "3" };
    await client.publishAsync("js/properties", "x", { qos: 1, properties: { userProperties } });
    expect((await received)[0]?.properties?.userProperties).toEqual(userProperties);
  });

  test("a client that takes two messages at a time gets them all", async ({ gateway, connect }) => {
    const client = await connect(gateway, { ...speaking(5), properties: { receiveMaximum: 2 } });
    await client.subscribeAsync("js/flow", { qos: 2 });
    const received = receive(client, 50);
    const sender = await connect(gateway, speaking(5));
    await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        sender.publishAsync("js/flow", String(index), { qos: index % 2 === 0 ? 1 : 2 }),
      ),
    );
    expect(new Set((await received).map(({ payload }) => payload.toString())).size).toBe(50);
  });
});
