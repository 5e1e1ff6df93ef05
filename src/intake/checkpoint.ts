// The file in which the intake's memory survives a restart, as of an offset: what the journal's records below it have left
// behind. All integers are little-endian.
//
//    0  magic 8 B "SLUICEK1" | 8 version u16 = 1 | 10 zeros 6 B | 16 journalId 16 B | 32 createdMs f64
//   40  position u64: the records below are in it | 48 zeros 8 B | 56 crc32 u32 over the blocks | 60 crc32 u32 over 0…60
//   64  blocks, to the end
//
// Block: 0 kind u8 | 1 zero u8 | 2 nameLength u16 | 4 count u32 | 8 name UTF-8 | count entries
//   kind 1, unfinished: name is a client id; entry: packetId u16, offset f64
//   kind 2, keys: name is a stream; entry: SHA-256 of device id, a zero byte and key, 32 B; offset f64. Oldest first
//
// It is made while messages are taken, so it may also know of records at or above `position`. That does no harm: who reads
// it applies all records from `position` on, and of each packet identifier the last record counts.

import { readFileSync } from "node:fs";
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import { toError } from "../errors.ts";
import { toOffset, type Offset } from "../reading.ts";
import { digestBytes, type Generation } from "./key-window.ts";
import type { Memory } from "./memory.ts";
import type { Sessions } from "./unfinished.ts";

const magic = "SLUICEK1";
const version = 1;
const headerBytes = 64;
const checksumAt = 60;
const blockHeaderBytes = 8;
const unfinishedKind = 1;
const keysKind = 2;
const unfinishedBytes = 2 + 8;
const keyBytes = digestBytes + 8;
/** What is encoded and written without a turn of the event loop: about 0.2 ms. */
const sliceBytes = 64 * 1024;
const keysPerBlock = Math.floor(sliceBytes / keyBytes);

export interface CheckpointHead {
  readonly journalId: string;
  readonly position: Offset;
}

export type FoundCheckpoint =
  | { readonly kind: "found"; readonly position: Offset }
  | { readonly kind: "missing" }
  /** `reason` completes "it …". */
  | { readonly kind: "unusable"; readonly reason: string };

/**
 * Replaces the file, atomically and durably, with what is remembered at the moment of the call. `settle` resolves when
 * every record that was appended before it is called is durable. Rejects when the disk or the journal refuses; then the
 * old file is as it was.
 */
export async function writeCheckpoint(
  path: string,
  head: CheckpointHead,
  memory: Memory,
  settle: () => Promise<void>,
): Promise<void> {
  const blocks = toBlocks(memory);
  const temporary = `${path}.tmp`;
  try {
    await using file = await open(temporary, "w", 0o640);
    const crc = await writeBlocks(file, blocks);
    // No record that the blocks know of may be one that a crash takes away.
    await settle();
    await file.write(encodeHeader(head, crc), 0, headerBytes, 0);
    await file.sync();
    await rename(temporary, path);
    await using folder = await open(dirname(path), "r");
    await folder.sync();
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    throw cause;
  }
}

/** Puts what the file knows into `memory`, which is new. Changes nothing unless it is whole and this journal's. Synchronous. */
export function readCheckpoint(path: string, journalId: string, next: Offset, memory: Memory): FoundCheckpoint {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    const { code, message } = toError(cause) as NodeJS.ErrnoException;
    return code === "ENOENT" ? { kind: "missing" } : { kind: "unusable", reason: `cannot be read: ${message}` };
  }
  const reason = findFault(bytes, journalId, next);
  if (reason !== undefined) return { kind: "unusable", reason };
  readBlocks(bytes, memory);
  return { kind: "found", position: toOffset(Number(bytes.readBigUInt64LE(40))) };
}

function findFault(bytes: Buffer, journalId: string, next: Offset): string | undefined {
  if (bytes.length < headerBytes || bytes.toString("latin1", 0, 8) !== magic) return "is not a checkpoint";
  if (bytes.readUInt32LE(checksumAt) !== crc32(bytes.subarray(0, checksumAt))) return "has a damaged header";
  const found = bytes.readUInt16LE(8);
  if (found > version) return `was written by a newer Sluice, in version ${found}`;
  if (bytes.toString("hex", 16, 32) !== journalId) return "belongs to another journal";
  if (Number(bytes.readBigUInt64LE(40)) > next) return "is newer than the journal";
  return bytes.readUInt32LE(56) === crc32(bytes.subarray(headerBytes)) ? undefined : "is damaged";
}

