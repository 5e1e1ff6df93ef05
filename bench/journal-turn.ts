// One measurement of one store, in a process of its own, so that neither its compiled code nor its heap is shaped by
// another store. Gets its setup from the parent, answers with the result and ends.

import { mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { createHistogram, type RecordableHistogram } from "node:perf_hooks";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import type { Message } from "../src/reading.ts";
import { hangFiles } from "../test/journal/hung-files.ts";
import { openStore, type Store, type StoreName } from "./journal-stores.ts";

export interface TurnSetup {
  readonly store: StoreName;
  /** Undefined: as fast as the store takes them, `records` of them, and then they are read back. */
  readonly perSecond?: number;
  readonly records: number;
  readonly measureMs: number;
  readonly payloadBytes: number;
  /** File operations that hang in libuv's pool meanwhile. */
  readonly hung: number;
  /** Empty; of this turn alone. */
  readonly dir: string;
}

export interface Percentiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface TurnResult {
  readonly records: number;
  readonly recordsPerSecond: number;
  /** CPU of the main thread for all that it did, the loop that makes the messages included. */
  readonly mainThreadNsPerRecord: number;
  readonly commits: number;
  /** From a record's append until the main thread knows that it is durable. */
  readonly latencyMs: Percentiles;
  /** The rest only at full speed. */
  readonly diskBytesPerRecord?: number;
  /** Median of the passes. */
  readonly readRecordsPerSecond?: number;
}

export type TurnMessage =
  | { readonly kind: "result"; readonly result: TurnResult }
  | { readonly kind: "failed"; readonly reason: string };

const devices = 1024;
const warmUpMs = 1000;
const readPasses = 5;

async function runTurn(setup: TurnSetup): Promise<TurnResult> {
  const latency = createHistogram();
  const waiting: { readonly to: number; readonly atMs: number }[] = [];
  let commits = 0;
  const dir = join(setup.dir, "store");
  await mkdir(dir);
  await using store = await openStore[setup.store](dir, (to) => {
    const nowMs = performance.now();
    commits += 1;
    for (let [first] = waiting; first !== undefined && first.to <= to; [first] = waiting) {
      // In µs: a histogram takes whole numbers.
      latency.record(Math.max(1, Math.round((nowMs - first.atMs) * 1000)));
      waiting.shift();
    }
  });
  await using _hung = setup.hung === 0 ? undefined : await hangFiles(setup.dir, setup.hung);
  const createMessage = createSource(setup.payloadBytes);
  const run = async (ms: number, records: number): Promise<void> => {
    const wait = (atMs: number): void => void waiting.push({ to: store.next, atMs });
    if (setup.perSecond === undefined) await flood(store, createMessage, records, wait);
    else await pace(store, createMessage, setup.perSecond, ms, wait);
    await store.flush();
  };
  await run(warmUpMs, setup.records / 10);
  latency.reset();
  commits = 0;
  const before = store.next;
  const startedMs = performance.now();
  const startedCpu = process.threadCpuUsage();
  await run(setup.measureMs, setup.records);
  const cpu = process.threadCpuUsage(startedCpu);
  const seconds = (performance.now() - startedMs) / 1000;
  const records = store.next - before;
  return {
    records,
    recordsPerSecond: Math.round(records / seconds),
    mainThreadNsPerRecord: Math.round(((cpu.user + cpu.system) * 1000) / records),
    commits,
    latencyMs: toPercentiles(latency),
    ...(setup.perSecond === undefined && setup.store !== "nothing" && (await readBack(store, dir))),
  };
}

/** Strings and payload as the connection gives them: the payload is a view of a larger buffer. */
function createSource(payloadBytes: number): (index: number) => Message {
  const socket = Buffer.alloc(
    devices * payloadBytes,
    `{"ts":1700000000000,"seq":4711,"metrics":{"temperature":21.37}}`,
  );
  const sources = Array.from({ length: devices }, (_, index) => {
    const deviceId = `sensor-${String(index).padStart(6, "0")}`;
    const payload = socket.subarray(index * payloadBytes, (index + 1) * payloadBytes);
    return { deviceId, topic: `devices/${deviceId}/telemetry`, payload };
  });
  return (index) => {
    const source = sources[index % devices];
    if (source === undefined) throw new RangeError(`no message ${index}`);
    const { deviceId, topic, payload } = source;
    return { topic, payload, clientId: deviceId, deviceId, receivedAt: Date.now(), qos: 1, packetId: 0 };
  };
}

async function pace(
  store: Store,
  createMessage: (index: number) => Message,
  perSecond: number,
  ms: number,
  wait: (atMs: number) => void,
): Promise<void> {
  const startedMs = performance.now();
  let sent = 0;
  for (let nowMs = startedMs; nowMs - startedMs < ms; nowMs = performance.now()) {
    const due = Math.floor(((nowMs - startedMs) / 1000) * perSecond);
    if (due > sent) {
      for (; sent < due; sent += 1) store.append(createMessage(sent));
      wait(nowMs);
    }
    await sleep(1);
  }
}

async function flood(
  store: Store,
  createMessage: (index: number) => Message,
  records: number,
  wait: (atMs: number) => void,
): Promise<void> {
  for (let sent = 0; sent < records;) {
    const nowMs = performance.now();
    for (let left = 1000; left > 0; left -= 1) store.append(createMessage((sent += 1)));
    wait(nowMs);
    do await turn();
    while (store.congested);
  }
}

async function readBack(
  store: Store,
  dir: string,
): Promise<Pick<TurnResult, "diskBytesPerRecord" | "readRecordsPerSecond">> {
  const rates: number[] = [];
  for (let pass = 0; pass < readPasses; pass += 1) {
    const startedMs = performance.now();
    let records = 0;
    let bytes = 0;
    for await (const part of store.read()) {
      records += part.length;
      for (const { message } of part) bytes += message.payload.length + message.topic.length;
    }
    if (records !== store.next || bytes === 0) throw new Error(`${records} of ${store.next} records came back`);
    rates.push(records / ((performance.now() - startedMs) / 1000));
  }
  const names = await readdir(dir);
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(dir, name))).blocks * 512));
  return {
    diskBytesPerRecord: Math.round(sizes.reduce((sum, size) => sum + size, 0) / store.next),
    readRecordsPerSecond: Math.round(rates.toSorted((a, b) => a - b)[Math.floor(readPasses / 2)] ?? 0),
  };
}

export function toPercentiles(microseconds: RecordableHistogram): Percentiles {
  const ms = (percentile: number): number => microseconds.percentile(percentile) / 1000;
  return { p50: ms(50), p99: ms(99), max: ms(100) };
}

const answer = (message: TurnMessage): void => {
  process.send?.(message, () => process.exit(0));
};

process.once("message", (setup: TurnSetup) => {
  runTurn(setup).then(
    (result) => answer({ kind: "result", result }),
    (error: unknown) =>
      answer({ kind: "failed", reason: error instanceof Error ? String(error.stack) : String(error) }),
  );
});
// The benchmark is gone: so is the reason to load anything.
process.on("disconnect", () => process.exit(1));
