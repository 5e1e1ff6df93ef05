// The names of a record (client id, topic, device id) come again with every message of a device. A reader keeps the
// strings of the last ones by their bytes: one comparison instead of two or three decodings, which are half of what
// reading a record costs (bench/journal.ts, "read").

import type { Slot } from "./record.ts";

const entryCount = 8192;
/** Longer names are decoded each time. */
const longestKeyBytes = 192;

export interface Names {
  readonly clientId: string;
  readonly topic: string;
  readonly deviceId: string;
}

interface Entry extends Names {
  /** Lengths of client id and topic, as they stand in the record. */
  readonly lengths: number;
  readonly key: Slot;
}

/** One per reader. Each name has two places; a third that falls on them replaces the older. */
export class NameCache {
  readonly #entries: (Entry | undefined)[] = Array.from({ length: entryCount });

  /**
   * Names that stand in `slot` from `start` to `end`: client id, topic, and if there is more, the u16 length and the
   * bytes of the device id. `lengths` is the u32 of client id length and topic length, both u16.
   */
  read(slot: Slot, start: number, end: number, lengths: number): Names {
    const length = end - start;
    if (length > longestKeyBytes || length < 4) return decode(slot.bytes, start, end, lengths);
    const { view } = slot;
    let hash = lengths;
    for (let at = start; at <= end - 4; at += 4) hash = mix(hash, view.getUint32(at, true));
    hash = mix(hash, view.getUint32(end - 4, true));
    const index = (hash ^ (hash >>> 16)) & (entryCount - 1);
    const first = this.#entries[index];
    if (first !== undefined && first.lengths === lengths && isEqual(first.key, view, start, length)) return first;
    const second = this.#entries[index ^ 1];
    if (second !== undefined && second.lengths === lengths && isEqual(second.key, view, start, length)) return second;
    const names = decode(slot.bytes, start, end, lengths);
    const bytes = Buffer.from(slot.bytes.subarray(start, end));
    const key: Slot = { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, length) };
    this.#entries[index ^ 1] = first;
    this.#entries[index] = { ...names, lengths, key };
    return names;
  }
}

/** FxHash's step; the rotation brings what differs in high bits back to where a multiplication spreads it. */
function mix(hash: number, word: number): number {
  return Math.imul(((hash << 5) | (hash >>> 27)) ^ word, 0x9e3779b1);
}

/** Both are at least 4 bytes long; the last step overlaps the one before. */
function isEqual(key: Slot, view: DataView, start: number, length: number): boolean {
  if (key.bytes.length !== length) return false;
  for (let at = 0; at <= length - 4; at += 4) {
    if (key.view.getUint32(at, true) !== view.getUint32(start + at, true)) return false;
  }
  return key.view.getUint32(length - 4, true) === view.getUint32(start + length - 4, true);
}

function decode(bytes: Buffer, start: number, end: number, lengths: number): Names {
  const topicAt = start + (lengths & 0xffff);
  const topicEnd = topicAt + (lengths >>> 16);
  const clientId = bytes.toString("utf8", start, topicAt);
  const topic = bytes.toString("utf8", topicAt, topicEnd);
  return { clientId, topic, deviceId: topicEnd === end ? clientId : bytes.toString("utf8", topicEnd + 2, end) };
}
