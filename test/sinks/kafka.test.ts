import { randomBytes } from "node:crypto";
import { basename } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { Entry } from "../../src/reading.ts";
import { kafka } from "../../src/sinks/kafka.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { describeSink, makeEntry, openContext } from "../contract/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import { apis } from "../servers/kafka-forwarder.ts";
import { startKafka, type KafkaRecord, type KafkaServer } from "../servers/kafka.ts";
import { isInstalled } from "../servers/server.ts";

const never = new AbortController().signal;
let server: KafkaServer;
let context: SinkContext;

/** Topics of its own for each test. */
const topicOf = ({ dataDir }: SinkContext): string => `${basename(dataDir)}.{stream}`;

const openSink = (of: SinkContext, settings: Record<string, unknown> = {}, port = server.port): Promise<Sink> => {
  server.forwarder.advertised = port;
  const { sink, given } = kafka({ brokers: [`127.0.0.1:${port}`], topic: topicOf(of), ...settings });
  return sink.open(sink.settings.parse(given), of);
};

const read = (of: SinkContext): Promise<readonly KafkaRecord[]> =>
  server.read(topicOf(of).replace("{stream}", "climate"));

/** Of all partitions, in the order of the offsets; that of a device is looked at below. */
async function rows(of: SinkContext): Promise<readonly WrittenRow[]> {
  const found = (await read(of)).map(({ payload }) => JSON.parse(payload) as WrittenRow);
  return found
    .map(({ gateway, offset, device, time, data }) => ({ gateway, offset, device, time, data }))
    .toSorted((a, b) => a.gateway.localeCompare(b.gateway) || a.offset - b.offset);
}

const withDevice = (entry: Entry, deviceId: string): Entry => ({ ...entry, reading: { ...entry.reading, deviceId } });

const offsetOf = ({ headers }: KafkaRecord): number => Number(headers[3]);

/** Of device-0 to device-7 among 4 partitions, by kcat with `-X topic.partitioner=murmur2`, which is Java's default. */
const partitionsByMurmur2 = [2, 2, 2, 0, 2, 0, 3, 3];

const write = (sink: Sink, ...entries: readonly Entry[]): ReturnType<Sink["write"]> =>
  sink.write({ gateway: "gateway-1", entries, next: toOffset(1_000_000) }, never);

