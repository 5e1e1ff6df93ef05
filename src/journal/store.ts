// The segments on disk and everything that changes them: commit, the next segment ahead of need, trim. Synchronous: the
// writer thread calls it, one thing at a time. Recovery has found the segments that it starts with.
//
// Order, for P1: header written and synced → directory synced → frames written → frames synced → table → durable.
// After a failed write or sync the file is closed and its pages are never synced again: the kernel may have marked them
// clean without writing them. The same frames go to a fresh segment, whose base tells recovery that the old copy is void.

import { join } from "node:path";
import { toOffset, type Offset } from "../reading.ts";
import type { Disk } from "./disk.ts";
import type { Head } from "./head.ts";
import { encodeSegmentHeader, readStart, stampFrame, toFrameSeed, toSegmentName } from "./segment.ts";
import type { SegmentTable } from "./table.ts";

const freshTries = 2;
const prepareAt = 0.75;

/** A segment that readers can see: `bytes` and `end` are durable. */
export interface LiveSegment {
  readonly number: number;
  readonly base: Offset;
  readonly end: Offset;
  readonly bytes: number;
}

export interface StoreOptions {
  readonly dir: string;
  readonly disk: Disk;
  readonly table: SegmentTable;
  /** Closed with the store. */
  readonly head: Head;
  readonly journalId: string;
  readonly epoch: number;
  readonly streams: readonly string[];
  readonly segmentBytes: number;
  readonly nextNumber: number;
  /** Oldest first; none of them is written to again. */
  readonly segments: readonly LiveSegment[];
  /** Everything below it is durable in `segments`. */
  readonly durable: Offset;
}

/** What the main thread shows and decides by. */
export interface StoreFigures {
  /** Sum of the lengths of the segment files. */
  readonly bytes: number;
  readonly segments: number;
  readonly firstOffset: Offset;
  /** A trim to this offset or above deletes something; Infinity: nothing can be deleted. */
  readonly trimmable: number;
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
  readonly #seed: number;
  readonly #live: LiveSegment[];
  #durable: Offset;
  #nextNumber: number;
  #commit = 0;
  /** Takes the next commit. Not in `#live`; in the table from its first durable record on. */
  #current: OpenSegment | undefined;
  /** Created ahead of need. */
  #prepared: OpenSegment | undefined;

  constructor(options: StoreOptions) {
    this.#options = options;
    this.#seed = toFrameSeed(options.journalId);
    this.#live = [...options.segments];
    this.#durable = options.durable;
    this.#nextNumber = options.nextNumber;
    for (const { number, base, end, bytes } of options.segments) {
      options.table.add({ number, sealed: true, baseOffset: base, durableBytes: bytes, endOffset: end });
    }
    this.#publish();
  }

  get durable(): Offset {
    return this.#durable;
  }

