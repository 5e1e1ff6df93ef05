// The journal: what it promises, and how it is opened. writer-journal.ts is its side on the main thread, writer.ts the
// thread that owns the disk, reader.ts what consumers read it with. docs/journal-format.md has the bytes.

import { MessageChannel, Worker } from "node:worker_threads";
import { SluiceError } from "../errors.ts";
import type { Message, Offset, UnixMs } from "../reading.ts";
import type { JournalShare } from "./reader.ts";
import type { RecordedRejection } from "./record.ts";
import type { RecoveryReport } from "./recovery.ts";
import type { RetentionRules } from "./retention.ts";
import { createRingMemory, RingFiller } from "./ring.ts";
import type { Range } from "./store.ts";
import { WriterJournal } from "./writer-journal.ts";
import type { WriterMessage, WriterReady, WriterSetup } from "./protocol.ts";

const defaultSegmentBytes = 64 * 1024 * 1024;
const smallestSegmentBytes = 4096;
const defaultPendingBytes = 16 * 1024 * 1024;
const smallestPendingBytes = 256 * 1024;
/** A trim must be able to free most of the journal: the open segment, and what is pending, is at most this part. */
const partsInFull = 8;

export interface JournalOptions {
  /** Created when missing. Belongs to one journal, and to one process at a time. */
  readonly dir: string;
  /** Names of the streams whose records will be appended. */
  readonly streams: readonly string[];
  /** The hard mark: at this size of all segments and what is pending the journal is full. */
  readonly maxBytes: number;
  /** What gives way when it would be full: the callers (`hold`, the default), or the oldest records (`expire`). */
  readonly whenFull?: RetentionRules["whenFull"];
  /** Keeps what nobody needs any more, for replay, as long as the room is not needed. Default: nothing. */
  readonly retain?: RetentionRules["retain"];
  /** The journal is full, too, while less is free on its disk. Default 64 MiB, at most a twentieth of the disk. */
  readonly reserveBytes?: number | undefined;
  /** A segment ends at the commit that would make it longer. Default 64 MiB, at most an eighth of `maxBytes`. */
  readonly segmentBytes?: number;
  /** Default 2. */
  readonly minCommitIntervalMs?: number;
  /** More than this appended but not durable: congested. Default 16 MiB, at most an eighth of `maxBytes`. */
  readonly maxPendingBytes?: number;
}

export interface JournalStats {
  /** Sum of the lengths of the segment files. */
  readonly bytes: number;
  /** Of them, what a consumer has not read. */
  readonly heldBytes: number;
  readonly maxBytes: number;
  /** On the journal's disk; Infinity when it does not tell. */
  readonly freeBytes: number;
  readonly segments: number;
  readonly pendingBytes: number;
  /** The oldest record that is still there. */
  readonly firstOffset: Offset;
  /** Of this run. */
  readonly commits: number;
  /** Write and fdatasync of the last commit. */
  readonly lastCommitMs: number;
  /** Of this run: commits that the disk refused at first or for a time. */
  readonly writeErrors: number;
}

/** What an operator must know beside the state. */
export type JournalNotice =
  /** The disk has refused a commit, and a fresh segment took it: nothing is lost, and the disk is suspect. */
  | { readonly kind: "write-error"; readonly detail: string }
  /** Records from `from` up to, not including, `to` were deleted though a consumer still needed them (`expire`). */
  | ({ readonly kind: "expired" } & Range);

/** open: takes records. full: `maxBytes` is reached. failed: the disk refuses; it is tried again in the background. */
export type JournalState = "open" | "full" | "failed";

