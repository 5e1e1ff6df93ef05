// What an MQTT 5 PUBLISH says beside its payload, and topic aliases.

import { describe, expect } from "vitest";
import type { MessageProperties } from "../../src/reading.ts";
import { type Harness, publish, type RawClient, test } from "./harness.ts";
import { bytes, counted, packet, properties, u16, u32 } from "./wire.ts";

type Publish = NonNullable<Parameters<typeof publish>[0]>;

async function open(harness: Harness, clientId = "c1"): Promise<RawClient> {
  const client = await harness.open();
  await client.connect({ protocolVersion: 5, clientId });
  return client;
}

async function handled(client: RawClient): Promise<void> {
  client.send({ cmd: "pingreq" });
  await client.next("pingresp");
}

const taken = ({ taken: messages }: Harness): readonly (MessageProperties | undefined)[] =>
  messages.map((message) => message.properties);

const topics = (harness: Harness): readonly string[] => harness.taken.map(({ topic }) => topic);

describe("properties of telemetry", () => {
  test("are given to the stream, all of them", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness);
    client.send(
      packet(
        0x30,
        counted("devices/d1/telemetry"),
        properties(
          bytes(0x26, counted("é"), counted("1")),
          bytes(0x01, 1),
          bytes(0x02, u32(3_000_000_000)),
          bytes(0x03, counted("application/json")),
          bytes(0x23, u16(3)),
          bytes(0x08, counted("answer/d1")),
          bytes(0x09, counted([0, 255])),
          bytes(0x26, counted("é"), counted("")),
        ),
        "good",
      ),
    );
    await handled(client);
    expect(harness.taken[0]).toMatchObject({ text: "good", topic: "devices/d1/telemetry" });
    expect(taken(harness)).toEqual([
      {
        payloadFormat: 1,
        expiryS: 3_000_000_000,
        contentType: "application/json",
        responseTopic: "answer/d1",
        correlationData: Uint8Array.of(0, 255),
        user: [
          ["é", "1"],
          ["é", ""],
        ],
      },
    ]);
  });

  test("are none when there are none, or only an alias, and in 3.1.1", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness);
    client.send(publish({ messageId: 1 }), publish({ messageId: 2, properties: { topicAlias: 1 } }));
    await handled(client);
    const old = await harness.open();
    await old.connect({ clientId: "old" });
    old.send(publish({ messageId: 1 }));
    await handled(old);
    expect(taken(harness)).toEqual([undefined, undefined, undefined]);
  });

  test("are the same object while a client sends the same bytes, and another one when it does not", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await open(harness);
    const send = (contentType: string, messageId: number): void =>
      client.send(publish({ messageId, properties: { contentType } }));
    send("a/b", 1);
    send("a/b", 2);
    send("a/c", 3);
    client.send(publish({ messageId: 4 }));
    send("a/c", 5);
    send("longer/than/before", 6);
    send("a/b", 7);
    await handled(client);
    const given = taken(harness);
    expect(given.map((value) => value?.contentType)).toEqual([
      "a/b",
      "a/b",
      "a/c",
      undefined,
      "a/c",
      "longer/than/before",
      "a/b",
    ]);
    expect(given[1]).toBe(given[0]);
    expect(given[4]).toBe(given[2]);
  });

  test("that are long are read each time", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness);
    const contentType = "x".repeat(1_000);
    for (const messageId of [1, 2]) client.send(publish({ messageId, properties: { contentType } }));
    client.send(publish({ messageId: 3, properties: { contentType: "short" } }));
    await handled(client);
    expect(taken(harness)).toEqual([{ contentType }, { contentType }, { contentType: "short" }]);
  });

  test("are checked again when they are others: a bad one after a good one of its length", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness);
    const send = (payloadFormat: number): void =>
      client.send(packet(0x30, counted("devices/d1/telemetry"), properties(bytes(0x01, payloadFormat)), "good"));
    send(1);
    send(1);
    send(2);
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x82 });
    expect(taken(harness)).toEqual([{ payloadFormat: 1 }, { payloadFormat: 1 }]);
  });

  test("of a will are given too", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    await client.connect({
      protocolVersion: 5,
      will: {
        topic: "devices/c1/telemetry",
        payload: Buffer.from("gone"),
        qos: 1,
        retain: false,
        properties: {
          payloadFormatIndicator: true,
          messageExpiryInterval: 60,
          contentType: "text/plain",
          responseTopic: "answer",
          correlationData: Buffer.from([7]),
          userProperties: { a: ["1", "2"], b: "3" },
        },
      },
    });
    client.socket.destroy();
    await harness.nextEnd();
    expect(taken(harness)).toEqual([
      {
        payloadFormat: 1,
        expiryS: 60,
        contentType: "text/plain",
        responseTopic: "answer",
        correlationData: Uint8Array.of(7),
        user: [
          ["a", "1"],
          ["a", "2"],
          ["b", "3"],
        ],
      },
    ]);
  });
});

const aliased = (topicAlias: number, topic: string, more: Partial<Publish> = {}): ReturnType<typeof publish> =>
  publish({ qos: 0, topic, ...more, properties: { topicAlias, ...more.properties } });