  get figures(): StoreFigures {
    const [first] = this.#live;
    const open = [this.#current, this.#prepared].filter((segment) => segment !== undefined);
    const last = this.#live.length === 1 && this.#current === undefined;
    return {
      bytes: [...this.#live, ...open].reduce((sum, { bytes }) => sum + bytes, 0),
      segments: this.#live.length + open.length,
      firstOffset: this.#firstOffset(),
      trimmable: first === undefined || last ? Infinity : first.end,
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
   * them in the open segment and in two fresh ones: nothing of them counts, and they may be given again.
   */
  commit(frames: readonly Buffer[], to: Offset): void {
    this.#commit += 1;
    for (const [index, frame] of frames.entries()) {
      const stamp = { epoch: this.#options.epoch, commit: this.#commit, lastOfCommit: index === frames.length - 1 };
      stampFrame(frame, stamp, this.#seed);
    }
    for (let failures = 0; ; failures += 1) {
      try {
        this.#write(frames, to);
        return;
      } catch (error) {
        this.#abandon();
        if (failures === freshTries) throw error;
      }
    }
  }

  /** Creates the next segment when the open one is nearly full. A refusal shows at the commit that needs it. */
  prepare(): void {
    const current = this.#current;
    if (this.#prepared !== undefined || current === undefined) return;
    if (current.bytes < prepareAt * this.#options.segmentBytes) return;
    try {
      this.#prepared = this.#create(current.end);
    } catch {
      this.#prepared = undefined;
    }
  }

  /**
   * Deletes the segments whose records are all below. `roll`: also ends the open one if it is among them, so that a full
   * journal whose records are all in one segment has a way out.
   */
  trim(below: Offset, roll: boolean): void {
    if (roll && this.#current !== undefined && this.#current.end > this.#current.base && this.#current.end <= below) {
      this.#roll();
    }
    const trimmed: LiveSegment[] = [];
    for (let [first] = this.#live; first !== undefined; [first] = this.#live) {
      // The last file with the journal's id and end must stay.
      const isLast = this.#live.length === 1 && this.#current === undefined;
      if (first.end > below || isLast) break;
      this.#live.shift();
      trimmed.push(first);
    }
    // Readers learn the new beginning first, so that they know a trimmed segment from a damaged one.
    this.#publish();
    // So does the next start, before the first of them is gone.
    if (trimmed.length > 0) this.#options.head.sync();
    for (const { number } of trimmed) {
      this.#options.table.drop(number);
      this.#unlink(number);
    }
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
    if (written !== bytes) throw new Error(`short write: ${written} of ${bytes} B`);
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
    this.#live.push({ number: current.number, base: current.base, end, bytes: current.bytes });
    this.#current = undefined;
  }

  /** After a failed write: the open segment keeps what was durable, or goes. */
  #abandon(): void {
    const current = this.#current;
    if (current === undefined) return;
    const { disk, table } = this.#options;
    this.#current = undefined;
    bestEffort(() => disk.close(current.fd));
    if (!this.#hasRecords(current)) {
      this.#unlink(current.number);
      return;
    }
    // When the disk refuses this too, the base of the next segment tells that the rest is void.
    bestEffort(() => disk.truncate(this.#path(current.number), current.bytes));
    table.seal(current.number, current.end);
    this.#live.push({ number: current.number, base: current.base, end: current.end, bytes: current.bytes });
  }

  #roll(): void {
    const current = this.#current;
    if (current === undefined) return;
    try {
      // Not the prepared one: the base in its header is older, and it may soon be the only file that knows the end.
      const fresh = this.#create(current.end);
      this.#seal(current, current.end);
      this.#current = fresh;
    } catch {
      return;
    }
    this.#dropPrepared();
  }

  #dropPrepared(): void {
    const prepared = this.#prepared;
    if (prepared === undefined) return;
    this.#prepared = undefined;
    bestEffort(() => this.#options.disk.close(prepared.fd));
    this.#unlink(prepared.number);
  }

  #create(base: Offset): OpenSegment {
    const { disk, dir, journalId, epoch, streams, table } = this.#options;
    const oldest = this.#live[0]?.number ?? this.#nextNumber;
    if (this.#nextNumber - oldest >= table.capacity) throw new Error(`more than ${table.capacity} segments`);
    const number = this.#nextNumber;
    const header = encodeSegmentHeader({ number, journalId, createdMs: Date.now(), baseOffset: base, epoch, streams });
    let fd: number;
    try {
      fd = disk.create(this.#path(number));
      this.#nextNumber += 1;
    } catch (error) {
      // What could not be deleted after an earlier failure keeps its number.
      if (isExisting(error)) this.#nextNumber += 1;
      throw error;
    }
    try {
      if (disk.write(fd, [header], 0) !== header.length) throw new Error("short write of a segment header");
      disk.sync(fd);
      disk.syncDir(dir);
    } catch (error) {
      bestEffort(() => disk.close(fd));
      this.#unlink(number);
      throw error;
    }
    return { number, fd, base, end: base, bytes: header.length };
  }

  #unlink(number: number): void {
    const removed = bestEffort(() => this.#options.disk.unlink(this.#path(number)));
    // Background tries must not use up the numbers, whose span is bounded by the table.
    if (removed && number === this.#nextNumber - 1) this.#nextNumber = number;
  }

  #path(number: number): string {
    return join(this.#options.dir, toSegmentName(number));
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

const isExisting = (error: unknown): boolean => error instanceof Error && "code" in error && error.code === "EEXIST";

function bestEffort(action: () => void): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}
