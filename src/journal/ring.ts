// The memory between the main thread and the writer: 64 slots of 512 KiB in a SharedArrayBuffer. A slot holds one frame
// that the main thread fills and closes; the writer takes all closed slots in order and gives them back when they are
// durable. Slot of the n-th frame: n modulo 64. The main thread counts what it gets back by the writer's messages.
//
//   control, i32 words: 0 kicks: one more for each thing the writer is asked to do, notified | 1 sealed: closed frames
//
// When all slots are taken (the disk is slow or failing) frames go to ordinary memory and move up later: what was read
// from sockets before they were paused is kept, in order, without a bound of its own.

import type { Message, MessageProperties, Offset } from "../reading.ts";
import { encodeProperties } from "./properties.ts";
import { boundRecord, encodeRecord, isTimeDelta, measureRecord, type Slot } from "./record.ts";
import { closedLength, closeFrame, frameHeaderBytes, maximumFrameBytes } from "./segment.ts";

const slotCount = 64;
const kicksWord = 0;
const sealedWord = 1;

export interface RingMemory {
  readonly control: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
}

export function createRingMemory(): RingMemory {
  return { control: new SharedArrayBuffer(8), slots: new SharedArrayBuffer(slotCount * maximumFrameBytes) };
}

function toSlot(memory: ArrayBufferLike, at: number): Slot {
  return { bytes: Buffer.from(memory, at, maximumFrameBytes), view: new DataView(memory, at, maximumFrameBytes) };
}

function toSlots(memory: RingMemory): readonly Slot[] {
  return Array.from({ length: slotCount }, (_, index) => toSlot(memory.slots, index * maximumFrameBytes));
}

/** The main thread's side: fills frames. */
export class RingFiller {
  readonly #slots: readonly Slot[];
  readonly #control: Int32Array<SharedArrayBuffer>;
  /** Closed frames that found no slot, oldest first. */
  readonly #overflow: Slot[] = [];
  /** Bytes of the closed frames in the slots. */
  readonly #lengths = Array.from({ length: slotCount }, () => 0);
  #sealed = 0;
  #released = 0;
  #waitingBytes = 0;
  #slot: Slot;
  #used = frameHeaderBytes;
  #count = 0;
  #baseOffset: Offset;
  #baseTimeMs = 0;
  #encoded: { readonly properties: MessageProperties; readonly bytes: Buffer } | undefined;

  constructor(memory: RingMemory, next: Offset) {
    this.#slots = toSlots(memory);
    this.#control = new Int32Array(memory.control);
    this.#baseOffset = next;
    this.#slot = this.#chooseSlot();
  }

  /** Bytes that were filled and are not given back. */
  get bytes(): number {
    return this.#waitingBytes + (this.#count === 0 ? 0 : this.#used);
  }

  /** Adds one record with the next offset. RangeError: no frame can hold it, and nothing has changed. */
  fill(message: Message, offset: Offset, stream: number, rejection: Buffer | undefined, kindFlag = 0): void {
    const properties = message.properties === undefined ? undefined : this.#toBytes(message.properties);
    let bytes = boundRecord(message, rejection, properties);
    // A short record has no name that is too long; only a long one is worth measuring exactly.
    if (bytes > 0xffff) bytes = measureRecord(message, rejection, properties);
    let deltaMs = message.receivedAt - this.#baseTimeMs;
    if (this.#used + bytes > maximumFrameBytes || this.#count === 0 || !isTimeDelta(deltaMs)) {
      this.#closeCurrent(offset);
      this.#baseTimeMs = message.receivedAt;
      deltaMs = 0;
    }
    this.#used = encodeRecord(this.#slot, this.#used, message, stream, deltaMs, rejection, kindFlag, properties);
    this.#count += 1;
  }

  /** A device says the same of all its messages, and the connection hands over the same object for the same bytes. */
  #toBytes(properties: MessageProperties): Buffer {
    if (this.#encoded?.properties !== properties) this.#encoded = { properties, bytes: encodeProperties(properties) };
    return this.#encoded.bytes;
  }

