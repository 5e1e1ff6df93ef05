// The segments on disk and everything that changes them: commit, the next segment ahead of need, trim. Synchronous: the
// writer thread calls it, one thing at a time. Recovery has found the segments that it starts with.
//
// Order, for P1: header written and synced → directory synced → frames written → frames synced → table → durable.
// After a failed write or sync the file is closed and its pages are never synced again: the kernel may have marked them
// clean without writing them. The same frames go to a fresh segment, whose base tells recovery that the old copy is void.

import { toError } from "../errors.ts";
import { toOffset, type Offset } from "../reading.ts";
import type { Head } from "./head.ts";
import { countDeletable, isRoomNeeded, retainedUntilMs, type RetentionRules, type StoredSegment } from "./retention.ts";
import { bestEffort, SegmentFiles, type SegmentFilesOptions } from "./segment-files.ts";
import { readStart, stampFrame, toFrameSeed } from "./segment.ts";
import type { SegmentTable } from "./table.ts";

const freshTries = 2;
const prepareAt = 0.75;

/** A segment that readers can see: `bytes` and `end` are durable. */
export interface LiveSegment extends StoredSegment {
  readonly number: number;
  readonly base: Offset;
}

export interface StoreOptions extends SegmentFilesOptions {
  readonly table: SegmentTable;
  /** Closed with the store. */
  readonly head: Head;
  readonly segmentBytes: number;
  readonly rules: RetentionRules;
  /** Oldest first; none of them is written to again. */
  readonly segments: readonly LiveSegment[];
  /** Everything below it is durable in `segments`. */
  readonly durable: Offset;
}

/** What the main thread shows and decides by. */
export interface StoreFigures {
  /** Sum of the lengths of the segment files. */
  readonly bytes: number;
  /** Of them, what a consumer has not read. */
  readonly heldBytes: number;
  readonly segments: number;
  readonly firstOffset: Offset;
  /** A trim to this offset or above releases a segment; Infinity: there is none to be released. */
  readonly trimmable: number;
}

/** Records from `from` up to, not including, `to`. */
export interface Range {
  readonly from: Offset;
  readonly to: Offset;
}

interface OpenSegment {
  readonly number: number;
  readonly fd: number;
  base: Offset;
  end: Offset;
  bytes: number;
}

export class SegmentStore {
  readonly #options: StoreOptions;
  readonly #files: SegmentFiles;
  readonly #seed: number;
  readonly #live: LiveSegment[];
  #durable: Offset;
  #released = toOffset(0);
  #keepFrom = Infinity;
  #commit = 0;
  /** Takes the next commit. Not in `#live`; in the table from its first durable record on. */
  #current: OpenSegment | undefined;
  /** Created ahead of need. */
  #prepared: OpenSegment | undefined;

  constructor(options: StoreOptions) {
    this.#options = options;
    this.#files = new SegmentFiles(options);
    this.#seed = toFrameSeed(options.journalId);
    this.#live = [...options.segments];
    this.#durable = options.durable;
    for (const { number, base, end, bytes } of options.segments) {
      options.table.add({ number, sealed: true, baseOffset: base, durableBytes: bytes, endOffset: end });
    }
    this.#publish();
  }

  get durable(): Offset {
    return this.#durable;
  }

