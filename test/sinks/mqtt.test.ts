import { basename } from "node:path";
import type { IPublishPacket } from "mqtt";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { Entry, MessageProperties } from "../../src/reading.ts";
import { mqtt } from "../../src/sinks/mqtt.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { describeServer } from "../contract/faults.ts";
import { describeSink, makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import { startMosquitto } from "../servers/mosquitto.ts";
import { openCollector, type Collector } from "../servers/mqtt-collector.ts";
import { isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";

const never = new AbortController().signal;
let server: Server;
let collector: Collector;
let context: SinkContext;

/** Topics of its own for each test. */
const prefixOf = ({ dataDir }: SinkContext): string => basename(dataDir);

const openSink = (of: SinkContext, settings: Record<string, unknown> = {}): Promise<Sink> => {
  const topic = `${prefixOf(of)}/{topic}`;
  const { sink, given } = mqtt({ url: `mqtt://127.0.0.1:${server.port}`, topic, ...settings });
  return sink.open(sink.settings.parse(given), of);
};

async function read(of: SinkContext): Promise<readonly IPublishPacket[]> {
  const prefix = `${prefixOf(of)}/`;
  return (await collector.collect()).filter(({ topic }) => topic.startsWith(prefix));
}

async function rows(of: SinkContext): Promise<readonly WrittenRow[]> {
  const found = (await read(of)).map(({ payload }) => JSON.parse(payload.toString()) as WrittenRow);
  return found
    .map(({ gateway, offset, device, time, data }) => ({ gateway, offset, device, time, data }))
    .toSorted((a, b) => a.gateway.localeCompare(b.gateway));
}

const withReading = (offset: number, changes: Partial<Entry["reading"]>): Entry => {
  const entry = makeEntry(offset);
  return { ...entry, reading: { ...entry.reading, ...changes } };
};

const write = (sink: Sink, ...entries: readonly Entry[]): ReturnType<Sink["write"]> =>
  sink.write({ gateway: "gateway-1", entries, next: toOffset(1_000) }, never);

describe.skipIf(!isInstalled("mosquitto"))("with mosquitto", () => {
  beforeAll(async () => {
    server = await startMosquitto({
      lines: ["persistence true", "max_queued_messages 0", "message_size_limit 4000000"],
    });
    collector = await openCollector(server.port);
  });
  afterAll(async () => {
    await collector[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    context = await openContext();
  });

  describeSink("mqtt", {
    open: (of) => openSink(of, { payload: "document" }),
    rows,
    once: "at least",
    server: () => server,
    openAt: (of, { port }) => openSink(of, { payload: "document", url: `mqtt://127.0.0.1:${port}` }),
    survives: "SIGTERM",
  });

  describe("mqtt with protocol version 4 is a sink", () => {
    describeServer({
      open: (of) => openSink(of, { payload: "document", protocolVersion: 4 }),
      rows,
      once: "at least",
      server: () => server,
      survives: "SIGTERM",
    });
  });

  describe.for([4, 5] as const)("the mqtt sink with protocol version %d", (protocolVersion) => {
    test("publishes the data as JSON on the topic that it came with", async () => {
      await using sink = await openSink(context, { protocolVersion });
      expect(await write(sink, makeEntry(7))).toEqual({ kind: "all" });
      const [packet] = await read(context);
      expect(packet).toMatchObject({
        topic: `${prefixOf(context)}/devices/device-1/telemetry`,
        qos: 1,
        retain: false,
      });
      expect(packet?.payload.toString()).toBe(`{"ts":1007,"text":"ünï ' \\" 7"}`);
    });

    test("publishes 3,000 readings in order", async () => {
      await using sink = await openSink(context, { protocolVersion, payload: "document" });
      const offsets = Array.from({ length: 3_000 }, (_, offset) => offset);
      expect(await sink.write(makeBatch(offsets), never)).toEqual({ kind: "all" });
      const found = (await read(context)).map(({ payload }) => JSON.parse(payload.toString()) as WrittenRow);
      expect(found.map(({ offset }) => offset)).toEqual(offsets);
    });

    test.for([0, 2] as const)("publishes with QoS %d", async (qos) => {
      {
        await using sink = await openSink(context, { protocolVersion, qos });
        await sink.write(makeBatch(Array.from({ length: 200 }, (_, offset) => offset)), never);
      }
      while ((await read(context)).length < 200);
      expect(new Set((await read(context)).map((packet) => packet.qos))).toEqual(new Set([qos]));
    });
  });

  describe("the mqtt sink", () => {
    test("says with MQTT 5 which reading a message is, beside the properties that its own message had", async () => {
      const user: NonNullable<MessageProperties["user"]> = [
        ["site", "a"],
        ["gateway", "gateway-0"],
        ["offset", "3"],
        ["__proto__", "b"],
        ["site", "c"],
      ];
      await using sink = await openSink(context);
      await write(sink, withReading(7, { properties: { user } }));
      const [packet] = await read(context);
      expect(packet?.properties).toMatchObject({ contentType: "application/json", payloadFormatIndicator: true });
      expect(Object.entries(packet?.properties?.userProperties ?? {})).toEqual([
        ["site", ["a", "c"]],
        ["gateway", ["gateway-0", "gateway-1"]],
        ["offset", ["3", "7"]],
        ["__proto__", "b"],
      ]);
    });

    test("parks what has come from its own gateway, and publishes nothing of it", async () => {
      await using sink = await openSink(context);
      const own = withReading(1, { properties: { user: [["gateway", "gateway-1"]] } });
      expect(await write(sink, makeEntry(0), own)).toEqual({
        kind: "except",
        refused: [{ offset: 1, reason: expect.stringContaining("circle") as string }],
      });
      expect(await read(context)).toEqual([]);
    });

    test("publishes retained messages when it is told to", async () => {
      await using sink = await openSink(context, { retain: true });
      await write(sink, makeEntry(0), makeEntry(3));
      await using late = await openCollector(server.port);
      const kept = (await late.collect()).filter(({ topic }) => topic.startsWith(prefixOf(context)));
      expect(kept.map(({ payload }) => payload.toString())).toEqual([expect.stringContaining(`1003`)]);
    });

    test("fills the template, and keeps a device id within its level", async () => {
      await using sink = await openSink(context, { topic: `${prefixOf(context)}/{device}/{stream}/{device}` });
      const ids = ["a/b", "+", "#", "%", "$SYS", "{topic}", "ünï \u{1f600}", "\u0001\u{ffff}"];
      await write(sink, ...ids.map((deviceId, offset) => withReading(offset, { deviceId })));
      const levels = ["a%2Fb", "%2B", "%23", "%25", "%24SYS", "{topic}", "ünï \u{1f600}", "%01%EF%BF%BF"];
      expect((await read(context)).map(({ topic }) => topic)).toEqual(
        levels.map((level) => `${prefixOf(context)}/${level}/climate/${level}`),
      );
    });

    test("parks a reading whose topic would be too long, and publishes the longest", async () => {
      await using sink = await openSink(context, { topic: `${prefixOf(context)}/{device}` });
      const room = 65_535 - prefixOf(context).length - 1;
      const entries = ["x".repeat(room), "ü".repeat(room / 2 + 1)].map((deviceId, offset) =>
        withReading(offset, { deviceId }),
      );
      expect(await write(sink, ...entries)).toMatchObject({ kind: "except", refused: [{ offset: 1 }] });
      expect(await write(sink, ...entries.slice(0, 1))).toEqual({ kind: "all" });
    });

    test.for(["data", "document"])(
      "parks data that is not JSON, and publishes nothing of its batch: %s",
      async (payload) => {
        await using sink = await openSink(context, { payload });
        expect(await write(sink, makeEntry(0), makeEntry(1, { big: 1n }))).toEqual({
          kind: "except",
          refused: [{ offset: 1, reason: expect.stringContaining("BigInt") as string }],
        });
        expect(await read(context)).toEqual([]);
      },
    );
  });
});
