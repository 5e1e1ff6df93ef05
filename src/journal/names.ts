// The names of a record (client id, topic, device id) come again with every message of a device. A reader keeps the
// strings of the last ones by their bytes: one comparison instead of two or three decodings, which are half of what
// reading a record costs (`npm run bench -- journal`, "read back"). The bytes stand side by side in one memory, so that
// a comparison costs one cache line or two, and not the way through an object for each key.
//
//   keys, entryBytes for each entry: 0 hash u32 | 4 lengths u32, as in the record | 8 length of the names u32 | 12 the names

import type { Slot } from "./record.ts";

const entryCount = 8192;
/** Each name has as many places to stand in. */
const ways = 4;
const entryBytes = 192;
const keyHeaderBytes = 12;
/** Longer names are decoded each time. */
const longestKeyBytes = entryBytes - keyHeaderBytes;

export interface Names {
  readonly clientId: string;
  readonly topic: string;
  readonly deviceId: string;
}

/** One per reader. */
export class NameCache {
  readonly #entries: (Names | undefined)[] = Array.from({ length: entryCount });
  readonly #keys = Buffer.alloc(entryCount * entryBytes);
  readonly #view = new DataView(this.#keys.buffer, this.#keys.byteOffset);
  /** Which of its places the next new name takes. */
  #way = 0;

  /**
   * Names that stand in `slot` from `start` to `end`: client id, topic, and if there is more, the u16 length and the
   * bytes of the device id. `lengths` is the u32 of client id length and topic length, both u16.
   */
  read({ bytes, view }: Slot, start: number, end: number, lengths: number): Names {
    const length = end - start;
    if (length > longestKeyBytes || length < 4) return decode(bytes, start, end, lengths);
    const hash = toHash(view, start, end, lengths);
    const home = hash & (entryCount - 1);
    for (let way = 0; way < ways; way += 1) {
      const index = home ^ way;
      const names = this.#entries[index];
      if (names !== undefined && this.#isKey(index, hash, view, start, length, lengths)) return names;
    }
    const names = decode(bytes, start, end, lengths);
    this.#way = (this.#way + 1) % ways;
    this.#keep(home ^ this.#way, hash, lengths, bytes.subarray(start, end), names);
    return names;
  }

  #keep(index: number, hash: number, lengths: number, key: Buffer, names: Names): void {
    const at = index * entryBytes;
    this.#view.setInt32(at, hash, true);
    this.#view.setInt32(at + 4, lengths, true);
    this.#view.setInt32(at + 8, key.length, true);
    this.#keys.set(key, at + keyHeaderBytes);
    this.#entries[index] = names;
  }

  /** Names are at least 4 bytes long; the last step overlaps the one before. */
  #isKey(index: number, hash: number, view: DataView, start: number, length: number, lengths: number): boolean {
    const keys = this.#view;
    const at = index * entryBytes;
    if (keys.getInt32(at, true) !== hash) return false;
    if (keys.getInt32(at + 4, true) !== lengths || keys.getInt32(at + 8, true) !== length) return false;
    const offset = at + keyHeaderBytes - start;
    const last = start + length - 4;
    for (let next = start; next < last; next += 4) {
      if (keys.getInt32(next + offset, true) !== view.getInt32(next, true)) return false;
    }
    return keys.getInt32(last + offset, true) === view.getInt32(last, true);
  }
}

/** FxHash's step; the rotation brings what differs in high bits back to where a multiplication spreads it. */
function toHash(view: DataView, start: number, end: number, lengths: number): number {
  let hash = lengths;
  const last = end - 4;
  for (let at = start; at < last; at += 4) hash = mix(hash, view.getInt32(at, true));
  hash = mix(hash, view.getInt32(last, true));
  return hash ^ (hash >>> 16);
}

function mix(hash: number, word: number): number {
  return Math.imul(((hash << 5) | (hash >>> 27)) ^ word, 0x9e3779b1);
}

function decode(bytes: Buffer, start: number, end: number, lengths: number): Names {
  const topicAt = start + (lengths & 0xffff);
  const topicEnd = topicAt + (lengths >>> 16);
  const clientId = bytes.toString("utf8", start, topicAt);
  const topic = bytes.toString("utf8", topicAt, topicEnd);
  return { clientId, topic, deviceId: topicEnd === end ? clientId : bytes.toString("utf8", topicEnd + 2, end) };
}
