// The frames of a segment file, seen through a window of bounded size: a file may be 1 GiB long. The one mechanism of
// recovery, of the tools and of a reader's search behind damage. Synchronous.

import { readSync } from "node:fs";
import type { Offset } from "../reading.ts";
import {
  align,
  claimedLength,
  frameAlignment,
  frameHeaderBytes,
  frameMagicBytes,
  maximumFrameBytes,
  parseFrame,
  type Frame,
} from "./segment.ts";

/** Enough for a header and the frames of a quiet journal. */
const peekBytes = 64 * 1024;

/** What stands in a file, in order and without gaps. */
export type Scanned =
  | { readonly kind: "frame"; readonly at: number; readonly frame: Frame }
  /** No frame, up to the next one, or up to the end of the file. */
  | { readonly kind: "damaged"; readonly at: number; readonly to: number };

export interface PlacedFrame {
  readonly at: number;
  readonly frame: Frame;
}

export class FrameFile {
  /** Where the file ends for this object. */
  readonly size: number;
  readonly #fd: number;
  readonly #seed: number;
  readonly #searchBytes: number;
  #window: Buffer = Buffer.alloc(0);
  /** Where the window begins in the file. */
  #windowAt = 0;
  #memory: Buffer = Buffer.alloc(0);

  /** Reads of `fd`, which the caller closes, up to `size`. The seed is `toFrameSeed` of the journal's id. */
  constructor(fd: number, size: number, seed: number, searchBytes = 4 * 1024 * 1024) {
    this.#fd = fd;
    this.size = size;
    this.#seed = seed;
    this.#searchBytes = searchBytes;
  }

  /** The valid frame at `at`. */
  frameAt(at: number): Frame | undefined {
    return this.#frameAt(at, peekBytes);
  }

  /** A copy of bytes of the file: fewer when it ends. */
  copy(at: number, length: number): Buffer {
    this.#load(at, length, length);
    const start = at - this.#windowAt;
    return Buffer.from(this.#window.subarray(start, start + length));
  }

  /** The first valid frame at or behind `from` whose records lie at or above `lowest`. */
  find(from: number, lowest: number): PlacedFrame | undefined {
    let at = align(from);
    while (at + frameHeaderBytes <= this.size) {
      this.#load(at, frameHeaderBytes, this.#searchBytes);
      const end = this.#windowAt + this.#window.length;
      const index = this.#window.indexOf(frameMagicBytes, at - this.#windowAt);
      if (index === -1) {
        // A frame begins at a multiple of 8, and so does its magic: none straddles two windows.
        const behind = end - (end % frameAlignment);
        if (behind <= at) return undefined;
        at = behind;
        continue;
      }
      at = align(this.#windowAt + index);
      const frame = this.#frameAt(at, this.#searchBytes);
      if (frame !== undefined && frame.baseOffset >= lowest) return { at, frame };
      at += frameAlignment;
    }
    return undefined;
  }

  /** Whether a valid frame among the last bytes of the file ends with the record below `end`. */
  endsWith(end: Offset): boolean {
    for (const span of [peekBytes, peekBytes + maximumFrameBytes]) {
      const from = Math.max(0, align(this.size - span));
      const tail = this.copy(from, this.size - from);
      for (let at = tail.lastIndexOf(frameMagicBytes); at >= 0; at = lastBefore(tail, at)) {
        const frame = at % frameAlignment === 0 ? parseFrame(tail, at, this.#seed) : undefined;
        if (frame !== undefined && frame.baseOffset + frame.count === end) return true;
      }
      if (from === 0) return false;
    }
    return false;
  }

  /**
   * Everything from `from` on. A frame that goes back behind the one before, or below `lowest`, counts as damage: it is a
   * copy of something. After each item the caller may `copy` what stands there.
   */
  *scan(from: number, lowest: number): Generator<Scanned, void> {
    let at = from;
    let end = lowest;
    while (at < this.size) {
      let frame = this.#frameAt(at, this.#searchBytes);
      if (frame === undefined || frame.baseOffset < end) {
        const found = this.find(at + frameAlignment, end);
        yield { kind: "damaged", at, to: found?.at ?? this.size };
        if (found === undefined) return;
        ({ at, frame } = found);
      }
      yield { kind: "frame", at, frame };
      end = frame.baseOffset + frame.count;
      at += frame.length;
    }
  }

  #frameAt(at: number, chunkBytes: number): Frame | undefined {
    this.#load(at, frameHeaderBytes, chunkBytes);
    const length = claimedLength(this.#window, at - this.#windowAt);
    if (length === undefined || at + length > this.size) return undefined;
    this.#load(at, length, chunkBytes);
    return parseFrame(this.#window, at - this.#windowAt, this.#seed);
  }

  /** Moves the window to `at` when it has not the `least` bytes from there; then it has up to `chunkBytes`. */
  #load(at: number, least: number, chunkBytes: number): void {
    if (at >= this.#windowAt && at + least <= this.#windowAt + this.#window.length) return;
    const bytes = Math.max(0, Math.min(Math.max(least, chunkBytes), this.size - at));
    if (this.#memory.length < bytes) this.#memory = Buffer.allocUnsafeSlow(bytes);
    const read = bytes === 0 ? 0 : readSync(this.#fd, this.#memory, 0, bytes, at);
    this.#window = this.#memory.subarray(0, read);
    this.#windowAt = at;
  }
}

const lastBefore = (bytes: Buffer, at: number): number => (at === 0 ? -1 : bytes.lastIndexOf(frameMagicBytes, at - 1));
