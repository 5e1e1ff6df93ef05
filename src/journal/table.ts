// What the writer shares with every reader: how far the journal is durable, and which segments exist. Only the writer
// stores; it does so after fdatasync, fields first and `durable` last, so that whoever loads `durable` and then an entry
// sees at least the bytes below it. Readers never rely on the existence of files.
//
//    0  i32 commits: one more at each change, notified | 4 zero | 8 i64 durable | 16 i64 firstOffset
//   24  i64 first segment, 0: none | 32 i64 last segment | 40 zeros
//   64  entry per segment number modulo capacity, 5 × i64: number, state, baseOffset, durableBytes, endOffset

import { toOffset, type Offset } from "../reading.ts";

const commitsWord = 0;
const durableIndex = 1;
const firstOffsetIndex = 2;
const firstIndex = 3;
const lastIndex = 4;
const headerBytes = 64;
const entryFields = 5;
const stateFree = 0n;
const stateOpen = 1n;
const stateSealed = 2n;

export interface SegmentEntry {
  readonly number: number;
  /** No byte is added and `endOffset` stays. */
  readonly sealed: boolean;
  readonly baseOffset: Offset;
  /** Bytes of the file that a reader may look at. */
  readonly durableBytes: number;
  /** Records at or above it are not this segment's, even when the file has some. */
  readonly endOffset: Offset;
}

export class SegmentTable {
  readonly buffer: SharedArrayBuffer;
  readonly capacity: number;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #fields: BigInt64Array<SharedArrayBuffer>;

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, 2);
    this.#fields = new BigInt64Array(buffer);
    this.capacity = (buffer.byteLength - headerBytes) / (entryFields * 8);
  }

  /** Numbers of live segments must lie within `capacity` of each other. */
  static create(capacity: number): SegmentTable {
    return new SegmentTable(new SharedArrayBuffer(headerBytes + capacity * entryFields * 8));
  }

  get durable(): Offset {
    return toOffset(this.#load(durableIndex));
  }

  /** Of the oldest live segment; `durable` when there is none. */
  get firstOffset(): Offset {
    return toOffset(this.#load(firstOffsetIndex));
  }

  /** Number of the oldest live segment; 0: none. */
  get first(): number {
    return this.#load(firstIndex);
  }

  get last(): number {
    return this.#load(lastIndex);
  }

  /** Changes with every commit and trim. */
  get commits(): number {
    return Atomics.load(this.#words, commitsWord);
  }

  /** Settles when `commits` is no longer `seen`; undefined: it is not now. It does not keep a process alive. */
  changed(seen: number): Promise<unknown> | undefined {
    const waiting = Atomics.waitAsync(this.#words, commitsWord, seen);
    return waiting.async ? waiting.value : undefined;
  }

  /** Undefined: the segment is trimmed, or not there yet. */
  read(number: number): SegmentEntry | undefined {
    const at = this.#indexOf(number);
    const wanted = BigInt(number);
    if (Atomics.load(this.#fields, at) !== wanted) return undefined;
    const state = Atomics.load(this.#fields, at + 1);
    const entry: SegmentEntry = {
      number,
      sealed: state === stateSealed,
      baseOffset: toOffset(this.#load(at + 2)),
      endOffset: toOffset(this.#load(at + 4)),
      durableBytes: this.#load(at + 3),
    };
    // The place may have been given to another segment meanwhile; numbers are never used twice.
    return Atomics.load(this.#fields, at) === wanted && state !== stateFree ? entry : undefined;
  }

  /** Of the files, from a position on: exact at the bounds of segments, in proportion within one. */
  bytesFrom(position: Offset): number {
    let bytes = 0;
    for (let number = this.last; number > 0 && number >= this.first; number -= 1) {
      const entry = this.read(number);
      if (entry === undefined) continue;
      const records = entry.endOffset - entry.baseOffset;
      const wanted = entry.endOffset - Math.max(position, entry.baseOffset);
      if (records > 0 && wanted > 0) bytes += Math.round((entry.durableBytes * wanted) / records);
      if (entry.baseOffset <= position) break;
    }
    return bytes;
  }

  /** Writer: adds a segment. It becomes the last; `publish` makes the change known. */
  add(entry: SegmentEntry): void {
    const at = this.#indexOf(entry.number);
    this.#store(at, 0);
    this.#store(at + 2, entry.baseOffset);
    this.#store(at + 3, entry.durableBytes);
    this.#store(at + 4, entry.endOffset);
    Atomics.store(this.#fields, at + 1, entry.sealed ? stateSealed : stateOpen);
    this.#store(at, entry.number);
  }

  /** Writer: the open segment has grown. */
  extend(number: number, durableBytes: number, endOffset: Offset): void {
    const at = this.#indexOf(number);
    this.#store(at + 3, durableBytes);
    this.#store(at + 4, endOffset);
  }

  /** Writer: nothing more comes. `endOffset` is the base of what follows. */
  seal(number: number, endOffset: Offset): void {
    const at = this.#indexOf(number);
    this.#store(at + 4, endOffset);
    Atomics.store(this.#fields, at + 1, stateSealed);
  }

  /** Writer: the segment is about to be deleted. */
  drop(number: number): void {
    const at = this.#indexOf(number);
    Atomics.store(this.#fields, at + 1, stateFree);
    this.#store(at, 0);
  }

  /** Writer: makes everything known that changed before, and wakes the readers. */
  publish(range: { first: number; last: number; firstOffset: Offset; durable: Offset }): void {
    this.#store(firstIndex, range.first);
    this.#store(lastIndex, range.last);
    this.#store(firstOffsetIndex, range.firstOffset);
    this.#store(durableIndex, range.durable);
    Atomics.add(this.#words, commitsWord, 1);
    Atomics.notify(this.#words, commitsWord);
  }

  #indexOf(number: number): number {
    return headerBytes / 8 + (number % this.capacity) * entryFields;
  }

  #load(index: number): number {
    return Number(Atomics.load(this.#fields, index));
  }

  #store(index: number, value: number): void {
    Atomics.store(this.#fields, index, BigInt(value));
  }
}