describe("a topic alias", () => {
  test("stands for its topic, until it is set anew", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness);
    client.send(
      aliased(1, "devices/a/telemetry"),
      aliased(16, "devices/b/telemetry"),
      aliased(1, ""),
      aliased(16, ""),
      aliased(1, "", { properties: { contentType: "x" } }),
      aliased(1, "devices/c/telemetry"),
      aliased(1, ""),
      publish({ qos: 0, topic: "devices/d/telemetry" }),
      aliased(16, ""),
    );
    await handled(client);
    expect(topics(harness)).toEqual(["a", "b", "a", "b", "a", "c", "c", "d", "b"].map((d) => `devices/${d}/telemetry`));
    expect(harness.taken.map(({ deviceId }) => deviceId).join("")).toBe("ababaccdb");
    expect(taken(harness)[4]).toEqual({ contentType: "x" });
  });

  test("holds on its connection only", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await open(harness, "first");
    first.send(aliased(1, "devices/a/telemetry"));
    await handled(first);
    const second = await open(harness, "second");
    second.send(aliased(1, ""));
    expect(await second.next("disconnect")).toMatchObject({ reasonCode: 0x82 });
    expect(topics(harness)).toHaveLength(1);
  });

  test.for([
    ["that is 0", 0, "devices/a/telemetry", 0x94],
    ["above what the gateway takes", 17, "devices/a/telemetry", 0x94],
    ["that was not set", 3, "", 0x82],
  ] as const)("%s ends the connection", async ([, topicAlias, topic, reasonCode], { openHarness }) => {
    const harness = await openHarness();
    const limited: string[] = [];
    harness.events.on("limited", (limit) => limited.push(limit));
    const client = await open(harness);
    client.send(packet(0x30, counted(topic), properties(bytes(0x23, u16(topicAlias))), "good"));
    expect(await client.next("disconnect")).toMatchObject({ reasonCode });
    await client.closed;
    expect(harness.taken).toEqual([]);
    expect(limited).toEqual(topicAlias === 17 ? ["topicAliases"] : []);
  });

  test("is offered in CONNACK, and with 0 it is not", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness);
    const connack = client.packets.find(({ cmd }) => cmd === "connack");
    expect(connack).toMatchObject({ properties: { topicAliasMaximum: 16 } });

    const without = await openHarness({ limits: { topicAliases: 0 } });
    const other = await open(without);
    expect(other.packets[0]).not.toHaveProperty("properties.topicAliasMaximum");
    other.send(aliased(1, "devices/a/telemetry"));
    expect(await other.next("disconnect")).toMatchObject({ reasonCode: 0x94 });
  });

  test("is not seen by subscribers, neither of telemetry nor of another topic [MQTT-3.3.2-7]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const subscriber = await open(harness, "subscriber");
    subscriber.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "#", qos: 2 }] });
    await subscriber.next("suback");
    const client = await open(harness, "publisher");
    const before: Partial<Publish> = { properties: { userProperties: { a: "1" }, contentType: "x" } };
    client.send(
      aliased(1, "devices/a/telemetry", before),
      aliased(1, "", before),
      aliased(2, "news", before),
      aliased(2, "", { ...before, qos: 1, messageId: 1, payload: "one" }),
      aliased(2, "", { qos: 2, messageId: 2, payload: "two" }),
    );
    await client.next("pubrec");
    client.send({ cmd: "pubrel", messageId: 2 });
    const got: unknown[] = [];
    for (let index = 0; index < 5; index += 1) {
      const { topic, payload, qos, properties: given } = await subscriber.next("publish");
      got.push([topic, payload.toString(), qos, given?.topicAlias, given?.contentType]);
    }
    // The order between QoS 1 and 2 is Aedes'.
    expect(got.toSorted((a, b) => String(a).localeCompare(String(b)))).toEqual([
      ["devices/a/telemetry", "good", 0, undefined, "x"],
      ["devices/a/telemetry", "good", 0, undefined, "x"],
      ["news", "good", 0, undefined, "x"],
      ["news", "one", 1, undefined, "x"],
      ["news", "two", 2, undefined, undefined],
    ]);
  });

  test("may carry a packet to its full size on a topic of no stream", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumPacketBytes: 1_024 } });
    const client = await open(harness);
    const topic = "n".repeat(500);
    client.send(aliased(1, topic));
    const head = bytes(u16(0), u16(1), properties(bytes(0x23, u16(1))));
    client.send(packet(0x32, head, "x".repeat(1_024 - 3 - head.length)));
    expect(await client.next("puback")).toMatchObject({ messageId: 1 });
  });

  test("may stand among any other properties", async ({ openHarness }) => {
    const harness = await openHarness();
    const subscriber = await open(harness, "subscriber");
    subscriber.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "#", qos: 0 }] });
    await subscriber.next("suback");
    const client = await open(harness, "publisher");
    const others = [
      bytes(0x01, 1),
      bytes(0x02, u32(60)),
      bytes(0x03, counted("text/plain")),
      bytes(0x08, counted("answer")),
      bytes(0x09, counted([0x23, 0x23])),
      bytes(0x26, counted("a"), counted("b")),
    ];
    for (let place = 0; place <= others.length; place += 1) {
      const all = [...others.slice(0, place), bytes(0x23, u16(1)), ...others.slice(place)];
      client.send(packet(0x30, counted("news"), properties(...all), String(place)));
      const { payload, properties: given } = await subscriber.next("publish");
      expect(payload.toString()).toBe(String(place));
      expect(given).toMatchObject({
        payloadFormatIndicator: true,
        contentType: "text/plain",
        responseTopic: "answer",
        correlationData: Buffer.from([0x23, 0x23]),
        userProperties: { a: "b" },
      });
      expect(given).not.toHaveProperty("topicAlias");
    }
  });
});
