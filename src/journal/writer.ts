// The thread that owns the disk: it recovers, then commits what the main thread has closed, all of it in one write and
// one fdatasync at a time. It blocks on Atomics and never turns its event loop. Not the libuv pool: a few hung file
// system calls elsewhere would hold every commit. Entry of a worker; nothing imports its values.

import { mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { parentPort, receiveMessageOnPort, workerData, type MessagePort } from "node:worker_threads";
import { errors, SluiceError, toError, unreachable, type ErrorCode } from "../errors.ts";
import type { Offset } from "../reading.ts";
import { nodeDisk } from "./disk.ts";
import { openHead } from "./head.ts";
import { readStreams, remapStreams } from "./record.ts";
import { recover, type Recovered, type RecoveryReport } from "./recovery.ts";
import { RingDrain, type RingMemory } from "./ring.ts";
import type { LastCommit } from "./segment-scan.ts";
import { readEnd, toSegmentName } from "./segment.ts";
import { SegmentStore, type StoreFigures } from "./store.ts";
import { SegmentTable } from "./table.ts";

const firstBackoffMs = 100;
const longestBackoffMs = 30_000;
const smallestTable = 4096;
const sqliteBusy = 5;

export interface WriterSetup {
  readonly dir: string;
  readonly streams: readonly string[];
  readonly segmentBytes: number;
  readonly maxBytes: number;
  readonly ring: RingMemory;
  /** Commands come here; a kick of the ring follows each. */
  readonly commands: MessagePort;
}

export type WriterCommand =
  | { readonly kind: "trim"; readonly below: Offset; readonly roll: boolean }
  | { readonly kind: "stop" };

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
      readonly figures: StoreFigures;
      readonly failure: string | undefined;
    }
  /** A commit is durable; `frames` slots of the ring are free. */
  | {
      readonly kind: "durable";
      readonly to: Offset;
      readonly frames: number;
      readonly commitMs: number;
      readonly figures: StoreFigures;
    }
  | { readonly kind: "trimmed"; readonly figures: StoreFigures }
  /** The disk refuses a commit. It is tried again until a `durable` follows. */
  | { readonly kind: "failed"; readonly detail: string };

/** Something that must become durable before anything else does. */
interface Job {
  /** Throws when the disk refuses. */
  readonly run: () => void;
  /** What is durable afterwards. */
  readonly to: Offset;
  /** Slots that it frees. */
  readonly frames: number;
}

interface Service {
  readonly store: SegmentStore;
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
    const first = toFirstJob(setup.dir, recovered, store);
    const failure = attempt(first);
    post({
      kind: "ready",
      id: recovered.id,
      table: table.buffer,
      next: recovered.next,
      durable: failure === undefined ? recovered.next : store.durable,
      report: recovered.report,
      figures: store.figures,
      failure,
    });
    const service: Service = { store, drain: new RingDrain(setup.ring), commands: setup.commands, post };
    serve(service, failure === undefined ? undefined : first);
    store.close();
  } catch (error) {
    post({ kind: "refused", ...toRefusal(error, setup.dir) });
  } finally {
    lock?.close();
  }
}

/** Works until it is told to stop. `unfinished` is the first job when the disk has refused it. */
function serve({ store, drain, commands, post }: Service, unfinished: Job | undefined): void {
  let job = unfinished;
  let backoffMs = job === undefined ? 0 : firstBackoffMs;
  for (;;) {
    // Loaded before the work: what is asked for meanwhile ends the wait at once.
    const seen = drain.kicks;
    if (!obey(commands, store, post)) return;
    job ??= toJob(drain, store);
    if (job !== undefined) {
      const startedMs = performance.now();
      const failure = attempt(job);
      if (failure === undefined) {
        const commitMs = performance.now() - startedMs;
        post({ kind: "durable", to: job.to, frames: job.frames, commitMs, figures: store.figures });
        job = undefined;
        backoffMs = 0;
        store.prepare();
      } else {
        if (backoffMs === 0) post({ kind: "failed", detail: failure });
        backoffMs = Math.min(Math.max(firstBackoffMs, backoffMs * 2), longestBackoffMs);
      }
    }
    drain.wait(seen, job === undefined ? Infinity : backoffMs);
  }
}

/** Does what the main thread asked for. False: stop. */
function obey(commands: MessagePort, store: SegmentStore, post: (message: WriterMessage) => void): boolean {
  for (;;) {
    const received: { message: WriterCommand } | undefined = receiveMessageOnPort(commands);
    if (received === undefined) return true;
    const { message } = received;
    switch (message.kind) {
      case "stop":
        return false;
      case "trim":
        store.trim(message.below, message.roll);
        post({ kind: "trimmed", figures: store.figures });
        break;
      default:
        unreachable(message);
    }
  }
}

/** Undefined: it is done. Else why the disk refused. */
function attempt(job: Job): string | undefined {
  try {
    job.run();
    return undefined;
  } catch (error) {
    return toError(error).message;
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
      },
      to: next,
      frames: 0,
    };
  }
  const old = join(dir, toSegmentName(lastCommit.segment));
  const frames = lastCommit.frames.map(({ bytes }) => bytes);
  return {
    run: () => {
      store.commit(frames, lastCommit.end);
      // The old copy is void from here on; cutting it only keeps the file honest.
      bestEffort(() => nodeDisk.truncate(old, lastCommit.keepBytes));
      clear();
    },
    to: next,
    frames: 0,
  };
}

function openStore(
  { dir, streams, segmentBytes, maxBytes }: WriterSetup,
  { id, epoch, nextNumber, segments, lastCommit, next }: Recovered,
): { store: SegmentStore; table: SegmentTable } {
  const span = nextNumber - (segments[0]?.number ?? nextNumber);
  const table = SegmentTable.create(Math.max(smallestTable, 2 * (span + Math.ceil(maxBytes / segmentBytes))));
  const store = new SegmentStore({
    dir,
    disk: nodeDisk,
    table,
    head: openHead({ dir, journalId: id, epoch }),
    journalId: id,
    epoch,
    streams: lastCommit === undefined ? streams : moveStreams(lastCommit, streams),
    segmentBytes,
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
  const lock = openDatabase(path);
  try {
    lock.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
    return lock;
  } catch (error) {
    lock.close();
    const isBusy = error instanceof Error && "errcode" in error && error.errcode === sqliteBusy;
    throw isBusy ? new SluiceError("SLUICE_JOURNAL_LOCKED", dir, { cause: error }) : toUnusable(path, error);
  }
}

function openDatabase(path: string): DatabaseSync {
  try {
    return new DatabaseSync(path);
  } catch (error) {
    throw toUnusable(path, error);
  }
}

const toUnusable = (path: string, error: unknown): SluiceError =>
  new SluiceError("SLUICE_DATA_DIR", `${path}: ${toError(error).message}`, { cause: error });

function toRefusal(error: unknown, dir: string): { code: ErrorCode; detail: string } {
  const { message } = toError(error);
  if (error instanceof SluiceError)
    return { code: error.code, detail: message.slice(errors[error.code].sentence.length + 2) };
  return { code: "SLUICE_DATA_DIR", detail: `${dir}: ${message}` };
}

function bestEffort(action: () => void): void {
  try {
    action();
  } catch {
    // The next start finds it again.
  }
}

if (parentPort !== null) run(parentPort, workerData as WriterSetup);
