// Reads the journal's files as far as they are durable, from any thread: each consumer has its own reader in its own
// worker. File access is synchronous. A reader knows of segments by the writer's table only, never by the file system.

import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { toOffset, type Offset } from "../reading.ts";
import { FrameFile } from "./frame-file.ts";
import { NameCache } from "./names.ts";
import { decodeRecord, isRejected, recordLength, type JournalEntry, type RecordContext, type Slot } from "./record.ts";
import {
  frameAlignment,
  frameHeaderBytes,
  maximumHeaderBytes,
  parseFrame,
  parseSegmentHeader,
  segmentHeaderBytes,
  toFrameSeed,
  toSegmentName,
  type Frame,
} from "./segment.ts";
import { SegmentTable, type SegmentEntry } from "./table.ts";

const chunkBytes = 1024 * 1024;
const noChunk: Slot = { bytes: Buffer.alloc(0), view: new DataView(new ArrayBuffer(0)) };

/** What a thread needs to read a journal; can be posted to a worker. */
export interface JournalShare {
  readonly dir: string;
  /** The gateway id. */
  readonly id: string;
  readonly table: SharedArrayBuffer;
}

/** Records from `from` up to, not including, `to` that the reader passed without yielding them. */
export interface LostRange {
  /** damaged: the disk no longer has them as they were written. trimmed: they were deleted before they were read. */
  readonly kind: "damaged" | "trimmed";
  readonly from: Offset;
  readonly to: Offset;
}

export interface ReadLimit {
  readonly records: number;
  /** Of whole records. A read yields at least one record if there is one, so that it may be passed by one. */
  readonly bytes: number;
  /** Records of other kinds are stepped over without being decoded; they count in `bytes`, and a read may yield none. */
  readonly only?: "rejected";
}

export interface Reader extends Disposable {
  /** The next offset to be read. */
  readonly position: Offset;
  /** Records between `position` and the end of what is durable. */
  readonly lag: number;
  /** The last read ended because of its limit, not because nothing more was there. */
  readonly atLimit: boolean;
  /**
   * The next records in order; [] when there is none that is durable, or with `only` when `position` has moved past others.
   * Checks every frame. Throws on a failing disk.
   */
  read(limit: ReadLimit): JournalEntry[];
  /** Continues at `to`, or at the nearest offset that is there. */
  seek(to: Offset): void;
  /** Resolves when there may be more to read, and on timeout or abort. Call it after a `read`; one call at a time. */
  wait(signal: AbortSignal, timeoutMs: number): Promise<void>;
}

/** `onLost` is called from `read`, before the first record behind the range. */
export function openReader(share: JournalShare, from: Offset, onLost?: (range: LostRange) => void): Reader {
  return new SegmentReader(share, from, onLost ?? (() => {}));
}

interface OpenFile {
  readonly number: number;
  readonly fd: number;
  /** Of the next frame. */
  position: number;
}

/** A frame while its records are read. */
interface FrameInHand {
  readonly context: RecordContext;
  /** Of the end of its records in the chunk. */
  readonly end: number;
  /** Of the next record, in the chunk and in the journal. */
  at: number;
  offset: number;
}

class SegmentReader implements Reader {
  readonly #dir: string;
  readonly #seed: number;
  readonly #table: SegmentTable;
  readonly #onLost: (range: LostRange) => void;
  /** By epoch: a run's table is the same in all its segments. */
  readonly #streams = new Map<number, readonly string[]>();
  #position: Offset;
  #atLimit = false;
  #seenCommits = 0;
  /** The value of `commits` whose change is already waited for. */
  #awaitedCommits: number | undefined;
  #wake: (() => void) | undefined;
  #file: OpenFile | undefined;
  #inHand: FrameInHand | undefined;
  readonly #names = new NameCache();
  #chunk: Slot = noChunk;
  /** Where the chunk begins in the file. */
  #chunkAt = 0;

  constructor(share: JournalShare, from: Offset, onLost: (range: LostRange) => void) {
    this.#dir = share.dir;
    this.#seed = toFrameSeed(share.id);
    this.#table = new SegmentTable(share.table);
    this.#onLost = onLost;
    this.#position = this.#clamp(from);
  }

  get position(): Offset {
    return this.#position;
  }