describe.skipIf(!isInstalled("kcat"))("with kcat's mock of Kafka", () => {
  beforeAll(async () => {
    server = await startKafka();
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    context = await openContext();
  });

  // What the mock keeps is little, and it loses all of it when it ends.
  const small = { compression: "zstd" };
  describeSink("kafka", {
    open: (of) => openSink(of, small),
    rows,
    once: "at least",
    server: () => server,
    openAt: (of, { port }) => openSink(of, small, port),
    survives: "SIGSTOP",
  });

  describe("the kafka sink", () => {
    test("produces the record that its file describes", async () => {
      await using sink = await openSink(context);
      expect(await write(sink, makeEntry(7))).toEqual({ kind: "all" });
      const payload =
        `{"gateway":"gateway-1","offset":7,"stream":"climate","device":"device-1","topic":"devices/device-1/telemetry",` +
        `"time":1007,"receivedAt":2007,"data":{"ts":1007,"text":"ünï ' \\" 7"}}`;
      const topic = topicOf(context).replace("{stream}", "climate");
      const headers = ["gateway", "gateway-1", "offset", "7"];
      expect(await read(context)).toMatchObject([{ topic, key: "device-1", headers, ts: 1007, payload }]);
    });

    test("waits for all replicas in step", async () => {
      server.forwarder.acks.clear();
      for (const idempotent of [false, true]) {
        await using sink = await openSink(context, { idempotent });
        await write(sink, makeEntry(0));
      }
      expect([...server.forwarder.acks]).toEqual([-1]);
    });

    test("gives records the time of receipt when it is told to", async () => {
      await using sink = await openSink(context, { timestamp: "receivedAt" });
      await write(sink, makeEntry(7), makeEntry(4));
      expect((await read(context)).map(({ ts }) => ts)).toEqual([2007, 2004]);
    });

    test("keeps the order of each device, in the partition that other clients choose", async () => {
      await using sink = await openSink(context);
      const entries = Array.from({ length: 1_000 }, (_, offset) =>
        withDevice(makeEntry(offset), `device-${offset % 20}`),
      );
      await write(sink, ...entries.slice(0, 700));
      await write(sink, ...entries.slice(700));
      const devices = Map.groupBy(await read(context), ({ key }) => key);
      expect(devices.size).toBe(20);
      for (const [device, records] of devices) {
        const first = Number(device.slice("device-".length));
        expect(records.map(offsetOf)).toEqual(Array.from({ length: 50 }, (_, index) => first + 20 * index));
        expect(new Set(records.map(({ partition }) => partition)).size).toBe(1);
      }
      const partitionOf = (device: string): number | undefined => devices.get(device)?.[0]?.partition;
      const first8 = partitionsByMurmur2.map((_, device) => partitionOf(`device-${device}`));
      expect(first8).toEqual(partitionsByMurmur2);
    });

    test.for(["none", "gzip", "snappy", "lz4", "zstd"])("compresses with %s", async (compression) => {
      await using sink = await openSink(context, { compression });
      const entries = [
        makeEntry(0),
        makeEntry(1, "x".repeat(100_000)),
        makeEntry(2, randomBytes(1_000).toString("hex")),
      ];
      await write(sink, ...entries);
      expect((await rows(context)).map(({ data }) => data)).toEqual(entries.map(({ reading }) => reading.data));
    });

    test("produces to a topic for each stream", async () => {
      await using sink = await openSink(context);
      const entry = makeEntry(1);
      await write(sink, makeEntry(0), { ...entry, reading: { ...entry.reading, stream: "power" } }, makeEntry(2));
      expect((await rows(context)).map(({ offset }) => offset)).toEqual([0, 2]);
      const power = await server.read(topicOf(context).replace("{stream}", "power"));
      expect(power.map(offsetOf)).toEqual([1]);
    });

    test("keeps text as it is, whatever it looks like", async () => {
      await using sink = await openSink(context);
      const hostile = "a\0b\r\n\u{1f600}{stream}\t\u2028";
      const data = {
        text: hostile,
        lone: "\ud800",
        nan: Number.NaN,
        huge: Number.parseFloat("1e400"),
        big: 2 ** 53 + 2,
      };
      await write(sink, withDevice(makeEntry(0, data), hostile));
      const [found] = await read(context);
      expect(found?.key).toBe(hostile);
      expect(await rows(context)).toMatchObject([
        { device: hostile, data: { text: hostile, lone: "\ud800", nan: null, huge: null, big: 2 ** 53 + 2 } },
      ]);
    });

    test("writes 10,000 fields, empty data, and more than a request takes", async () => {
      const fields = Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`field-${index}`, index]));
      const long = "x".repeat(400_000);
      const data = [fields, {}, null, "x".repeat(3_000_000), long, long, long, long, long];
      await using sink = await openSink(context);
      const before = server.forwarder.requests.get(apis.produce) ?? 0;
      await write(sink, ...data.map((one, offset) => makeEntry(offset, one)));
      expect((await rows(context)).map((row) => row.data)).toEqual(data);
      // The first three; the large one; then two by two.
      expect((server.forwarder.requests.get(apis.produce) ?? 0) - before).toBe(5);
    });

    test("refuses only the entries whose data is not JSON", async () => {
      await using sink = await openSink(context);
      expect(await write(sink, makeEntry(0), makeEntry(1, { big: 1n }), makeEntry(2))).toEqual({
        kind: "except",
        refused: [{ offset: 1, reason: expect.stringContaining("BigInt") as string }],
      });
      expect(await read(context)).toEqual([]);
    });

    test("asks for a producer id only when it is idempotent", async () => {
      for (const idempotent of [false, true]) {
        server.forwarder.requests.clear();
        await using sink = await openSink(context, { idempotent });
        await write(sink, makeEntry(0), makeEntry(1));
        await write(sink, makeEntry(2), makeEntry(3));
        expect(server.forwarder.requests.get(apis.initProducerId)).toBe(idempotent ? 1 : undefined);
      }
    });

    test("asks once for the partitions of its topics", async () => {
      await using sink = await openSink(context);
      const before = server.forwarder.requests.get(apis.metadata);
      for (const offset of [0, 1, 2]) await write(sink, makeEntry(offset));
      expect(server.forwarder.requests.get(apis.metadata)).toBe(before);
    });
  });
});

test.for([
  [{ brokers: ["kafka://127.0.0.1:9092"] }, "host:port"],
  [{ brokers: ["user:secret@127.0.0.1:9092"] }, "host:port"],
  [{ brokers: ["127.0.0.1"] }, "host:port"],
  [{ brokers: [] }, "brokers"],
  [{ topic: "a/{stream}" }, "letters, digits"],
  [{ topic: ".." }, "letters, digits"],
  [{ topic: "{device}" }, "{stream}"],
  [{ topic: `${"x".repeat(187)}{stream}` }, "249"],
  [{ compression: "brotli" }, "compression"],
  [{ sasl: { mechanism: "gssapi", username: "u", password: "secret" } }, "mechanism"],
])("the kafka sink does not take the settings %o", ([given, said]) => {
  const { error } = kafka().sink.settings.safeParse(given);
  expect(error?.message).toContain(said);
  expect(error?.message).not.toContain("secret");
});

test.for(["[::1]:9092", "localhost:9092", "kafka-1.example:9093"])("the kafka sink takes the broker %s", (broker) => {
  expect(kafka().sink.settings.safeParse({ brokers: [broker] }).error).toBeUndefined();
});
