// The bytes of a segment file: one header, then frames up to the end. All integers are little-endian.
//
// Header, 64 B + stream table, padded with zeros to a multiple of 8
//    0  magic 8 B "SLUICEJ1"       | 8 version u16 = 1 | 10 headerLength u16: where the first frame begins
//   12  segment u32: file number   | 16 journalId 16 B | 32 createdMs f64
//   40  baseOffset u64: no record of this file has a lower offset | 48 epoch u32: one more at each open of the journal
//   52  streamCount u16            | 54 zeros 6 B      | 60 crc32 u32 over 0…59 and 64…headerLength
//   64  streamCount × (length u16, name UTF-8): a record's stream is an index into this table
//
// Frame, 48 B + records, padded with zeros to a multiple of 8, at a multiple of 8
//    0  magic u32 "SLFR"           | 4 frameLength u32: with header and padding
//    8  crc32 u32 over 12…frameLength, seeded with the crc32 of journalId, so that a payload cannot carry a frame
//   12  count u32: records         | 16 baseOffset u64: of the first record | 24 baseTimeMs f64: receivedAt of the first
//   32  epoch u32                  | 36 commit u32: number of the commit within the epoch
//   40  flags u16: bit 0 = last frame of its commit | 42 recordVersion u16 = 1 | 44 rawLength u32: without padding
//
// Records: see record.ts.

import { crc32 } from "node:zlib";
import { toOffset, type Offset } from "../reading.ts";

export const segmentHeaderBytes = 64;
/** What to read of a file to be sure to have its whole header. */
export const maximumHeaderBytes = 65_528;
export const frameHeaderBytes = 48;
/** A frame is filled in one slot of the ring; no frame is longer. */
export const maximumFrameBytes = 512 * 1024;
export const frameAlignment = 8;

const segmentMagic = "SLUICEJ1";
const segmentVersion = 1;
const frameMagic = 0x52464c53;
const recordVersion = 1;
const lastOfCommit = 1;
const twoTo32 = 2 ** 32;

/** The stream index that means: no stream of the table. Read back as "". */
export const noStream = 0xffff;

export interface SegmentHeader {
  readonly number: number;
  /** 32 hexadecimal digits. */
  readonly journalId: string;
  readonly createdMs: number;
  readonly baseOffset: Offset;
  readonly epoch: number;
  readonly streams: readonly string[];
}

export interface Frame {
  /** With header and padding. */
  readonly length: number;
  /** Header and records. */
  readonly rawLength: number;
  readonly count: number;
  readonly baseOffset: Offset;
  readonly baseTimeMs: number;
  readonly epoch: number;
  readonly commit: number;
  readonly lastOfCommit: boolean;
}

export type ParsedHeader =
  | { readonly kind: "header"; readonly header: SegmentHeader; readonly length: number }
  | { readonly kind: "newer"; readonly version: number }
  | { readonly kind: "damaged" };

/** The next multiple of 8. */
export const align = (bytes: number): number => Math.ceil(bytes / frameAlignment) * frameAlignment;

export const toFrameSeed = (journalId: string): number => crc32(Buffer.from(journalId, "hex"));

/** Throws RangeError when the stream names do not fit in a header. */
export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const names = header.streams.map((name) => Buffer.from(name, "utf8"));
  const length = align(names.reduce((sum, name) => sum + 2 + name.length, segmentHeaderBytes));
  if (length > maximumHeaderBytes || names.length >= noStream) {
    throw new RangeError(`the names of ${names.length} streams take ${length} B; a segment header has room for 64 KiB`);
  }
  const bytes = Buffer.alloc(length);
  bytes.write(segmentMagic, 0, "latin1");
  bytes.writeUInt16LE(segmentVersion, 8);
  bytes.writeUInt16LE(length, 10);
  bytes.writeUInt32LE(header.number, 12);
  bytes.write(header.journalId, 16, 16, "hex");
  bytes.writeDoubleLE(header.createdMs, 32);
  bytes.writeBigUInt64LE(BigInt(header.baseOffset), 40);
  bytes.writeUInt32LE(header.epoch, 48);
  bytes.writeUInt16LE(names.length, 52);
  let at = segmentHeaderBytes;
  for (const name of names) {
    at = bytes.writeUInt16LE(name.length, at);
    at += name.copy(bytes, at);
  }
  bytes.writeUInt32LE(headerChecksum(bytes, length), 60);
  return bytes;
}

