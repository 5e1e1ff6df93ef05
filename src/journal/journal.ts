// The main thread's side of the journal: it fills frames in shared memory, asks the writer for a commit, and publishes
// how far everything is durable. No promise per record (1.1 µs each): one watermark, advanced once per commit.
//
// Commits: idle, at the next setImmediate; under load at least `minCommitIntervalMs` between two starts, so that one
// fdatasync carries many records; one in flight. See docs/journal-format.md for the bytes, store.ts for their order.

import { MessageChannel, Worker, type MessagePort } from "node:worker_threads";
import { errors, SluiceError, unreachable } from "../errors.ts";
import { toOffset, type Message, type Offset, type UnixMs } from "../reading.ts";
import type { JournalShare } from "./reader.ts";
import { encodeRejection, releasedFlag, type RecordedRejection } from "./record.ts";
import type { RecoveryReport } from "./recovery.ts";
import { createRingMemory, RingFiller } from "./ring.ts";
import { noStream } from "./segment.ts";
import type { RetentionRules } from "./retention.ts";
import type { Range } from "./store.ts";
import type { WriterCommand, WriterFigures, WriterMessage, WriterSetup } from "./writer.ts";

const defaultSegmentBytes = 64 * 1024 * 1024;
const smallestSegmentBytes = 4096;
const defaultPendingBytes = 16 * 1024 * 1024;
const smallestPendingBytes = 256 * 1024;
/** A full journal opens again when it holds no more than this share of `maxBytes`. */
const resumeAt = 0.9;
/** A trim must be able to free most of the journal: the open segment is never more than about this share. */
const segmentsInFull = 8;
const timerToleranceMs = 0.5;
const nothing = new Uint8Array();

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
  const share = Math.max(smallestSegmentBytes, Math.floor(options.maxBytes / segmentsInFull));
  const setup: WriterSetup = {
    dir: options.dir,
    streams: options.streams,
    segmentBytes: Math.min(options.segmentBytes ?? defaultSegmentBytes, share),
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
  return new WriterJournal(options, worker, commands, new RingFiller(ring, ready.next), ready);
}

type Ready = Extract<WriterMessage, { kind: "ready" }>;

