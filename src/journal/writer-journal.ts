// The main thread's side of the journal: it fills frames in shared memory, asks the writer for a commit, and publishes
// how far everything is durable. No promise per record (1.1 µs each): one watermark, advanced once per commit.
//
// Commits: idle, at the next setImmediate; under load at least `minCommitIntervalMs` between two starts, so that one
// fdatasync carries many records; one in flight. store.ts has the order of the bytes on disk.

import type { MessagePort, Worker } from "node:worker_threads";
import { errors, SluiceError, unreachable } from "../errors.ts";
import { toOffset, type Message, type Offset, type UnixMs } from "../reading.ts";
import type { Journal, JournalNotice, JournalOptions, JournalState, JournalStats } from "./journal.ts";
import type { JournalShare } from "./reader.ts";
import { encodeRejection, releasedFlag, type RecordedRejection } from "./record.ts";
import type { RecoveryReport } from "./recovery.ts";
import type { RingFiller } from "./ring.ts";
import { noStream } from "./segment.ts";
import type { Range } from "./store.ts";
import { SegmentTable } from "./table.ts";
import { Listeners, Watermark } from "./watermark.ts";
import type { WriterCommand, WriterDurable, WriterFigures, WriterMessage, WriterReady } from "./protocol.ts";

/** A full journal opens again when it holds no more than this share of `maxBytes`. */
const resumeAt = 0.9;
const timerToleranceMs = 0.5;
const nothing = new Uint8Array();

export interface WriterJournalOptions extends JournalOptions {
  readonly maxPendingBytes: number;
  readonly worker: Worker;
  readonly commands: MessagePort;
  readonly filler: RingFiller;
  readonly ready: WriterReady;
}

export class WriterJournal implements Journal {
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
  readonly #watermark: Watermark;
  readonly #table: SegmentTable;
  readonly #stateListeners = new Listeners<[]>();
  readonly #noticeListeners = new Listeners<[notice: JournalNotice]>();
  #next: Offset;
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

  constructor({ worker, commands, filler, ready, ...options }: WriterJournalOptions) {
    this.id = ready.id;
    this.share = { dir: options.dir, id: ready.id, table: ready.table };
    this.#table = new SegmentTable(ready.table);
    this.recovered = ready.report;
    this.#worker = worker;
    this.#commands = commands;
    this.#ring = filler;
    this.#streams = new Map(options.streams.map((name, index) => [name, index]));
    this.#maxBytes = options.maxBytes;
    this.#maxPendingBytes = options.maxPendingBytes;
    this.#minCommitIntervalMs = options.minCommitIntervalMs ?? 2;
    this.#next = ready.next;
    this.#watermark = new Watermark(ready.durable);
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
    return this.#watermark.position;
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
      ? `The journal's disk has only ${freeBytes} bytes left. Free some, or lower journal.reserveBytes.`
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
    return this.#watermark.onAdvance(listener);
  }

  onState(listener: () => void): Disposable {
    return this.#stateListeners.add(listener);
  }

  async ready(): Promise<void> {
    while (this.congested) {
      const { promise, resolve } = Promise.withResolvers<void>();
      using _ = this.onState(resolve);
      await promise;
    }
  }

  onNotice(listener: (notice: JournalNotice) => void): Disposable {
    return this.#noticeListeners.add(listener);
  }

  trim(below: Offset, keepFrom: number = this.#keepFrom): void {
    const isKeptMoved = keepFrom !== this.#keepFrom;
    this.#keepFrom = keepFrom;
    this.#trimBelow = toOffset(Math.max(below, this.#trimBelow));
    this.#trim(isKeptMoved);
  }

  async flush(): Promise<void> {
    const to = this.#next;
    if (this.durable >= to) return;
    if (this.#failure !== undefined) throw new SluiceError("SLUICE_JOURNAL_WRITE", this.#failure);
    const reached = this.#watermark.reached(to);
    this.#start();
    await reached;
  }

  bytesFrom(position: Offset): number {
    return this.#table.bytesFrom(position);
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

  #advance({ to, frames, commitMs, figures, refusal }: WriterDurable): void {
    const wasFailed = this.#failure !== undefined;
    this.#inFlight = false;
    this.#failure = undefined;
    this.#figures = figures;
    this.#commits += 1;
    this.#lastCommitMs = commitMs;
    this.#ring.release(frames);
    this.#watermark.set(to);
    if (this.#ring.bytes > 0 && !this.#scheduled) this.#schedule();
    this.#review(wasFailed);
    this.#trim();
    if (refusal !== undefined) {
      this.#writeErrors += 1;
      this.#noticeListeners.tell({ kind: "write-error", detail: refusal });
    }
    this.#watermark.tell();
  }

  #fail(detail: string): void {
    this.#failure = detail;
    this.#writeErrors += 1;
    this.#watermark.fail(new SluiceError("SLUICE_JOURNAL_WRITE", detail));
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
    if (isNews) queueMicrotask(() => this.#stateListeners.tell());
  }

  /** Tells the writer what nobody needs, when that releases a segment, or when all of a full journal may go. */
  #trim(isKeptMoved = false): void {
    const below = this.#trimBelow;
    const isNews = below > this.#toldBelow;
    const isRelease = below >= this.#figures.trimmable || (this.#full && below >= this.durable);
    if (!isKeptMoved && !(isNews && isRelease)) return;
    this.#toldBelow = below;
    this.#command({ kind: "trim", below, keepFrom: this.#keepFrom });
  }

  /** The writer knows what was read only to the segment; here it is known to the record. */
  #tellExpired(expired: Range | undefined): void {
    if (expired === undefined) return;
    const from = toOffset(Math.max(expired.from, this.#trimBelow));
    if (from < expired.to) this.#noticeListeners.tell({ kind: "expired", from, to: expired.to });
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
