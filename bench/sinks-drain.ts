// How fast the gateway brings a new sink up to date: a journal that is full already, a gateway that is started on it, and a
// sink that begins with the oldest record. Reading, decoding, validating, writing and the cursor are all in the sink's thread.

import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import { openJournal } from "../src/journal/journal.ts";
import { startGateway, type GatewayProcess } from "../test/gateway-process.ts";
import { readCpuSeconds, readThreadSeconds, toThreadSeconds } from "./process-stats.ts";
import { toPlace } from "./sinks-target.ts";
import { targets } from "./sinks-targets.ts";
import { makeEntries } from "./sinks-turn.ts";
import type { TurnResult } from "./sinks-turn.ts";

export interface DrainOptions {
  readonly target: string;
  readonly records: number;
  /** The journal and the sink's files are below it; removed afterwards. */
  readonly dataDir: string;
}

export interface DrainResult extends TurnResult {
  /** By the name of the thread; the sink's is that of the sink. */
  readonly threadSeconds: Readonly<Record<string, number>>;
}

const lookMs = 20;
const together = 20_000;

export async function measureDrain(options: DrainOptions, signal: AbortSignal): Promise<DrainResult> {
  const target = targets.find(({ name }) => name === options.target);
  if (target?.call === undefined) throw new Error(`no drain of ${options.target}`);
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(options.dataDir, "bench-"));
  stack.defer(() => rm(dir, { recursive: true, maxRetries: 5 }));
  const dataDir = join(dir, "data");
  await fill(join(dataDir, "journal"), options.records);
  const server = target.start === undefined ? undefined : stack.use(await target.start());
  const gateway = await startGateway({
    dataDir,
    config: toConfig(target.call(toPlace(dir, server))),
    env: { SLUICE_LOG_LEVEL: "info" },
  });
  stack.defer(async () => void (await gateway.end("SIGTERM")));
  return await untilDrained(gateway, options.records, signal);
}

async function fill(dir: string, records: number): Promise<void> {
  await using journal = await openJournal({ dir, streams: ["climate"], maxBytes: 16 * 2 ** 30 });
  for (let from = 0; from < records; from += together) {
    for (const { reading } of makeEntries(from, Math.min(together, records - from))) {
      const { deviceId, topic, receivedAt, data, stream } = reading;
      const payload = Buffer.from(JSON.stringify(data));
      journal.append({ topic, payload, clientId: deviceId, deviceId, receivedAt, qos: 1, packetId: 0 }, stream);
    }
    while (journal.congested) await turn();
  }
}

const toConfig = (sink: string): string => `
  import { defineGateway, defineStream, json, postgres, sqlite, z } from "sluice";
  const climate = defineStream({
    name: "climate", topic: "devices/{device}/telemetry", codec: json, time: (data) => data.ts,
    schema: z.looseObject({ ts: z.number().int(), seq: z.number().int(), metrics: z.record(z.string(), z.number()) }),
  });
  export default defineGateway({ streams: [climate], sinks: [${sink}] });`;

interface Mark {
  readonly position: number;
  readonly ms: number;
  readonly cpuSeconds: number;
  readonly threadSeconds: Readonly<Record<string, number>>;
}

/** From the first look that finds something written, so that no start-up is in it. */
async function untilDrained(gateway: GatewayProcess, records: number, signal: AbortSignal): Promise<DrainResult> {
  const look = async (): Promise<Mark> => {
    const { consumers } = JSON.parse((await gateway.fetch("/")).text) as {
      readonly consumers: readonly { readonly kind: string; readonly position: number }[];
    };
    const position = consumers.find(({ kind }) => kind === "sink")?.position ?? 0;
    const pids = [gateway.pid];
    return {
      position,
      ms: performance.now(),
      cpuSeconds: readCpuSeconds(pids),
      threadSeconds: readThreadSeconds(pids),
    };
  };
  let first = await look();
  let last = first;
  while (last.position < records) {
    signal.throwIfAborted();
    await sleep(lookMs);
    last = await look();
    if (first.position === 0) first = last;
  }
  if (first.position === records) throw new Error("all was written before the first look: give it more records");
  return {
    readings: records - first.position,
    seconds: (last.ms - first.ms) / 1000,
    cpuSeconds: last.cpuSeconds - first.cpuSeconds,
    threadSeconds: toThreadSeconds(first.threadSeconds, last.threadSeconds),
  };
}
