// The journal against the databases that could stand in its place: what a record costs on the main thread, how long it
// takes until it is durable, and how fast it is read back. The stores take turns within a round (A B C A B C …), so that
// what else the machine does hits all; each turn is a process of its own with an empty folder.

import { fork } from "node:child_process";
import { once } from "node:events";
import { closeSync, fdatasyncSync, openSync, writeSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { createHistogram } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { StoreName } from "./journal-stores.ts";
import { toPercentiles, type Percentiles, type TurnMessage, type TurnResult, type TurnSetup } from "./journal-turn.ts";

export interface JournalOptions {
  readonly rounds: number;
  /** Of each paced turn. */
  readonly measureMs: number;
  /** Of each turn at full speed. */
  readonly records: number;
  readonly payloadBytes: number;
  /** Each turn gets a folder of its own below it; removed afterwards. */
  readonly dataDir: string;
}

/** paced: the same number of records each second. full: as fast as the store takes them. hung: paced, in trouble. */
export type Load = `paced ${number}` | "full" | `hung ${number}`;

export interface Turn extends TurnResult {
  readonly store: StoreName;
  readonly load: Load;
  readonly round: number;
}

/** What the bare disk takes for a write and fdatasync of as many bytes as the journal's commits had on average. */
export interface DiskTurn {
  readonly store: "disk";
  readonly load: Load;
  readonly round: number;
  readonly bytes: number;
  readonly latencyMs: Percentiles;
}

/** Records a second. */
const rates = [10_000, 50_000, 100_000];
const hungRate = 50_000;
/** Libuv's default. As many file operations hang. */
const poolThreads = 4;
const stores: readonly StoreName[] = ["nothing", "journal", "level", "lmdb"];
const diskTurnMs = 2000;
/** Between two writes to the bare disk, as between two commits. */
const diskPauseMs = 2;
/** A record without its payload: header, client id and topic. */
const recordBytes = 60;

/** Calls `onTurn` after each measurement. Throws when a store fails, and when aborted. */
export async function runJournal(
  options: JournalOptions,
  onTurn: (turn: Turn | DiskTurn) => void,
  signal: AbortSignal,
): Promise<readonly (Turn | DiskTurn)[]> {
  const turns: (Turn | DiskTurn)[] = [];
  const add = (turn: Turn | DiskTurn): void => {
    turns.push(turn);
    onTurn(turn);
  };
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const perSecond of rates) {
      const load: Load = `paced ${perSecond}`;
      for (const store of stores) {
        const result = await runTurn(options, { store, perSecond, hung: 0 }, signal);
        add({ store, load, round, ...result });
        if (store !== "journal") continue;
        const bytes = Math.round((result.records / result.commits) * (options.payloadBytes + recordBytes));
        add({ store: "disk", load, round, bytes, latencyMs: await measureDisk(options.dataDir, bytes) });
        if (perSecond !== hungRate) continue;
        const inTrouble = await runTurn(options, { store, perSecond, hung: poolThreads }, signal);
        add({ store, load: `hung ${perSecond}`, round, ...inTrouble });
      }
    }
    for (const store of stores) {
      add({ store, load: "full", round, ...(await runTurn(options, { store, hung: 0 }, signal)) });
    }
  }
  return turns;
}

async function runTurn(
  { dataDir, records, measureMs, payloadBytes }: JournalOptions,
  turn: Pick<TurnSetup, "store" | "perSecond" | "hung">,
  signal: AbortSignal,
): Promise<TurnResult> {
  const dir = await mkdtemp(join(dataDir, "bench-"));
  const setup: TurnSetup = { ...turn, dir, records, measureMs, payloadBytes };
  try {
    const env = { ...process.env, UV_THREADPOOL_SIZE: String(poolThreads) };
    const child = fork(fileURLToPath(new URL("journal-turn.ts", import.meta.url)), { env, signal });
    const exit = once(child, "exit");
    child.send(setup);
    const answer = await Promise.race([
      once(child, "message").then(([message]) => message as TurnMessage),
      exit.then((): TurnMessage => ({ kind: "failed", reason: "its process ended early" })),
    ]);
    await exit;
    if (answer.kind === "failed") throw new Error(`${turn.store}: ${answer.reason}`);
    return answer.result;
  } finally {
    // An aborted turn may still be writing.
    await rm(dir, { recursive: true, maxRetries: 5 });
  }
}

/** As the writer thread does it: appended to a growing file, synchronously. */
async function measureDisk(dataDir: string, bytes: number): Promise<Percentiles> {
  const dir = await mkdtemp(join(dataDir, "bench-"));
  const fd = openSync(join(dir, "disk"), "wx");
  const took = createHistogram();
  const commit = Buffer.alloc(bytes, "{");
  for (const startedMs = performance.now(); performance.now() - startedMs < diskTurnMs;) {
    const beganMs = performance.now();
    writeSync(fd, commit);
    fdatasyncSync(fd);
    took.record(Math.max(1, Math.round((performance.now() - beganMs) * 1000)));
    await sleep(diskPauseMs);
  }
  closeSync(fd);
  await rm(dir, { recursive: true });
  return toPercentiles(took);
}
