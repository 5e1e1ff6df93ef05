// How far a consumer has come: a file of 4 KiB, written whole once and then in place, so that it works on a full disk.
// All integers are little-endian. Two slots of 512 B, at 0 and at 512, are written in turn; the valid one with the higher
// generation counts, so that a torn write costs one step back and never the cursor.
//
//    0  magic 8 B "SLUICEC1" | 8 version u16 = 1 | 10 zeros 6 B | 16 generation u64: slot = generation modulo 2
//   24  offset u64: everything below is done     | 32 timeMs f64: when | 40 zeros | 508 crc32 u32 over 0…508

import { closeSync, existsSync, fdatasyncSync, fsyncSync, openSync, readdirSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { toError } from "../errors.ts";
import { toOffset, type Offset } from "../reading.ts";

const fileBytes = 4096;
const slotBytes = 512;
const checksumAt = 508;
const magic = "SLUICEC1";
const version = 1;
const suffix = ".cursor";

/** Where a journal's cursors are, below its folder. */
export const cursorsFolder = "cursors";

export interface CursorOptions {
  /** Exists already. */
  readonly dir: string;
  /** Of the consumer. Any text; the file name is its URI encoding. */
  readonly name: string;
  /** Where a cursor without a file begins. */
  readonly start: Offset;
  /** A commit is on disk after this time at the latest. Default 200. */
  readonly intervalMs?: number;
  /** Called after each write that is on disk: the journal may be trimmed up to there. */
  readonly onDurable?: (position: Offset) => void;
  /** A write on the timer failed; it is tried again after `intervalMs`. Without it the error is thrown from the timer. */
  readonly onError?: (error: Error) => void;
}

/** Synchronous file access: for worker threads. */
export interface Cursor extends AsyncDisposable {
  /** What the consumer committed last. */
  readonly position: Offset;
  /** What of it survives a crash. Never above `position` but after a step back. */
  readonly durable: Offset;
  /** new: there was no file. damaged: no slot was valid, so it begins at `start` again. */
  readonly origin: "new" | "kept" | "damaged";
  /** Remembers the position, and writes it within `intervalMs`. The last word counts, also when it goes back. */
  commit(to: Offset): void;
  /** Writes now if there is something to write. Throws when the disk refuses. */
  flush(): void;
}

interface CursorState {
  readonly generation: number;
  readonly position: Offset;
}

/** Creates the file, durable with its directory entry, when there is none. One owner at a time. */
export function openCursor(options: CursorOptions): Cursor {
  const { dir, name, start, intervalMs = 200 } = options;
  const path = join(dir, encodeURIComponent(name) + suffix);
  const { fd, isNew } = openFile(path);
  const found = isNew ? undefined : readState(fd);
  const origin = isNew ? "new" : found === undefined ? "damaged" : "kept";
  let generation = found?.generation ?? 0;
  let durable = found?.position ?? start;
  let position = durable;
  let timer: NodeJS.Timeout | undefined;
  if (found === undefined) {
    const whole = Buffer.alloc(fileBytes);
    encodeSlot({ generation, position }).copy(whole);
    writeWhole(fd, whole, 0);
    fsyncSync(fd);
    syncDir(dir);
  }

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    if (position === durable) return;
    const state = { generation: generation + 1, position };
    writeWhole(fd, encodeSlot(state), (state.generation % 2) * slotBytes);
    fdatasyncSync(fd);
    generation = state.generation;
    durable = state.position;
    options.onDurable?.(durable);
  }

  function onTimer(): void {
    try {
      flush();
    } catch (error) {
      if (options.onError === undefined) throw error;
      timer = setTimeout(onTimer, intervalMs);
      options.onError(toError(error));
    }
  }

  return {
    get position() {
      return position;
    },
    get durable() {
      return durable;
    },
    origin,
    commit(to) {
      position = to;
      if (position !== durable) timer ??= setTimeout(onTimer, intervalMs);
    },
    flush,
    async [Symbol.asyncDispose]() {
      try {
        flush();
      } finally {
        closeSync(fd);
      }
    },
  };
}

/** Every cursor of a folder that has a valid slot; none when there is no such folder. */
export function listCursors(dir: string): { readonly name: string; readonly position: Offset }[] {
  if (!existsSync(dir)) return [];
  const names = readdirSync(dir).filter((file) => file.endsWith(suffix));
  return names.flatMap((file) => {
    const fd = openSync(join(dir, file), "r");
    try {
      const state = readState(fd);
      const name = decodeURIComponent(file.slice(0, -suffix.length));
      return state === undefined ? [] : [{ name, position: state.position }];
    } finally {
      closeSync(fd);
    }
  });
}

function openFile(path: string): { fd: number; isNew: boolean } {
  try {
    return { fd: openSync(path, "wx+", 0o640), isNew: true };
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    return { fd: openSync(path, "r+"), isNew: false };
  }
}

function readState(fd: number): CursorState | undefined {
  const bytes = Buffer.alloc(2 * slotBytes);
  readSync(fd, bytes, 0, bytes.length, 0);
  const states = [0, slotBytes]
    .map((at) => parseSlot(bytes.subarray(at, at + slotBytes)))
    .filter((state) => state !== undefined);
  return states.toSorted((a, b) => b.generation - a.generation)[0];
}

function encodeSlot({ generation, position }: CursorState): Buffer {
  const slot = Buffer.alloc(slotBytes);
  slot.write(magic, 0, "latin1");
  slot.writeUInt16LE(version, 8);
  slot.writeBigUInt64LE(BigInt(generation), 16);
  slot.writeBigUInt64LE(BigInt(position), 24);
  slot.writeDoubleLE(Date.now(), 32);
  slot.writeUInt32LE(crc32(slot.subarray(0, checksumAt)), checksumAt);
  return slot;
}

function parseSlot(slot: Buffer): CursorState | undefined {
  if (slot.toString("latin1", 0, 8) !== magic || slot.readUInt16LE(8) !== version) return undefined;
  if (slot.readUInt32LE(checksumAt) !== crc32(slot.subarray(0, checksumAt))) return undefined;
  return {
    generation: Number(slot.readBigUInt64LE(16)),
    position: toOffset(Number(slot.readBigUInt64LE(24))),
  };
}

function writeWhole(fd: number, bytes: Buffer, position: number): void {
  const written = writeSync(fd, bytes, 0, bytes.length, position);
  if (written !== bytes.length) throw new Error(`short write of a cursor: ${written} of ${bytes.length} B`);
}

function syncDir(dir: string): void {
  const fd = openSync(dir, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
