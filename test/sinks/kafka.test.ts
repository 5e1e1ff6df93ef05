import { basename } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { Batch, Entry } from "../../src/reading.ts";
import { kafka } from "../../src/sinks/kafka.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { describeSink, makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import { startKafka, type KafkaRecord, type KafkaServer } from "../servers/kafka.ts";
import { isInstalled } from "../servers/server.ts";

const never = new AbortController().signal;
let server: KafkaServer;
let context: SinkContext;

/** Topics of its own for each test. */
const topicOf = ({ dataDir }: SinkContext): string => `${basename(dataDir)}.{stream}`;

const openSink = (of: SinkContext, settings: Record<string, unknown> = {}): Promise<Sink> => {
  const { sink, given } = kafka({ brokers: [`127.0.0.1:${server.port}`], topic: topicOf(of), ...settings });
  return sink.open(sink.settings.parse(given), of);
};

const read = (of: SinkContext): Promise<readonly KafkaRecord[]> =>
  server.read(topicOf(of).replace("{stream}", "climate"));

async function rows(of: SinkContext): Promise<readonly WrittenRow[]> {
  const found = (await read(of)).map(({ payload }) => JSON.parse(payload) as WrittenRow);
  const once = new Map(found.map((row) => [`${row.gateway}/${row.offset}`, row]));
  return [...once.values()]
    .map(({ gateway, offset, device, time, data }) => ({ gateway, offset, device, time, data }))
    .toSorted((a, b) => a.gateway.localeCompare(b.gateway) || a.offset - b.offset);
}

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

  describeSink("kafka", { open: openSink, rows });
});
