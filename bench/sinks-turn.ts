// One turn of the benchmark of sinks, in a process of its own: opens a sink, or the library used naively, and writes readings
// for a time. What is measured ends when everything is where it belongs and the sink is closed.

import { once } from "node:events";
import { standardBatch, type Sink } from "../src/sinks/sink.ts";
import { toOffset, type Entry } from "../src/reading.ts";
import { z } from "zod";
import { targets } from "./sinks-targets.ts";
import type { Place, Target } from "./sinks-target.ts";

export const ways = ["sink", "batches", "row by row"] as const;
export type Way = (typeof ways)[number];

export interface TurnSetup {
  readonly target: string;
  readonly way: Way;
  readonly place: Place;
  readonly measureMs: number;
}

export interface TurnResult {
  readonly readings: number;
  readonly seconds: number;
  /** User and system time of all threads of this process. */
  readonly cpuSeconds: number;
}

export type TurnMessage =
  | { readonly kind: "measured"; readonly result: TurnResult }
  | { readonly kind: "failed"; readonly reason: string };

/** What people begin with. */
const naiveRecords = 500;
const devices = 1_000;
const schema = z.looseObject({
  ts: z.number().int(),
  seq: z.number().int(),
  metrics: z.record(z.string(), z.number()),
});

interface Writer extends AsyncDisposable {
  /** Readings that it is given at a time. */
  readonly records: number;
  write(entries: readonly Entry[], moreFollows: boolean): Promise<void>;
}

async function openWriter(target: Target, { way, place }: TurnSetup): Promise<Writer> {
  if (way === "sink") return openSink(target, place);
  const naive = await target.naive(place);
  const { row = () => Promise.reject(new Error("it has no single rows")) } = naive;
  return {
    records: naiveRecords,
    async write(entries) {
      if (way === "batches" && entries.length > 0) await naive.batch(entries);
      else for (const entry of entries) await row(entry);
    },
    [Symbol.asyncDispose]: () => naive[Symbol.asyncDispose](),
  };
}

/** As dispatch/runner.ts drives it while it is behind. */
async function openSink(target: Target, { dir, ...place }: Place): Promise<Writer> {
  const { sink: type, given } = target.sink({ dir, ...place });
  const streams = [{ name: "climate", schema }];
  const context = { gateway: "bench", dataDir: dir, name: type.type, streams, warn: console.error };
  const sink: Sink = await type.open(type.settings.parse(given), context);
  await sink.position?.();
  let next = toOffset(0);
  return {
    records: { ...standardBatch, ...type.batch }.records,
    async write(entries, moreFollows) {
      next = toOffset(next + entries.length);
      const written = await sink.write({ gateway: "bench", entries, next, moreFollows }, new AbortController().signal);
      if (written.kind !== "all" && written.kind !== "held") throw new Error(`it answered ${JSON.stringify(written)}`);
    },
    [Symbol.asyncDispose]: () => sink[Symbol.asyncDispose](),
  };
}

/** With 150 bytes of JSON each; time goes on with each round of the devices. */
export function makeEntries(from: number, count: number): readonly Entry[] {
  return Array.from({ length: count }, (_, index) => {
    const seq = from + index;
    const deviceId = `sensor-${String(seq % devices).padStart(6, "0")}`;
    const time = 1_700_000_000_000 + seq;
    const metrics = { temperature: 21.5, humidity: 40.25, battery: 3.71, pressure: 1013.25, signal: -71, uptime: seq };
    const data = { ts: time, seq, metrics };
    const topic = `devices/${deviceId}/telemetry`;
    const reading = {
      stream: "climate",
      deviceId,
      topic,
      time,
      receivedAt: 1_795_000_000_000,
      data,
      properties: undefined,
    };
    return { offset: toOffset(seq), reading };
  });
}

async function measure(setup: TurnSetup): Promise<TurnResult> {
  const target = targets.find(({ name }) => name === setup.target);
  if (target === undefined) throw new Error(`no target ${setup.target}`);
  await using stack = new AsyncDisposableStack();
  const writer = stack.use(await openWriter(target, setup));
  let readings = 0;
  const write = async (): Promise<void> => {
    await writer.write(makeEntries(readings, writer.records), true);
    readings += writer.records;
  };
  // Compiles everything, and fills caches.
  for (const untilMs = performance.now() + setup.measureMs / 4; performance.now() < untilMs;) await write();
  await writer.write([], false);
  const warm = readings;
  const [startedMs, before] = [performance.now(), process.cpuUsage()];
  for (const untilMs = startedMs + setup.measureMs; performance.now() < untilMs;) await write();
  await writer.write([], false);
  await stack.disposeAsync();
  const { user, system } = process.cpuUsage(before);
  return {
    readings: readings - warm,
    seconds: (performance.now() - startedMs) / 1000,
    cpuSeconds: (user + system) / 1e6,
  };
}

async function answer(setup: TurnSetup): Promise<TurnMessage> {
  try {
    return { kind: "measured", result: await measure(setup) };
  } catch (cause) {
    return { kind: "failed", reason: String(cause instanceof Error ? cause.stack : cause) };
  }
}

/** Imported for its readings, it is no turn. */
if (process.argv[1] === import.meta.filename) {
  const [setup] = (await once(process, "message")) as [TurnSetup];
  process.send?.(await answer(setup), () => process.exit());
}