async function awaitReady(worker: Worker): Promise<Ready> {
  const { promise, resolve, reject } = Promise.withResolvers<Ready>();
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

interface Waiter {
  readonly to: Offset;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

class WriterJournal implements Journal {
  readonly id: string;
  readonly share: JournalShare;
  readonly recovered: RecoveryReport;
  readonly #worker: Worker;
  readonly #commands: MessagePort;
  readonly #ring: RingFiller;
  readonly #streams: ReadonlyMap<string, number>;
  readonly #maxBytes: number;
  readonly #maxPendingBytes: number;
  readonly #minCommitIntervalMs: number;
  readonly #durableListeners = new Set<(to: Offset) => void>();
  readonly #stateListeners = new Set<() => void>();
  readonly #noticeListeners = new Set<(notice: JournalNotice) => void>();
  #waiters: readonly Waiter[] = [];
  #next: Offset;
  #durable: Offset;
  #figures: WriterFigures;
  #commits = 0;
  #lastCommitMs = 0;
  #writeErrors = 0;
  /** Of the last commit. */
  #startedMs = Number.NEGATIVE_INFINITY;
  /** A commit is on its way to the writer, or a job that it has from the start. */
  #inFlight: boolean;
  #scheduled = false;
  #failure: string | undefined;
  #full = false;
  #crowded = false;
  #trimBelow = toOffset(0);
  #keepFrom = Infinity;
  /** What of `#trimBelow` the writer knows. */
  #toldBelow = toOffset(0);
  #alive = true;
  #closed: Promise<void> | undefined;
  #stopping = false;

  constructor(options: JournalOptions, worker: Worker, commands: MessagePort, ring: RingFiller, ready: Ready) {
    this.id = ready.id;
    this.share = { dir: options.dir, id: ready.id, table: ready.table };
    this.recovered = ready.report;
    this.#worker = worker;
    this.#commands = commands;
    this.#ring = ring;
    this.#streams = new Map(options.streams.map((name, index) => [name, index]));
    this.#maxBytes = options.maxBytes;
    this.#maxPendingBytes = options.maxPendingBytes ?? boundPending(options.maxBytes);
    this.#minCommitIntervalMs = options.minCommitIntervalMs ?? 2;
    this.#next = ready.next;
    this.#durable = ready.durable;
    this.#figures = ready.figures;
    this.#failure = ready.failure;
    this.#inFlight = ready.failure !== undefined;
    worker.on("message", (message: WriterMessage) => this.#receive(message));
    worker.on("error", (error) => this.#fail(`its thread ended: ${error.message}`));
    worker.on("exit", () => {
      this.#alive = false;
      if (!this.#stopping) this.#fail(this.#failure ?? "its thread ended");
    });
    this.#review();
  }

  get next(): Offset {
    return this.#next;
  }

  get durable(): Offset {
    return this.#durable;
  }

  get state(): JournalState {
    if (this.#failure !== undefined) return "failed";
    return this.#full ? "full" : "open";
  }

  get hint(): string {
    const { sentence, hint } = errors.SLUICE_JOURNAL_WRITE;
    if (!this.#alive) return `${sentence}: ${this.#failure}. Only a new start of the gateway helps.`;
    if (this.#failure !== undefined) return `${sentence}: ${this.#failure}. ${hint}`;
    if (!this.#full) return "";
    const { isDiskLow, freeBytes, heldBytes } = this.#figures;
    return isDiskLow
      ? `Its disk has only ${freeBytes} bytes left. Free some, or lower journal.reserveBytes.`
      : `It holds ${heldBytes} of ${this.#maxBytes} bytes that a sink still needs.`;
  }

  get alive(): boolean {
    return this.#alive;
  }

  get congested(): boolean {
    return this.#crowded || this.#full || this.#failure !== undefined;
  }

  append(message: Message, stream: string, rejection?: RecordedRejection): Offset {
    const index = this.#streams.get(stream) ?? noStream;
    return this.#fill(message, index, rejection === undefined ? undefined : encodeRejection(rejection), 0);
  }

  release(clientId: string, packetId: number, receivedAt: UnixMs): Offset {
    const end = { topic: "", payload: nothing, clientId, deviceId: clientId, receivedAt, qos: 2, packetId } as const;
    return this.#fill(end, noStream, undefined, releasedFlag);
  }

  #fill(message: Message, stream: number, rejection: Buffer | undefined, kindFlag: number): Offset {
    const offset = this.#next;
    this.#ring.fill(message, offset, stream, rejection, kindFlag);
    this.#next = toOffset(offset + 1);
    if (!this.#scheduled && !this.#inFlight) this.#schedule();
    const pendingBytes = this.#ring.bytes;
    if (pendingBytes > this.#maxPendingBytes || this.#figures.bytes + pendingBytes >= this.#maxBytes) this.#review();
    return offset;
  }

  onDurable(listener: (to: Offset) => void): Disposable {
    return subscribe(this.#durableListeners, listener);
  }

  onState(listener: () => void): Disposable {
    return subscribe(this.#stateListeners, listener);
  }

  async ready(): Promise<void> {
    while (this.congested) {
      const { promise, resolve } = Promise.withResolvers<void>();
      using _ = this.onState(resolve);
      await promise;
    }
  }

  onNotice(listener: (notice: JournalNotice) => void): Disposable {
    return subscribe(this.#noticeListeners, listener);
  }

  trim(below: Offset, keepFrom: number = this.#keepFrom): void {
    const isKeptMoved = keepFrom !== this.#keepFrom;
    this.#keepFrom = keepFrom;
    this.#trimBelow = toOffset(Math.max(below, this.#trimBelow));
    this.#trim(isKeptMoved);
  }

  async flush(): Promise<void> {
    const to = this.#next;
    if (this.#durable >= to) return;
    if (this.#failure !== undefined) throw new SluiceError("SLUICE_JOURNAL_WRITE", this.#failure);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiters = [...this.#waiters, { to, resolve, reject }];
    this.#start();
    await promise;
  }

  stats(): JournalStats {
    return {
      bytes: this.#figures.bytes,
      heldBytes: this.#figures.heldBytes,
      maxBytes: this.#maxBytes,
      freeBytes: this.#figures.freeBytes,
      segments: this.#figures.segments,
      pendingBytes: this.#ring.bytes,
      firstOffset: this.#figures.firstOffset,
      commits: this.#commits,
      lastCommitMs: this.#lastCommitMs,
      writeErrors: this.#writeErrors,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    await this.#closed;
  }

  #schedule(): void {
    this.#scheduled = true;
    const waitMs = this.#remainingMs();
    const start = (): void => {
      this.#scheduled = false;
      // Timers count in whole milliseconds, rounded down: one can end early. Rounded up, half a commit's time is lost.
      if (this.#remainingMs() > timerToleranceMs) this.#schedule();
      else this.#start();
    };
    if (waitMs > 0) setTimeout(start, waitMs);
    else setImmediate(start);
  }

  /** Until the next commit may start. */
  #remainingMs(): number {
    return this.#startedMs + this.#minCommitIntervalMs - performance.now();
  }

  #start(): void {
    if (this.#inFlight || !this.#ring.submit(this.#next)) return;
    this.#inFlight = true;
    this.#startedMs = performance.now();
  }

  #receive(message: WriterMessage): void {
    switch (message.kind) {
      case "durable":
        this.#advance(message);
        break;
      case "swept":
        this.#figures = message.figures;
        this.#tellExpired(message.expired);
        this.#review();
        this.#trim();
        break;
      case "failed":
        this.#fail(message.detail);
        break;
      case "refused":
        this.#fail(message.detail);
        break;
      case "ready":
        break;
      default:
        unreachable(message);
    }
  }

  #advance({ to, frames, commitMs, figures, refusal }: Extract<WriterMessage, { kind: "durable" }>): void {
    const wasFailed = this.#failure !== undefined;
    this.#inFlight = false;
    this.#failure = undefined;
    this.#figures = figures;
    this.#commits += 1;
    this.#lastCommitMs = commitMs;
    this.#ring.release(frames);
    this.#durable = to;
    if (this.#ring.bytes > 0 && !this.#scheduled) this.#schedule();
    this.#review(wasFailed);
    this.#trim();
    if (refusal !== undefined) {
      this.#writeErrors += 1;
      this.#notify({ kind: "write-error", detail: refusal });
    }
    for (const listener of this.#durableListeners) listener(to);
    const done = this.#waiters.filter((waiter) => waiter.to <= to);
    if (done.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => waiter.to > to);
    for (const { resolve } of done) resolve();
  }

  #fail(detail: string): void {
    this.#failure = detail;
    this.#writeErrors += 1;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const { reject } of waiters) reject(new SluiceError("SLUICE_JOURNAL_WRITE", detail));
    this.#review(true);
  }

  /** Decides anew whether the journal is full or crowded; both have a lower mark at which they end. */
  #review(changed = false): void {
    const pendingBytes = this.#ring.bytes;
    const totalBytes = this.#figures.bytes + pendingBytes;
    const mark = this.#full ? resumeAt * this.#maxBytes : this.#maxBytes - 1;
    const full = this.#figures.isDiskLow || totalBytes > mark;
    const crowded = this.#crowded ? pendingBytes > this.#maxPendingBytes / 2 : pendingBytes > this.#maxPendingBytes;
    const isNews = changed || full !== this.#full || crowded !== this.#crowded;
    const isNewlyFull = full && !this.#full;
    this.#full = full;
    this.#crowded = crowded;
    if (isNewlyFull) this.#trim();
    // Not from within an append: a listener may do anything.
    if (isNews) queueMicrotask(() => this.#stateListeners.forEach((listener) => listener()));
  }

  /** Tells the writer what nobody needs, when that releases a segment, or when all of a full journal may go. */
  #trim(isKeptMoved = false): void {
    const below = this.#trimBelow;
    const isNews = below > this.#toldBelow;
    const isRelease = below >= this.#figures.trimmable || (this.#full && below >= this.#durable);
    if (!isKeptMoved && !(isNews && isRelease)) return;
    this.#toldBelow = below;
    this.#command({ kind: "trim", below, keepFrom: this.#keepFrom });
  }

  /** The writer knows what was read only to the segment; here it is known to the record. */
  #tellExpired(expired: Range | undefined): void {
    if (expired === undefined) return;
    const from = toOffset(Math.max(expired.from, this.#trimBelow));
    if (from < expired.to) this.#notify({ kind: "expired", from, to: expired.to });
  }

  #notify(notice: JournalNotice): void {
    for (const listener of this.#noticeListeners) listener(notice);
  }

  #command(command: WriterCommand): void {
    this.#commands.postMessage(command);
    this.#ring.kick();
  }

  async #close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#stop();
    }
  }

  async #stop(): Promise<void> {
    this.#stopping = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#worker.once("exit", () => resolve());
    // A thread that has ended emits no second exit.
    if (this.#worker.threadId === -1) resolve();
    this.#command({ kind: "stop" });
    await promise;
    this.#commands.close();
  }
}

function boundPending(maxBytes: number): number {
  return Math.min(defaultPendingBytes, Math.max(smallestPendingBytes, maxBytes / segmentsInFull));
}

function subscribe<L>(listeners: Set<L>, listener: L): Disposable {
  listeners.add(listener);
  return { [Symbol.dispose]: () => listeners.delete(listener) };
}