  /** Closes the frame in hand and lets the writer see all closed frames. False: there is none. */
  submit(next: Offset): boolean {
    this.#closeCurrent(next);
    if (this.#sealed === this.#released) return false;
    this.kick();
    return true;
  }

  /** Wakes the writer. */
  kick(): void {
    Atomics.store(this.#control, sealedWord, this.#sealed);
    Atomics.add(this.#control, kicksWord, 1);
    Atomics.notify(this.#control, kicksWord);
  }

  /** The oldest `frames` are durable: their slots are free. */
  release(frames: number): void {
    for (let left = frames; left > 0; left -= 1) {
      this.#waitingBytes -= this.#lengths[this.#released % slotCount] ?? 0;
      this.#released += 1;
    }
    while (this.#overflow.length > 0 && this.#hasFreeSlot()) {
      const waiting = this.#overflow.shift();
      if (waiting !== undefined) this.#seal(waiting.bytes);
    }
  }

  #hasFreeSlot(): boolean {
    return this.#sealed - this.#released < slotCount;
  }

  #slotAt(frame: number): Slot {
    const slot = this.#slots[frame % slotCount];
    if (slot === undefined) throw new RangeError(`no slot for frame ${frame}`);
    return slot;
  }

  #chooseSlot(): Slot {
    const inRing = this.#overflow.length === 0 && this.#hasFreeSlot();
    return inRing ? this.#slotAt(this.#sealed) : toSlot(new ArrayBuffer(maximumFrameBytes), 0);
  }

  #closeCurrent(next: Offset): void {
    if (this.#count > 0) {
      const { bytes } = this.#slot;
      const frame = {
        rawLength: this.#used,
        count: this.#count,
        baseOffset: this.#baseOffset,
        baseTimeMs: this.#baseTimeMs,
      };
      closeFrame(bytes, frame);
      if (this.#overflow.length === 0 && this.#hasFreeSlot()) this.#seal(bytes);
      else this.#overflow.push(this.#slot);
      this.#waitingBytes += closedLength(bytes);
      this.#slot = this.#chooseSlot();
      this.#used = frameHeaderBytes;
      this.#count = 0;
    }
    this.#baseOffset = next;
  }

  /** Puts a closed frame in its slot, where it may already be. */
  #seal(frame: Buffer): void {
    const { bytes } = this.#slotAt(this.#sealed);
    const length = closedLength(frame);
    if (frame.buffer !== bytes.buffer) frame.copy(bytes, 0, 0, length);
    this.#lengths[this.#sealed % slotCount] = length;
    this.#sealed += 1;
  }
}

/** The writer's side: takes closed frames. */
export class RingDrain {
  readonly #slots: readonly Slot[];
  readonly #control: Int32Array<SharedArrayBuffer>;
  #taken = 0;

  constructor(memory: RingMemory) {
    this.#slots = toSlots(memory);
    this.#control = new Int32Array(memory.control);
  }

  get kicks(): number {
    return Atomics.load(this.#control, kicksWord);
  }

  /** Blocks until `kicks` is no longer `seen`, or the time is over. */
  wait(seen: number, timeoutMs: number): void {
    Atomics.wait(this.#control, kicksWord, seen, timeoutMs);
  }

  /** All closed frames that were not taken before, oldest first. They stay as they are until the main thread is told. */
  take(): Buffer[] {
    const frames: Buffer[] = [];
    const sealed = Atomics.load(this.#control, sealedWord);
    // The shared word wraps at 32 bits, after weeks of full load.
    for (; (this.#taken | 0) !== sealed; this.#taken += 1) {
      const slot = this.#slots[this.#taken % slotCount];
      if (slot !== undefined) frames.push(slot.bytes.subarray(0, closedLength(slot.bytes)));
    }
    return frames;
  }
}