export interface Journal extends AsyncDisposable {
  /** The gateway id: 32 hexadecimal digits, made with the folder. With an offset it identifies a record for ever. */
  readonly id: string;
  /**
   * Copies the message and gives it its offset; durable once `durable` has passed it. Synchronous. Takes a record in
   * every state: what was read from a socket before it was paused is kept, and committed when the disk allows. A stream
   * that is not in `streams` is recorded as "". Throws only RangeError, when the record is longer than
   * `maximumRecordBytes`: the caller's packet limit is too high.
   */
  append(message: Message, stream: string, rejection?: RecordedRejection): Offset;
  /** Records, like `append`, that a QoS 2 message of the client is finished; `packetId` 0: all of them are. */
  release(clientId: string, packetId: number, receivedAt: UnixMs): Offset;
  /** The offset that the next record will get. */
  readonly next: Offset;
  /** Everything below survives a crash. */
  readonly durable: Offset;
  /** Called once per commit, after `durable` has moved. The listener must not throw. */
  onDurable(listener: (to: Offset) => void): Disposable;
  readonly state: JournalState;
  /** A sentence for the operator about `state`; "" when open. */
  readonly hint: string;
  /** False: its thread has ended and only a new start of the process helps. */
  readonly alive: boolean;
  /** Callers must stop reading sockets: the state is not open, or too much is pending. */
  readonly congested: boolean;
  /** Resolves when it is not congested; at once when it is not. */
  ready(): Promise<void>;
  /** Called soon after `state` or `congested` has changed. The listener must not throw. */
  onState(listener: () => void): Disposable;
  /** The listener must not throw. */
  onNotice(listener: (notice: JournalNotice) => void): Disposable;
  /**
   * Nobody needs records below, also those to come: segments that hold only such are deleted. It never goes back. Records
   * from `keepFrom` on are kept all the same, as long as their room is not needed.
   */
  trim(below: Offset, keepFrom?: Offset): void;
  /** Resolves when everything appended so far is durable. Rejects when the disk refuses it: SLUICE_JOURNAL_WRITE. */
  flush(): Promise<void>;
  /** Bytes of the records from a position on, about: what a consumer that is there has to read. */
  bytesFrom(position: Offset): number;
  /** What a thread needs to open a reader; can be posted. */
  readonly share: JournalShare;
  /** What the start found. */
  readonly recovered: RecoveryReport;
  stats(): JournalStats;
  /** Flushes, ends the thread and gives up the lock. Rejects like `flush`, but then too everything is closed. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Recovers what the folder holds and begins a new segment. Throws SluiceError: SLUICE_JOURNAL_LOCKED, _VERSION, _DAMAGED
 * or SLUICE_DATA_DIR. A full disk is no reason: then the journal opens in state failed, so that sinks can be served.
 */
export async function openJournal(options: JournalOptions): Promise<Journal> {
  const ring = createRingMemory();
  const { port1: commands, port2 } = new MessageChannel();
  const part = Math.floor(options.maxBytes / partsInFull);
  const setup: WriterSetup = {
    dir: options.dir,
    streams: options.streams,
    segmentBytes: Math.min(options.segmentBytes ?? defaultSegmentBytes, Math.max(smallestSegmentBytes, part)),
    rules: { maxBytes: options.maxBytes, whenFull: options.whenFull ?? "hold", retain: options.retain ?? {} },
    reserveBytes: options.reserveBytes,
    ring,
    commands: port2,
  };
  const worker = new Worker(new URL("./writer.ts", import.meta.url), {
    name: "journal",
    workerData: setup,
    transferList: [port2],
  });
  const ready = await awaitReady(worker);
  const maxPendingBytes = Math.min(defaultPendingBytes, Math.max(smallestPendingBytes, part));
  const filler = new RingFiller(ring, ready.next);
  return new WriterJournal({ maxPendingBytes, ...options, worker, commands, filler, ready });
}

async function awaitReady(worker: Worker): Promise<WriterReady> {
  const { promise, resolve, reject } = Promise.withResolvers<WriterReady>();
  let refusal: Error | undefined;
  worker.once("message", (message: WriterMessage) => {
    if (message.kind === "ready") resolve(message);
    else if (message.kind === "refused") refusal = new SluiceError(message.code, message.detail);
  });
  const onError = (error: Error): void => {
    refusal = new SluiceError("SLUICE_JOURNAL_WRITE", error.message, { cause: error });
  };
  // Rejecting only when the thread is gone: the lock is free then.
  const onExit = (): void => reject(refusal ?? new SluiceError("SLUICE_JOURNAL_WRITE", "its thread ended at once"));
  worker.once("error", onError).once("exit", onExit);
  const ready = await promise;
  worker.off("error", onError).off("exit", onExit);
  return ready;
}