/** `bytes` is the beginning of a file: at least the header, as far as the file has one. */
export function parseSegmentHeader(bytes: Buffer): ParsedHeader {
  if (bytes.length < segmentHeaderBytes || bytes.toString("latin1", 0, 8) !== segmentMagic) return { kind: "damaged" };
  const length = bytes.readUInt16LE(10);
  if (length < segmentHeaderBytes || length > bytes.length || length % frameAlignment !== 0) return { kind: "damaged" };
  if (bytes.readUInt32LE(60) !== headerChecksum(bytes, length)) return { kind: "damaged" };
  const version = bytes.readUInt16LE(8);
  if (version > segmentVersion) return { kind: "newer", version };
  const streams: string[] = [];
  let at = segmentHeaderBytes;
  for (let left = bytes.readUInt16LE(52); left > 0; left -= 1) {
    const nameLength = bytes.readUInt16LE(at);
    streams.push(bytes.toString("utf8", at + 2, at + 2 + nameLength));
    at += 2 + nameLength;
  }
  const header: SegmentHeader = {
    number: bytes.readUInt32LE(12),
    journalId: bytes.toString("hex", 16, 32),
    createdMs: bytes.readDoubleLE(32),
    baseOffset: toOffset(Number(bytes.readBigUInt64LE(40))),
    epoch: bytes.readUInt32LE(48),
    streams,
  };
  return { kind: "header", header, length };
}

function headerChecksum(bytes: Buffer, length: number): number {
  return crc32(bytes.subarray(segmentHeaderBytes, length), crc32(bytes.subarray(0, 60)));
}

/** Finishes a frame whose records stand in `bytes` from 48 to `rawLength`, but for what `stampFrame` adds. */
export function closeFrame(
  bytes: Buffer,
  frame: Pick<Frame, "rawLength" | "count" | "baseOffset" | "baseTimeMs">,
): void {
  const length = align(frame.rawLength);
  bytes.fill(0, frame.rawLength, length);
  bytes.writeUInt32LE(frameMagic, 0);
  bytes.writeUInt32LE(length, 4);
  bytes.writeUInt32LE(frame.count, 12);
  bytes.writeUInt32LE(frame.baseOffset % twoTo32, 16);
  bytes.writeUInt32LE(Math.floor(frame.baseOffset / twoTo32), 20);
  bytes.writeDoubleLE(frame.baseTimeMs, 24);
  bytes.writeUInt16LE(recordVersion, 42);
  bytes.writeUInt32LE(frame.rawLength, 44);
}

/** Says which commit a closed frame belongs to, and adds the checksum. May be called again for the same frame. */
export function stampFrame(bytes: Buffer, stamp: Pick<Frame, "epoch" | "commit" | "lastOfCommit">, seed: number): void {
  bytes.writeUInt32LE(stamp.epoch, 32);
  bytes.writeUInt32LE(stamp.commit, 36);
  bytes.writeUInt16LE(stamp.lastOfCommit ? lastOfCommit : 0, 40);
  bytes.writeUInt32LE(crc32(bytes.subarray(12, closedLength(bytes)), seed), 8);
}

const readBase = (bytes: Buffer, at: number): number =>
  bytes.readUInt32LE(at + 16) + bytes.readUInt32LE(at + 20) * twoTo32;

/** The offset of the first record of a frame that `closeFrame` has finished. */
export const readStart = (bytes: Buffer): Offset => toOffset(readBase(bytes, 0));

/** Length of a frame that `closeFrame` has finished. */
export const closedLength = (bytes: Buffer): number => bytes.readUInt32LE(4);

/** The offset behind the last record of a frame that `closeFrame` has finished. */
export const readEnd = (bytes: Buffer): Offset => toOffset(readBase(bytes, 0) + bytes.readUInt32LE(12));

/** The frame's magic, to be looked for. */
export const frameMagicBytes = Buffer.from("SLFR", "latin1");

/** The length that a frame at `at` claims to have; undefined: none stands there. */
export function claimedLength(bytes: Buffer, at: number): number | undefined {
  if (at + frameHeaderBytes > bytes.length || bytes.readUInt32LE(at) !== frameMagic) return undefined;
  const length = bytes.readUInt32LE(at + 4);
  return length >= frameHeaderBytes && length <= maximumFrameBytes ? length : undefined;
}

/** Undefined: there is no whole, valid frame at `at`. */
export function parseFrame(bytes: Buffer, at: number, seed: number): Frame | undefined {
  const length = claimedLength(bytes, at);
  if (length === undefined || length > bytes.length - at) return undefined;
  const rawLength = bytes.readUInt32LE(at + 44);
  if (rawLength < frameHeaderBytes || align(rawLength) !== length) return undefined;
  if (bytes.readUInt16LE(at + 42) !== recordVersion) return undefined;
  if (bytes.readUInt32LE(at + 8) !== crc32(bytes.subarray(at + 12, at + length), seed)) return undefined;
  return {
    length,
    rawLength,
    count: bytes.readUInt32LE(at + 12),
    baseOffset: toOffset(readBase(bytes, at)),
    baseTimeMs: bytes.readDoubleLE(at + 24),
    epoch: bytes.readUInt32LE(at + 32),
    commit: bytes.readUInt32LE(at + 36),
    lastOfCommit: (bytes.readUInt16LE(at + 40) & lastOfCommit) !== 0,
  };
}

export const toSegmentName = (number: number): string => `${String(number).padStart(10, "0")}.seg`;

/** Undefined: the name is not a segment's. */
export function parseSegmentName(name: string): number | undefined {
  return /^\d{10}\.seg$/.test(name) ? Number(name.slice(0, 10)) : undefined;
}