  get figures(): StoreFigures {
    const open = this.#openBytes();
    const unread = this.#live.findIndex(({ end }) => end > this.#released);
    let [bytes, heldBytes] = [open, this.#durable > this.#released ? open : 0];
    for (const segment of this.#live) {
      bytes += segment.bytes;
      if (segment.end > this.#released) heldBytes += segment.bytes;
    }
    return {
      bytes: bytes + this.#files.leftoverBytes,
      heldBytes,
      segments: this.#live.length + [this.#current, this.#prepared].filter((segment) => segment !== undefined).length,
      firstOffset: this.#firstOffset(),
      trimmable: this.#live[unread]?.end ?? Infinity,
    };
  }

  /** Creates the segment that the run begins with. Throws when the disk refuses. */
  begin(base: Offset): void {
    this.#current = this.#create(base);
    this.#durable = base;
    this.#publish();
  }

  /**
   * Makes closed frames durable, `to` being the offset behind their last record. When it throws the disk has refused
   * them in the open segment and in two fresh ones: nothing of them counts, and they may be given again. Returns why it
   * has refused them at first when a fresh segment took them; undefined: it did not.
   */
  commit(frames: readonly Buffer[], to: Offset): string | undefined {
    this.#commit += 1;
    for (const [index, frame] of frames.entries()) {
      const stamp = { epoch: this.#options.epoch, commit: this.#commit, lastOfCommit: index === frames.length - 1 };
      stampFrame(frame, stamp, this.#seed);
    }
    let refusal: string | undefined;
    for (let failures = 0; ; failures += 1) {
      try {
        this.#write(frames, to);
        return refusal;
      } catch (error) {
        this.#abandon();
        if (failures === freshTries) throw error;
        refusal ??= toError(error).message;
      }
    }
  }

  /** Creates the next segment when the open one is nearly full. A refusal shows at the commit that needs it. */
  prepare(): void {
    const current = this.#current;
    if (this.#prepared !== undefined || current === undefined) return;
    if (current.bytes < prepareAt * this.#options.segmentBytes) return;
    bestEffort(() => {
      this.#prepared = this.#create(current.end);
    });
  }

  /** Nobody needs anything below, which never goes back; from `keepFrom` on it is kept as long as there is room. */
  release(below: Offset, keepFrom = this.#keepFrom): void {
    this.#keepFrom = keepFrom;
    this.#released = toOffset(Math.max(this.#released, below));
  }

  /**
   * Deletes what nobody needs, and what must go because room is needed: in the journal, or on the disk, which lacks
   * `lackingBytes`. Returns how many segments went, and the records among them that somebody still needed.
   */
  sweep(nowMs: number, lackingBytes: number): { readonly deleted: number; readonly expired: Range | undefined } {
    const { rules } = this.#options;
    this.#files.clear();
    const [released, keepFrom] = [this.#released, this.#keepFrom];
    const state = { otherBytes: this.#otherBytes(), released, keepFrom, nowMs, lackingBytes };
    let count = countDeletable(this.#live, state, rules);
    if (count === this.#live.length && this.#mustRoll()) {
      this.#roll();
      count = countDeletable(this.#live, { ...state, otherBytes: this.#otherBytes() }, rules);
    }
    // The last file with the journal's id and end must stay.
    if (this.#current === undefined) count = Math.min(count, this.#live.length - 1);
    return count > 0 ? { deleted: count, expired: this.#delete(count) } : { deleted: 0, expired: undefined };
  }

  /** When time alone makes a `sweep` worthwhile. */
  get nextSweepMs(): number | undefined {
    return retainedUntilMs(this.#live, this.#released, this.#options.rules);
  }

  /** Ends the thread's part in the files. What is durable stays so. */
  close(): void {
    const current = this.#current;
    this.#current = undefined;
    if (current !== undefined) bestEffort(() => this.#options.disk.close(current.fd));
    this.#dropPrepared();
    this.#options.head.sync();
    this.#options.head[Symbol.dispose]();
  }

  #write(frames: readonly Buffer[], to: Offset): void {
    const { disk, table, segmentBytes } = this.#options;
    const bytes = frames.reduce((sum, frame) => sum + frame.length, 0);
    const [first] = frames;
    const base = first === undefined ? this.#durable : readStart(first);
    if (this.#current !== undefined && this.#hasRecords(this.#current) && this.#current.bytes + bytes > segmentBytes) {
      this.#seal(this.#current, base);
    }
    if (this.#current === undefined) {
      this.#current = this.#prepared ?? this.#create(base);
      this.#prepared = undefined;
    }
    const current = this.#current;
    const written = disk.write(current.fd, frames, current.bytes);
    if (written !== bytes) throw new Error(`short write: ${written} of ${bytes} B; is the disk full?`);
    disk.sync(current.fd);

    const isNew = !this.#hasRecords(current);
    current.bytes += bytes;
    current.end = to;
    if (isNew) {
      current.base = base;
      const { number } = current;
      const previous = this.#live.at(-1);
      if (previous !== undefined) table.seal(previous.number, base);
      table.add({ number, sealed: false, baseOffset: base, durableBytes: current.bytes, endOffset: to });
    } else {
      table.extend(current.number, current.bytes, to);
    }
    this.#durable = to;
    this.#publish();
  }

  #hasRecords(segment: OpenSegment): boolean {
    return segment.end > segment.base;
  }

  /** Nothing more goes to the open segment; what it has stays. */
  #seal(current: OpenSegment, end: Offset): void {
    const { disk, table } = this.#options;
    // Every byte is synced: there is nothing that a close could lose.
    bestEffort(() => disk.close(current.fd));
    table.seal(current.number, end);
    this.#options.head.sync();
    this.#live.push({ number: current.number, base: current.base, end, bytes: current.bytes, endedMs: Date.now() });
    this.#current = undefined;
  }

  /** After a failed write: the open segment keeps what was durable, or goes. */
  #abandon(): void {
    const current = this.#current;
    if (current === undefined) return;
    const { disk } = this.#options;
    if (this.#hasRecords(current)) {
      this.#seal(current, current.end);
      // When the disk refuses this too, the base of the next segment tells that the rest is void.
      bestEffort(() => disk.truncate(this.#files.path(current.number), current.bytes));
      return;
    }
    this.#current = undefined;
    bestEffort(() => disk.close(current.fd));
    this.#files.discard(current);
  }

  #delete(count: number): Range | undefined {
    const deleted = this.#live.splice(0, count);
    const unread = deleted.find(({ end }) => end > this.#released);
    // Readers learn the new beginning first, so that they know a trimmed segment from a damaged one.
    this.#publish();
    // So does the next start, before the first of them is gone.
    this.#options.head.sync();
    for (const { number, bytes } of deleted) {
      this.#options.table.drop(number);
      this.#files.remove(number, bytes);
    }
    if (unread === undefined) return undefined;
    const from = toOffset(Math.max(unread.base, this.#released));
    const to = this.#firstOffset();
    this.release(to);
    return { from, to };
  }

  /** The journal is full of what may go, and it is all in the open segment. */
  #mustRoll(): boolean {
    const { rules } = this.#options;
    const current = this.#current;
    if (current === undefined || !this.#hasRecords(current) || !isRoomNeeded(this.#otherBytes(), rules)) return false;
    return rules.whenFull === "expire" || current.end <= this.#released;
  }

  #roll(): void {
    const current = this.#current;
    if (current === undefined) return;
    bestEffort(() => {
      // Not the prepared one: the base in its header is older, and it may soon be the only file that knows the end.
      const fresh = this.#create(current.end);
      this.#seal(current, current.end);
      this.#current = fresh;
      this.#dropPrepared();
    });
  }

  #dropPrepared(): void {
    const prepared = this.#prepared;
    if (prepared === undefined) return;
    this.#prepared = undefined;
    bestEffort(() => this.#options.disk.close(prepared.fd));
    this.#files.discard(prepared);
  }

  #create(base: Offset): OpenSegment {
    const { capacity } = this.#options.table;
    const oldest = this.#live[0]?.number ?? this.#files.nextNumber;
    if (this.#files.nextNumber - oldest >= capacity) throw new Error(`more than ${capacity} segments`);
    return { ...this.#files.create(base), base, end: base };
  }

  #openBytes(): number {
    return (this.#current?.bytes ?? 0) + (this.#prepared?.bytes ?? 0);
  }

  /** What the files beside `#live` take. */
  #otherBytes(): number {
    return this.#openBytes() + this.#files.leftoverBytes;
  }

  #firstOffset(): Offset {
    return this.#live[0]?.base ?? this.#current?.base ?? this.#durable;
  }

  #publish(): void {
    const visible = this.#current !== undefined && this.#hasRecords(this.#current) ? this.#current : undefined;
    const first = this.#live[0] ?? visible;
    const last = visible ?? this.#live.at(-1);
    const firstOffset = toOffset(Math.min(this.#firstOffset(), this.#durable));
    const segment = last?.number ?? 0;
    this.#options.head.advance({ durable: this.#durable, first: firstOffset, segment });
    this.#options.table.publish({ first: first?.number ?? 0, last: segment, firstOffset, durable: this.#durable });
  }
}