function readBlocks(bytes: Buffer, { unfinished, windows }: Memory): void {
  for (let at = headerBytes; at < bytes.length;) {
    const kind = bytes.readUInt8(at);
    const nameAt = at + blockHeaderBytes;
    const entriesAt = nameAt + bytes.readUInt16LE(at + 2);
    const name = bytes.toString("utf8", nameAt, entriesAt);
    const entryBytes = kind === unfinishedKind ? unfinishedBytes : keyBytes;
    const end = entriesAt + bytes.readUInt32LE(at + 4) * entryBytes;
    const window = windows.get(name);
    for (at = entriesAt; at < end; at += entryBytes) {
      const offset = toOffset(bytes.readDoubleLE(at + entryBytes - 8));
      if (kind === unfinishedKind) unfinished.add(name, bytes.readUInt16LE(at), offset);
      else window?.remember(bytes.toString("latin1", at, at + digestBytes), offset);
    }
  }
}

/** The keys as they are at the moment of the call; the unfinished as they are when their turn comes. */
function toBlocks({ unfinished, windows }: Memory): Iterable<Buffer> {
  const names = [...unfinished.sessions.keys()];
  const generations = [...windows].flatMap(([stream, window]) =>
    window.generations().map((generation) => ({ stream, generation })),
  );
  return (function* encodeAll() {
    yield* encodeUnfinished(unfinished.sessions, names);
    for (const { stream, generation } of generations) yield* encodeKeys(stream, generation);
  })();
}

function* encodeUnfinished(sessions: Sessions, names: readonly string[]): Generator<Buffer> {
  for (const name of names) {
    const offsets = sessions.get(name);
    if (offsets === undefined) continue;
    const { block, entriesAt } = beginBlock(unfinishedKind, name, offsets.size, unfinishedBytes);
    let at = entriesAt;
    for (const [packetId, offset] of offsets) {
      at = block.writeUInt16LE(packetId, at);
      at = block.writeDoubleLE(offset, at);
    }
    yield block;
  }
}

function* encodeKeys(stream: string, { offsets, size }: Generation): Generator<Buffer> {
  const entries = offsets.entries();
  for (let left = size; left > 0; left -= keysPerBlock) {
    const count = Math.min(left, keysPerBlock);
    const { block, entriesAt } = beginBlock(keysKind, stream, count, keyBytes);
    let at = entriesAt;
    // Not a `for … of`, which would end the iterator with the block.
    while (at < block.length) {
      const { value } = entries.next();
      if (value === undefined) break;
      at += block.write(value[0], at, "latin1");
      at = block.writeDoubleLE(value[1], at);
    }
    yield block;
  }
}

function beginBlock(
  kind: number,
  name: string,
  count: number,
  entryBytes: number,
): { readonly block: Buffer; readonly entriesAt: number } {
  const nameLength = Buffer.byteLength(name);
  const entriesAt = blockHeaderBytes + nameLength;
  const block = Buffer.alloc(entriesAt + count * entryBytes);
  block.writeUInt8(kind, 0);
  block.writeUInt16LE(nameLength, 2);
  block.writeUInt32LE(count, 4);
  block.write(name, blockHeaderBytes);
  return { block, entriesAt };
}

/** From behind the header on, in slices: each write is a turn of the event loop. Returns the checksum. */
async function writeBlocks(file: FileHandle, blocks: Iterable<Buffer>): Promise<number> {
  let gathered: Buffer[] = [];
  let bytes = 0;
  let length = 0;
  let crc = 0;
  const write = async (): Promise<void> => {
    const slice = Buffer.concat(gathered);
    gathered = [];
    bytes = 0;
    crc = crc32(slice, crc);
    const { bytesWritten } = await file.write(slice, 0, slice.length, headerBytes + length);
    if (bytesWritten !== slice.length) throw new Error(`short write: ${bytesWritten} of ${slice.length} B`);
    length += slice.length;
  };
  for (const block of blocks) {
    gathered.push(block);
    bytes += block.length;
    if (bytes >= sliceBytes) await write();
  }
  if (bytes > 0) await write();
  return crc;
}

function encodeHeader({ journalId, position }: CheckpointHead, crc: number): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.write(magic, 0, "latin1");
  header.writeUInt16LE(version, 8);
  header.write(journalId, 16, 16, "hex");
  header.writeDoubleLE(Date.now(), 32);
  header.writeBigUInt64LE(BigInt(position), 40);
  header.writeUInt32LE(crc, 56);
  header.writeUInt32LE(crc32(header.subarray(0, checksumAt)), checksumAt);
  return header;
}
