// Which entries a handler has in hand, so that one that ends its worker or the process each time that it is called is known
// for it, and does not hold the handler up for ever. A file of little-endian marks, each overwritten in place:
//
//   header 32 B    magic "SLUICEH1" 8 | gateway id 16 | reserved 8
//   mark 16 B      offset + 1 as f64, 0: nothing in hand | calls begun u32: in how many lives of a worker | check u32: ~calls
//
// Marks are written without a sync: they outlive the process, which is what can be an entry's fault, and not the machine. A
// mark costs some 3 µs, and a call writes two.

import { closeSync, constants, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { toOffset } from "../reading.ts";
import type { Offset } from "../reading.ts";

const magic = "SLUICEH1";
const headerBytes = 32;
const markBytes = 16;

/** Synchronous: for worker threads. Everything throws when the disk refuses. */
export interface Hand extends Disposable {
  /** In how many lives of a worker that have ended the entry was in hand at the end. */
  endings(offset: Offset): number;
  /** Takes it in hand: from here on an end is its fault. */
  take(offset: Offset): void;
  /** It is done or parked. */
  release(offset: Offset): void;
  /** Nothing is in hand any longer, or the end that comes is not the fault of what is, but for this one. */
  forgive(except?: Offset): void;
}

export interface HandOptions {
  readonly file: string;
  /** The gateway id: marks of another journal say nothing. */
  readonly gateway: string;
  /** Entries that may be in hand at once. */
  readonly places: number;
  /** Everything below is done. */
  readonly from: Offset;
  /** The end of the last worker was nobody's fault. */
  readonly forgiven: boolean;
}

export function openHand({ file, gateway, places, from, forgiven }: HandOptions): Hand {
  mkdirSync(dirname(file), { recursive: true });
  const before = readFile(file);
  const found = forgiven ? [] : [...readMarks(before, gateway)].filter(([offset]) => offset >= from);
  /** Of lives that have ended. */
  const endings = new Map<Offset, number>(found);
  /** Entries that have been in hand keep their place until they are called. */
  const taken = new Map<Offset, number>(found.map(([offset], place) => [offset, place]));
  const all = Buffer.alloc(Math.max(before.length, headerBytes + (places + found.length) * markBytes));
  all.write(magic, "latin1");
  all.write(gateway.slice(0, 32), magic.length, "hex");
  for (const [place, [offset, calls]] of found.entries())
    toMark(offset, calls).copy(all, headerBytes + place * markBytes);
  const free = Array.from({ length: places }, (_, index) => found.length + index);
  // In place: a disk that is full takes what it has room for already.
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT);
  writeSync(fd, all);
  const empty = Buffer.alloc(markBytes);
  const filled = Buffer.alloc(markBytes);
  const write = (place: number, mark: Uint8Array): void =>
    void writeSync(fd, mark, 0, markBytes, headerBytes + place * markBytes);

  function release(offset: Offset): void {
    const place = taken.get(offset);
    if (place === undefined) return;
    taken.delete(offset);
    endings.delete(offset);
    free.push(place);
    write(place, empty);
  }

  return {
    endings: (offset) => endings.get(offset) ?? 0,
    take(offset) {
      const place = taken.get(offset) ?? free.pop();
      if (place === undefined) throw new RangeError(`more than ${places} entries in hand`);
      taken.set(offset, place);
      write(place, toMark(offset, (endings.get(offset) ?? 0) + 1, filled));
    },
    release,
    forgive(except) {
      for (const [offset, place] of taken) {
        if (offset === except) continue;
        const calls = endings.get(offset) ?? 0;
        if (calls > 0) write(place, toMark(offset, calls, filled));
        else release(offset);
      }
    },
    [Symbol.dispose]: () => closeSync(fd),
  };
}

function toMark(offset: Offset, calls: number, mark: Buffer = Buffer.alloc(markBytes)): Buffer {
  mark.writeDoubleLE(offset + 1, 0);
  mark.writeUInt32LE(calls, 8);
  mark.writeUInt32LE(~calls >>> 0, 12);
  return mark;
}

/** Empty when there is none, or when it cannot be read: nobody is blamed then. */
function readFile(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch {
    return Buffer.alloc(0);
  }
}

function readMarks(bytes: Buffer, gateway: string): ReadonlyMap<Offset, number> {
  const marks = new Map<Offset, number>();
  if (bytes.toString("latin1", 0, 8) !== magic || bytes.toString("hex", 8, 24) !== gateway) return marks;
  for (let at = headerBytes; at + markBytes <= bytes.length; at += markBytes) {
    const behind = bytes.readDoubleLE(at);
    const calls = bytes.readUInt32LE(at + 8);
    if (behind >= 1 && Number.isSafeInteger(behind) && bytes.readUInt32LE(at + 12) === ~calls >>> 0) {
      marks.set(toOffset(behind - 1), calls);
    }
  }
  return marks;
}
