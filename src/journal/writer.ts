// The thread that owns the disk: it recovers, then commits what the main thread has closed, all of it in one write and
// one fdatasync at a time. It blocks on Atomics and never turns its event loop. Not the libuv pool: a few hung file
// system calls elsewhere would hold every commit. Entry of a worker; nothing imports its values.

import { mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { parentPort, receiveMessageOnPort, workerData, type MessagePort } from "node:worker_threads";
import { errors, SluiceError, toError, unreachable, type ErrorCode } from "../errors.ts";
import type { Offset } from "../reading.ts";
import { createDiskSpace, type DiskSpace } from "./disk-space.ts";
import { nodeDisk } from "./disk.ts";
import { openHead } from "./head.ts";
import { readStreams, remapStreams } from "./record.ts";
import { recover, type Recovered, type RecoveryReport } from "./recovery.ts";
import type { RetentionRules } from "./retention.ts";
import { RingDrain, type RingMemory } from "./ring.ts";
import type { LastCommit } from "./segment-scan.ts";
import { readEnd, toSegmentName } from "./segment.ts";
import { bestEffort } from "./segment-files.ts";
import { SegmentStore, type Range, type StoreFigures } from "./store.ts";
import { SegmentTable } from "./table.ts";

const firstBackoffMs = 100;
const longestBackoffMs = 30_000;
/** While the disk is low, or age alone may delete a segment, the writer looks at least so often. */
const sweepMs = 1_000;
const smallestTable = 4096;
const sqliteBusy = 5;
const sqliteCorrupt = 11;
const sqliteNotADatabase = 26;

export interface WriterSetup {
  readonly dir: string;
  readonly streams: readonly string[];
  readonly segmentBytes: number;
  readonly rules: RetentionRules;
  /** Free space that the journal leaves on its disk; undefined: a standard share. */
  readonly reserveBytes: number | undefined;
  readonly ring: RingMemory;
  /** Commands come here; a kick of the ring follows each. */
  readonly commands: MessagePort;
}

export type WriterCommand =
  | { readonly kind: "trim"; readonly below: Offset; readonly keepFrom: number }
  | { readonly kind: "stop" };

/** What the main thread shows and decides by. */
export interface WriterFigures extends StoreFigures {
  /** On the journal's disk; Infinity when it does not tell. */
  readonly freeBytes: number;
  /** Less is free than the journal is to leave. */
  readonly isDiskLow: boolean;
}

export type WriterMessage =
  /** The journal cannot be opened. The thread ends. */
  | { readonly kind: "refused"; readonly code: ErrorCode; readonly detail: string }
  /** The first message of an open journal. `failure`: the disk has refused the first segment; it is tried again. */
  | {
      readonly kind: "ready";
      readonly id: string;
      readonly table: SharedArrayBuffer;
      readonly next: Offset;
      readonly durable: Offset;
      readonly report: RecoveryReport;
      readonly figures: WriterFigures;
      readonly failure: string | undefined;
    }
  /** A commit is durable; `frames` slots of the ring are free. `refusal`: why the disk did not take it at first. */
  | {
      readonly kind: "durable";
      readonly refusal: string | undefined;
      readonly to: Offset;
      readonly frames: number;
      readonly commitMs: number;
      readonly figures: WriterFigures;
    }
  /** Segments were deleted, or there is more or less room on the disk. `expired`: records that somebody still needed. */
  | { readonly kind: "swept"; readonly figures: WriterFigures; readonly expired: Range | undefined }
  /** The disk refuses a commit. It is tried again until a `durable` follows. */
  | { readonly kind: "failed"; readonly detail: string };

/** Something that must become durable before anything else does. */
interface Job {
  /** Throws when the disk refuses. Returns why it did not take it at first; undefined: it did. */
  readonly run: () => string | undefined;
  /** What is durable afterwards. */
  readonly to: Offset;
  /** Slots that it frees. */
  readonly frames: number;
}

interface Service {
  readonly store: SegmentStore;
  readonly readSpace: () => DiskSpace;
  readonly drain: RingDrain;
  readonly commands: MessagePort;
  readonly post: (message: WriterMessage) => void;
}

function run(port: MessagePort, setup: WriterSetup): void {
  const post = (message: WriterMessage): void => port.postMessage(message);
  let lock: DatabaseSync | undefined;
  try {
    createDir(setup.dir);
    lock = openLock(setup.dir);
    const recovered = recover(setup.dir);
    const { store, table } = openStore(setup, recovered);
    const readSpace = createDiskSpace(setup.dir, nodeDisk, setup.reserveBytes);
    const first = toFirstJob(setup.dir, recovered, store);
    const { failure } = attempt(first);
    post({
      kind: "ready",
      id: recovered.id,
      table: table.buffer,
      next: recovered.next,
      durable: failure === undefined ? recovered.next : store.durable,
      report: recovered.report,
      figures: readFigures(store, readSpace()),
      failure,
    });
    const service: Service = { store, readSpace, drain: new RingDrain(setup.ring), commands: setup.commands, post };
    serve(service, failure === undefined ? undefined : first);
    store.close();
  } catch (error) {
    post({ kind: "refused", ...toRefusal(error, setup.dir) });
  } finally {
    lock?.close();
  }
}

/** Works until it is told to stop. `unfinished` is the first job when the disk has refused it. */
function serve(service: Service, unfinished: Job | undefined): void {
  const { store, readSpace, drain, commands, post } = service;
  const sweep = createSweep(service);
  let job = unfinished;
  let backoffMs = job === undefined ? 0 : firstBackoffMs;
  for (;;) {
    // Loaded before the work: what is asked for meanwhile ends the wait at once.
    const seen = drain.kicks;
    const orders = obey(commands, store);
    if (orders.stop) return;
    job ??= toJob(drain, store);
    if (job !== undefined) {
      const startedMs = performance.now();
      const { failure, refusal } = attempt(job);
      if (failure === undefined) {
        const commitMs = performance.now() - startedMs;
        const { to, frames } = job;
        post({ kind: "durable", to, frames, commitMs, figures: readFigures(store, readSpace()), refusal });
        job = undefined;
        backoffMs = 0;
        store.prepare();
      } else {
        if (backoffMs === 0) post({ kind: "failed", detail: failure });
        backoffMs = Math.min(Math.max(firstBackoffMs, backoffMs * 2), longestBackoffMs);
      }
    }
    const sweepInMs = sweep(orders.trim);
    drain.wait(seen, job === undefined ? sweepInMs : Math.min(backoffMs, sweepInMs));
  }
}

/**
 * Deletes what may go or must, and tells when that changes something, or when `isAsked`. Returns a function that says
 * after how many ms it is to be called again.
 */
function createSweep({ store, readSpace, post }: Service): (isAsked: boolean) => number {
  let wasLow = false;
  return (isAsked) => {
    const nowMs = Date.now();
    const space = readSpace();
    const { deleted, expired } = store.sweep(nowMs, space.lackingBytes);
    if (deleted > 0 || isAsked || space.isLow || wasLow) {
      post({ kind: "swept", figures: readFigures(store, space), expired });
    }
    wasLow = space.isLow;
    if (deleted > 0) return 0; // a job that the disk has refused may find room now
    const dueMs = store.nextSweepMs ?? Infinity;
    return space.isLow ? sweepMs : Math.max(sweepMs, dueMs - nowMs);
  };
}

const readFigures = (store: SegmentStore, { freeBytes, isLow }: DiskSpace): WriterFigures => ({
  ...store.figures,
  freeBytes,
  isDiskLow: isLow,
});

/** Does what the main thread asked for. */
function obey(commands: MessagePort, store: SegmentStore): { readonly stop: boolean; readonly trim: boolean } {
  let trim = false;
  for (;;) {
    const received: { message: WriterCommand } | undefined = receiveMessageOnPort(commands);
    if (received === undefined) return { stop: false, trim };
    const { message } = received;
    switch (message.kind) {
      case "stop":
        return { stop: true, trim };
      case "trim":
        store.release(message.below, message.keepFrom);
        trim = true;
        break;
      default:
        unreachable(message);
    }
  }
}

/** `failure`: why the disk refused; undefined: it is done, after a `refusal` or at once. */
function attempt(job: Job): { readonly failure: string | undefined; readonly refusal: string | undefined } {
  try {
    return { failure: undefined, refusal: job.run() };
  } catch (error) {
    return { failure: toError(error).message, refusal: undefined };
  }
}

function toJob(drain: RingDrain, store: SegmentStore): Job | undefined {
  const frames = drain.take();
  const last = frames.at(-1);
  if (last === undefined) return undefined;
  const to = readEnd(last);
  return { run: () => store.commit(frames, to), to, frames: frames.length };
}

/** What a run begins with: a new segment, and in it the last commit of the run before. */
function toFirstJob(dir: string, { lastCommit, next, garbage }: Recovered, store: SegmentStore): Job {
  const clear = (): void => {
    for (const name of garbage) bestEffort(() => nodeDisk.unlink(join(dir, name)));
  };
  if (lastCommit === undefined) {
    return {
      run: () => {
        store.begin(next);
        clear();
        return undefined;
      },
      to: next,
      frames: 0,
    };
  }
  const old = join(dir, toSegmentName(lastCommit.segment));
  const frames = lastCommit.frames.map(({ bytes }) => bytes);
  return {
    run: () => {
      const refusal = store.commit(frames, lastCommit.end);
      // The old copy is void from here on; cutting it only keeps the file honest.
      bestEffort(() => nodeDisk.truncate(old, lastCommit.keepBytes));
      clear();
      return refusal;
    },
    to: next,
    frames: 0,
  };
}

function openStore(
  { dir, streams, segmentBytes, rules }: WriterSetup,
  { id, epoch, nextNumber, segments, lastCommit, next }: Recovered,
): { store: SegmentStore; table: SegmentTable } {
  const span = nextNumber - (segments[0]?.number ?? nextNumber);
  const table = SegmentTable.create(Math.max(smallestTable, 2 * (span + Math.ceil(rules.maxBytes / segmentBytes))));
  const store = new SegmentStore({
    dir,
    disk: nodeDisk,
    table,
    head: openHead({ dir, journalId: id, epoch }),
    journalId: id,
    epoch,
    streams: lastCommit === undefined ? streams : moveStreams(lastCommit, streams),
    segmentBytes,
    rules,
    nextNumber,
    segments,
    durable: lastCommit?.base ?? next,
  });
  return { store, table };
}

/** Gives the last commit the indexes of this run's table, which it returns: with the streams that only it still has. */
function moveStreams(lastCommit: LastCommit, streams: readonly string[]): readonly string[] {
  const used = lastCommit.frames.flatMap(({ bytes, rawLength }) => [...readStreams(bytes, rawLength)]);
  const names = used.map((index) => lastCommit.streams[index]).filter((name) => name !== undefined);
  const table = [...new Set([...streams, ...names])];
  for (const { bytes, rawLength } of lastCommit.frames) remapStreams(bytes, rawLength, lastCommit.streams, table);
  return table;
}

/** Durable with all the folders that it makes. */
function createDir(dir: string): void {
  const first = mkdirSync(dir, { recursive: true });
  if (first === undefined) return;
  for (let made = resolve(dir); made.length >= first.length; made = dirname(made)) nodeDisk.syncDir(dirname(made));
}

/** A lock that dies with its owner, on every platform: SQLite's, held as long as the connection is open. */
function openLock(dir: string): DatabaseSync {
  const path = join(dir, "lock");
  try {
    return holdLock(path);
  } catch (error) {
    const code = error instanceof Error && "errcode" in error ? error.errcode : undefined;
    if (code === sqliteBusy) throw new SluiceError("SLUICE_JOURNAL_LOCKED", dir, { cause: error });
    if (code !== sqliteNotADatabase && code !== sqliteCorrupt) {
      throw new SluiceError("SLUICE_DATA_DIR", `${path}: ${toError(error).message}`, { cause: error });
    }
    // It never has content, so what is in it is not ours, and nobody can hold a lock on it.
    nodeDisk.truncate(path, 0);
    return holdLock(path);
  }
}

function holdLock(path: string): DatabaseSync {
  const lock = new DatabaseSync(path);
  try {
    lock.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
    return lock;
  } catch (error) {
    lock.close();
    throw error;
  }
}

function toRefusal(error: unknown, dir: string): { code: ErrorCode; detail: string } {
  const { message } = toError(error);
  if (error instanceof SluiceError)
    return { code: error.code, detail: message.slice(errors[error.code].sentence.length + 2) };
  return { code: "SLUICE_DATA_DIR", detail: `${dir}: ${message}` };
}

if (parentPort !== null) run(parentPort, workerData as WriterSetup);