  get lag(): number {
    return Math.max(0, this.#table.durable - this.#position);
  }

  get atLimit(): boolean {
    return this.#atLimit;
  }

  seek(to: Offset): void {
    this.#leave();
    this.#position = this.#clamp(to);
  }

  read(limit: ReadLimit): JournalEntry[] {
    this.#seenCommits = this.#table.commits;
    const durable = this.#table.durable;
    const entries: JournalEntry[] = [];
    let room = limit.bytes;
    while (entries.length < limit.records && room > 0 && this.#position < durable) {
      this.#inHand ??= this.#nextFrame(durable);
      if (this.#inHand === undefined) break;
      room = this.#take(this.#inHand, entries, limit, room, durable);
    }
    this.#atLimit = entries.length >= limit.records || room <= 0;
    return entries;
  }

  async wait(signal: AbortSignal, timeoutMs: number): Promise<void> {
    if (signal.aborted || this.lag > 0 || !this.#watch()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const stop = (): void => resolve();
    // The timer keeps the thread alive, which the promise of Atomics.waitAsync does not.
    const timer = setTimeout(stop, timeoutMs);
    signal.addEventListener("abort", stop);
    await promise;
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    this.#wake = undefined;
  }

  [Symbol.dispose](): void {
    this.#leave();
  }

  /**
   * False: something has changed since the last read. One Atomics.waitAsync is pending at a time: each would stay until
   * the next commit, however often `wait` times out.
   */
  #watch(): boolean {
    const seen = this.#seenCommits;
    if (this.#table.commits !== seen) return false;
    if (this.#awaitedCommits === seen) return true;
    const change = this.#table.changed(seen);
    if (change === undefined) return false;
    this.#awaitedCommits = seen;
    void this.#wakeOn(change, seen);
    return true;
  }

  async #wakeOn(change: Promise<unknown>, seen: number): Promise<void> {
    await change;
    if (this.#awaitedCommits === seen) this.#awaitedCommits = undefined;
    this.#wake?.();
  }

  #clamp(offset: Offset): Offset {
    return toOffset(Math.max(this.#table.firstOffset, Math.min(offset, this.#table.durable)));
  }

  /** Reads records of the frame up to a limit; returns the room that is left. */
  #take(inHand: FrameInHand, entries: JournalEntry[], limit: ReadLimit, roomBytes: number, durable: Offset): number {
    const chunk = this.#chunk;
    const { context, end } = inHand;
    const { records } = limit;
    const all = limit.only === undefined;
    let room = roomBytes;
    let { at, offset } = inHand;
    while (at < end && offset < durable && entries.length < records && room > 0) {
      const length = recordLength(chunk.view, at);
      if (offset >= this.#position) {
        if (all || isRejected(chunk.view, at)) entries.push(decodeRecord(chunk, at, toOffset(offset), context));
        room -= length;
      }
      at += length;
      offset += 1;
    }
    inHand.at = at;
    inHand.offset = offset;
    if (offset > this.#position) this.#position = toOffset(offset);
    if (at >= end) this.#inHand = undefined;
    return room;
  }

  /** The frame that holds `position`, or the next there is; undefined: none is durable. */
  #nextFrame(durable: Offset): FrameInHand | undefined {
    while (this.#position < durable) {
      this.#file ??= this.#enter(durable);
      if (this.#file === undefined) return undefined;
      const entry = this.#table.read(this.#file.number);
      if (entry === undefined) {
        this.#leave();
        continue;
      }
      const frame = this.#frameAt(this.#file, entry);
      if (frame !== undefined && this.#belongs(frame, entry)) {
        const inHand = this.#grasp(this.#file, frame);
        if (inHand !== undefined) return inHand;
      } else if (entry.sealed) {
        this.#lose("damaged", entry.endOffset);
        this.#leave();
      } else {
        // All of the open segment is read and still something below `durable` is missing: a gap that recovery left.
        this.#lose("damaged", durable);
      }
    }
    return undefined;
  }

  #belongs(frame: Frame, entry: SegmentEntry): boolean {
    return !entry.sealed || frame.baseOffset < entry.endOffset;
  }

  /** Steps over the frame; undefined when all of it lies below `position`. */
  #grasp(file: OpenFile, frame: Frame): FrameInHand | undefined {
    const start = file.position - this.#chunkAt;
    file.position += frame.length;
    if (frame.baseOffset + frame.count <= this.#position) return undefined;
    this.#lose("damaged", frame.baseOffset);
    return {
      context: { baseTimeMs: frame.baseTimeMs, streams: this.#streamsOf(frame.epoch), names: this.#names },
      end: start + frame.rawLength,
      at: start + frameHeaderBytes,
      offset: frame.baseOffset,
    };
  }

  /** The valid frame at the file's position, or the first behind it, to which the position then moves. */
  #frameAt(file: OpenFile, { durableBytes, baseOffset }: SegmentEntry): Frame | undefined {
    if (file.position >= durableBytes) return undefined;
    const inChunk = parseFrame(this.#chunk.bytes, file.position - this.#chunkAt, this.#seed);
    if (inChunk !== undefined) return inChunk;
    this.#load(file, Math.min(chunkBytes, durableBytes - file.position));
    const loaded = parseFrame(this.#chunk.bytes, 0, this.#seed);
    if (loaded !== undefined) return loaded;
    const frames = new FrameFile(file.fd, durableBytes, this.#seed);
    const found = frames.find(file.position + frameAlignment, baseOffset);
    file.position = found?.at ?? durableBytes;
    if (found !== undefined) this.#load(file, found.frame.length);
    return found?.frame;
  }

  #load(file: OpenFile, bytes: number): void {
    // A new buffer each time: the entries that were yielded are views of the old one.
    const whole = Buffer.allocUnsafeSlow(bytes);
    const chunk = whole.subarray(0, readSync(file.fd, whole, 0, bytes, file.position));
    this.#chunk = { bytes: chunk, view: new DataView(chunk.buffer, 0, chunk.length) };
    this.#chunkAt = file.position;
  }

  /** Opens the segment that holds `position`, or the next one there is. */
  #enter(durable: Offset): OpenFile | undefined {
    const { last } = this.#table;
    for (let number = this.#table.first; number !== 0 && number <= last; number += 1) {
      const entry = this.#table.read(number);
      if (entry === undefined || (entry.sealed && entry.endOffset <= this.#position)) continue;
      const fd = this.#open(number);
      if (fd === undefined) continue;
      this.#lose(this.#position < this.#table.firstOffset ? "trimmed" : "damaged", entry.baseOffset);
      return { number, fd, position: this.#readHeader(fd) ?? segmentHeaderBytes };
    }
    this.#lose(this.#position < this.#table.firstOffset ? "trimmed" : "damaged", durable);
    return undefined;
  }

  /** Undefined: the segment was trimmed meanwhile. */
  #open(number: number): number | undefined {
    try {
      return openSync(join(this.#dir, toSegmentName(number)), "r");
    } catch (error) {
      if (this.#table.read(number) !== undefined) throw error;
      return undefined;
    }
  }

  /** Keeps the stream table; returns where frames begin, or undefined when the header is damaged. */
  #readHeader(fd: number): number | undefined {
    const bytes = Buffer.alloc(maximumHeaderBytes);
    const parsed = parseSegmentHeader(bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0)));
    if (parsed.kind !== "header") return undefined;
    this.#streams.set(parsed.header.epoch, parsed.header.streams);
    return parsed.length;
  }

  /** The stream table of a run: of this segment's header, or when that is damaged of another segment of the same run. */
  #streamsOf(epoch: number): readonly string[] {
    const { last } = this.#table;
    for (let number = this.#table.first; number <= last && !this.#streams.has(epoch); number += 1) {
      const fd = this.#table.read(number) === undefined ? undefined : this.#open(number);
      if (fd === undefined) continue;
      this.#readHeader(fd);
      closeSync(fd);
    }
    return this.#streams.get(epoch) ?? [];
  }

  #leave(): void {
    if (this.#file !== undefined) closeSync(this.#file.fd);
    this.#file = undefined;
    this.#inHand = undefined;
    this.#chunk = noChunk;
    this.#chunkAt = 0;
  }

  /** Passes what is missing up to `to`, if anything. */
  #lose(kind: LostRange["kind"], to: Offset): void {
    if (to <= this.#position) return;
    const from = this.#position;
    this.#position = to;
    this.#onLost({ kind, from, to });
  }
}
