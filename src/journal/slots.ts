// A small file that is written again and again: 4 KiB, written whole once and then in place, so that it works on a full
// disk. Cursors and the head are such files. Two slots of 512 B, at 0 and at 512, are written in turn; the valid one with
// the higher generation counts, so that a torn write costs one step back and never the file. All integers are
// little-endian.
//
//    0  magic 8 B "SLUICEC1" of a cursor, "SLUICEH1" of the head | 8 version u16 = 1 | 10 zeros 6 B
//   16  generation u64: slot = generation modulo 2 | 24 offset u64 | 32 timeMs f64: when it was written
//   40  journalId 16 B; zeros: written before slots had it
//   56  first u64 | 64 segment u32 | 68 epoch u32: of the head; zeros in a cursor | 72 zeros | 508 crc32 u32 over 0…508

import { closeSync, constants, fdatasyncSync, fsyncSync, openSync, readSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import { SluiceError } from "../errors.ts";
import { toOffset, type Offset } from "../reading.ts";
import { nodeDisk } from "./disk.ts";

const fileBytes = 4096;
const slotBytes = 512;
const checksumAt = 508;
const version = 1;
const noId = "0".repeat(32);

export type SlotMagic = "SLUICEC1" | "SLUICEH1";

/** What a slot says. */
export interface Slot {
  /** Cursor: everything below is done. Head: everything below is durable. */
  readonly offset: Offset;
  readonly journalId: string;
  /** Head: nothing below is needed any longer. */
  readonly first: Offset;
  /** Head: the number of the last segment with records. */
  readonly segment: number;
  /** Head: the run that wrote it. */
  readonly epoch: number;
}

export interface StampedSlot extends Slot {
  readonly timeMs: number;
}

export interface SlotFile extends Disposable {
  /** new: there was no file. damaged: no slot was valid, or they are another journal's. */
  readonly origin: "new" | "kept" | "damaged";
  /** What the file said when it was opened. */
  readonly found: StampedSlot | undefined;
  /** In place, not synced. Throws when the disk refuses. */
  write(slot: Slot): void;
  /** In place and durable. When it throws the disk has refused, and the slot that is durable is not touched by a next try. */
  save(slot: Slot): void;
  /** Throws when the disk refuses. */
  sync(): void;
}

/**
 * Opens a file for writing; a new or damaged one is written whole with `start`, durable with its directory entry. Throws
 * SLUICE_JOURNAL_VERSION when a newer version of Sluice wrote it.
 */
export function openSlots(path: string, magic: SlotMagic, start: Slot): SlotFile {
  const { fd, isNew } = openFile(path);
  try {
    const read = isNew ? undefined : readNewest(fd, path, magic);
    const found = read !== undefined && isOf(read.slot, start.journalId) ? read.slot : undefined;
    let generation = read?.generation ?? 0;
    if (found === undefined) {
      const whole = Buffer.alloc(fileBytes);
      encodeSlot(magic, generation, start).copy(whole, (generation % 2) * slotBytes);
      writeWhole(fd, whole, 0);
      fsyncSync(fd);
      nodeDisk.syncDir(dirname(path));
    }
    const put = (slot: Slot): void => {
      writeWhole(fd, encodeSlot(magic, generation + 1, slot), ((generation + 1) % 2) * slotBytes);
    };
    return {
      origin: isNew ? "new" : found === undefined ? "damaged" : "kept",
      found,
      write(slot) {
        put(slot);
        generation += 1;
      },
      save(slot) {
        put(slot);
        fdatasyncSync(fd);
        generation += 1;
      },
      sync: () => fdatasyncSync(fd),
      [Symbol.dispose]: () => closeSync(fd),
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Reads a file without changing it; undefined: no slot is valid. Throws like `openSlots`, and when there is no such file. */
export function readSlots(path: string, magic: SlotMagic): StampedSlot | undefined {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    return readNewest(fd, path, magic)?.slot;
  } finally {
    closeSync(fd);
  }
}

/** Whether a slot belongs to the journal with this id. */
export const isOf = ({ journalId }: Slot, id: string): boolean => journalId === id || journalId === noId;

function openFile(path: string): { fd: number; isNew: boolean } {
  try {
    return { fd: openSync(path, "wx+", 0o640), isNew: true };
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    return { fd: openSync(path, "r+"), isNew: false };
  }
}

interface Numbered {
  readonly generation: number;
  readonly slot: StampedSlot;
}

function readNewest(fd: number, path: string, magic: SlotMagic): Numbered | undefined {
  const bytes = Buffer.alloc(2 * slotBytes);
  readSync(fd, bytes, 0, bytes.length, 0);
  return [0, slotBytes]
    .map((at) => parseSlot(bytes.subarray(at, at + slotBytes), path, magic))
    .filter((slot) => slot !== undefined)
    .toSorted((a, b) => b.generation - a.generation)[0];
}

function encodeSlot(magic: SlotMagic, generation: number, slot: Slot): Buffer {
  const bytes = Buffer.alloc(slotBytes);
  bytes.write(magic, 0, "latin1");
  bytes.writeUInt16LE(version, 8);
  bytes.writeBigUInt64LE(BigInt(generation), 16);
  bytes.writeBigUInt64LE(BigInt(slot.offset), 24);
  bytes.writeDoubleLE(Date.now(), 32);
  bytes.write(slot.journalId, 40, 16, "hex");
  bytes.writeBigUInt64LE(BigInt(slot.first), 56);
  bytes.writeUInt32LE(slot.segment, 64);
  bytes.writeUInt32LE(slot.epoch, 68);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, checksumAt)), checksumAt);
  return bytes;
}

function parseSlot(bytes: Buffer, path: string, magic: SlotMagic): Numbered | undefined {
  if (bytes.toString("latin1", 0, 8) !== magic) return undefined;
  if (bytes.readUInt32LE(checksumAt) !== crc32(bytes.subarray(0, checksumAt))) return undefined;
  const found = bytes.readUInt16LE(8);
  if (found > version) throw new SluiceError("SLUICE_JOURNAL_VERSION", `${path} has version ${found}`);
  const slot = {
    offset: toOffset(Number(bytes.readBigUInt64LE(24))),
    timeMs: bytes.readDoubleLE(32),
    journalId: bytes.toString("hex", 40, 56),
    first: toOffset(Number(bytes.readBigUInt64LE(56))),
    segment: bytes.readUInt32LE(64),
    epoch: bytes.readUInt32LE(68),
  };
  return Number.isSafeInteger(slot.offset) ? { generation: Number(bytes.readBigUInt64LE(16)), slot } : undefined;
}

function writeWhole(fd: number, bytes: Buffer, position: number): void {
  const written = writeSync(fd, bytes, 0, bytes.length, position);
  if (written !== bytes.length) throw new Error(`short write: ${written} of ${bytes.length} B`);
}
