// The bytes of a record inside a frame. All integers are little-endian.
//
//    0  length u32: the whole record     | 4 timeDelta u16: ms after the frame's baseTimeMs
//    6  flags u8: bits 0–1 QoS, 2 rejected, 3 device id present, 4 rejection present, 5 MQTT 5 properties
//       present, 6 released: the end of a QoS 2 handshake, with client id and packetId only; packetId 0: all of that client
//    7  zero u8                          | 8 clientIdLength u16 | 10 topicLength u16
//   12  stream u16: index into the segment's stream table; 0xffff: none | 14 packetId u16
//   16  client id UTF-8, topic UTF-8
//       [device id: length u16, UTF-8]   only when it differs from the client id
//       [rejection: length u32, UTF-8 JSON {"reason", "issues"}]
//       [properties: length u32, as in properties.ts]
//       payload, to the end
//
// Encoding is the hot path of the main thread: plain and dense, no closures, one pass. bench/journal.ts shows its cost.

import type { Issue, Message, Offset, QoS, Rejection } from "../reading.ts";
import type { NameCache } from "./names.ts";
import { decodeProperties } from "./properties.ts";
import { frameHeaderBytes, maximumFrameBytes, noStream } from "./segment.ts";

const recordHeaderBytes = 16;
const rejectedFlag = 4;
const deviceIdFlag = 8;
const rejectionFlag = 16;
const propertiesFlag = 32;
export const releasedFlag = 64;
/** A record is received at most so long after the first of its frame. */
export const longestTimeDeltaMs = 0xffff;
const longestNameBytes = 0xffff;
/** Worst case of UTF-8 for one UTF-16 unit. */
const utf8BytesPerUnit = 3;

/** A rejection is cut to this many bytes of JSON: first the issues at the end go, then the text of the first. */
export const maximumRejectionBytes = 16 * 1024;
/** The longest record without its rejection: 16 B, client id, topic, 2 B and device id when it differs, payload. */
export const maximumRecordBytes = maximumFrameBytes - frameHeaderBytes - maximumRejectionBytes - 4;
/** A PUBLISH packet up to this length always fits, however long the client and device ids are. */
export const maximumPacketBytes = maximumRecordBytes - recordHeaderBytes - 2 - 2 * longestNameBytes;

export type RecordedRejection = Pick<Rejection, "reason" | "issues">;

interface EntryBase {
  readonly offset: Offset;
  /** "" when the record belongs to no stream. */
  readonly stream: string;
  /** `payload` is a view of memory that nobody writes to again: it stays valid as long as it is kept. */
  readonly message: Message;
}

export type JournalEntry =
  | (EntryBase & { readonly kind: "accepted"; readonly rejection?: undefined })
  | (EntryBase & { readonly kind: "rejected"; readonly rejection: RecordedRejection })
  /** The QoS 2 message `packetId` of `clientId` is finished; 0: all of that client are. Topic and payload are empty. */
  | (EntryBase & { readonly kind: "released"; readonly rejection?: undefined });

/** Memory that a frame is filled in. */
export interface Slot {
  readonly bytes: Buffer;
  readonly view: DataView;
}

/** Whether a record may stand in a frame that began so much earlier. */
export const isTimeDelta = (deltaMs: number): boolean => !(deltaMs < 0 || deltaMs > longestTimeDeltaMs);

/** An upper bound of a record's length: cheap, and exact for the payload. */
export function boundRecord(message: Message, rejection: Buffer | undefined, properties?: Buffer): number {
  let units = message.clientId.length + message.topic.length;
  let bytes = recordHeaderBytes + message.payload.length;
  if (message.deviceId !== message.clientId) {
    units += message.deviceId.length;
    bytes += 2;
  }
  if (rejection !== undefined) bytes += 4 + rejection.length;
  if (properties !== undefined) bytes += 4 + properties.length;
  return bytes + units * utf8BytesPerUnit;
}

/** The exact length of a record. RangeError: no frame can hold it; the caller's packet limit is too high. */
export function measureRecord(message: Message, rejection: Buffer | undefined, properties?: Buffer): number {
  const clientIdBytes = Buffer.byteLength(message.clientId);
  const topicBytes = Buffer.byteLength(message.topic);
  const deviceIdBytes = Buffer.byteLength(message.deviceId);
  if (clientIdBytes > longestNameBytes || topicBytes > longestNameBytes || deviceIdBytes > longestNameBytes) {
    throw new RangeError("client id, topic and device id have at most 65,535 bytes");
  }
  const named = message.deviceId === message.clientId ? 0 : 2 + deviceIdBytes;
  const described = properties === undefined ? 0 : 4 + properties.length;
  const bytes = recordHeaderBytes + clientIdBytes + topicBytes + named + described + message.payload.length;
  if (bytes > maximumRecordBytes) throw new RangeError(`a record has at most ${maximumRecordBytes} B, not ${bytes}`);
  return bytes + (rejection === undefined ? 0 : 4 + rejection.length);
}

/**
 * Writes a record at `start` and returns where it ends. The slot has room for it (`boundRecord` or `measureRecord`).
 * `kindFlag` is 0, or `releasedFlag`.
 */
export function encodeRecord(
  { bytes, view }: Slot,
  start: number,
  message: Message,
  stream: number,
  timeDeltaMs: number,
  rejection: Buffer | undefined,
  kindFlag = 0,
  properties?: Buffer,
): number {
  const { clientId, deviceId, payload } = message;
  let flags = message.qos | kindFlag;
  let at = start + recordHeaderBytes;
  const clientIdLength = bytes.write(clientId, at);
  at += clientIdLength;
  const topicLength = bytes.write(message.topic, at);
  at += topicLength;
  if (deviceId !== clientId) {
    flags |= deviceIdFlag;
    const deviceIdLength = bytes.write(deviceId, at + 2);
    view.setUint16(at, deviceIdLength, true);
    at += 2 + deviceIdLength;
  }
  if (rejection !== undefined) {
    flags |= rejectedFlag | rejectionFlag;
    view.setUint32(at, rejection.length, true);
    bytes.set(rejection, at + 4);
    at += 4 + rejection.length;
  }
  if (properties !== undefined) {
    flags |= propertiesFlag;
    view.setUint32(at, properties.length, true);
    bytes.set(properties, at + 4);
    at += 4 + properties.length;
  }
  bytes.set(payload, at);
  at += payload.length;
  view.setUint32(start, at - start, true);
  view.setUint16(start + 4, timeDeltaMs, true);
  view.setUint8(start + 6, flags);
  view.setUint8(start + 7, 0);
  view.setUint16(start + 8, clientIdLength, true);
  view.setUint16(start + 10, topicLength, true);
  view.setUint16(start + 12, stream, true);
  view.setUint16(start + 14, message.packetId, true);
  return at;
}

export function encodeRejection({ reason, issues }: RecordedRejection): Buffer {
  let kept: readonly Issue[] = issues.slice(0, 100);
  for (;;) {
    const bytes = Buffer.from(JSON.stringify({ reason, issues: kept }), "utf8");
    if (bytes.length <= maximumRejectionBytes) return bytes;
    // JSON takes at most six bytes for one UTF-16 unit, so that the last step always fits.
    kept =
      kept.length > 1
        ? kept.slice(0, Math.floor(kept.length / 2))
        : kept.map(({ path, message }) => ({ path: path.slice(0, 500), message: message.slice(0, 1500) }));
  }
}

/** Length of the record at `at`. */
export const recordLength = (view: DataView, at: number): number => view.getUint32(at, true);

/** Whether the record at `at` is a rejected one, by its flags alone. */
export const isRejected = (view: DataView, at: number): boolean => (view.getUint8(at + 6) & rejectedFlag) !== 0;

/** What is the same for all records of a frame. */
export interface RecordContext {
  readonly baseTimeMs: number;
  /** The stream table of the frame's segment. */
  readonly streams: readonly string[];
  readonly names: NameCache;
}

/** Reads the record at `at` of a frame whose checksum is right. The entry's payload is a view of `slot`. */
export function decodeRecord(slot: Slot, at: number, offset: Offset, context: RecordContext): JournalEntry {
  const { bytes, view } = slot;
  const end = at + view.getUint32(at, true);
  const flags = view.getUint8(at + 6);
  const lengths = view.getInt32(at + 8, true);
  const namesAt = at + recordHeaderBytes;
  let next = namesAt + (lengths & 0xffff) + (lengths >>> 16);
  if ((flags & deviceIdFlag) !== 0) next += 2 + view.getUint16(next, true);
  const { clientId, topic, deviceId } = context.names.read(slot, namesAt, next, lengths);
  let rejection: RecordedRejection | undefined;
  if ((flags & rejectionFlag) !== 0) {
    const rejectionAt = next + 4;
    next = rejectionAt + view.getUint32(next, true);
    rejection = JSON.parse(bytes.toString("utf8", rejectionAt, next)) as RecordedRejection;
  }
  const receivedAt = context.baseTimeMs + view.getUint16(at + 4, true);
  const qos = (flags & 3) as QoS;
  const packetId = view.getUint16(at + 14, true);
  let message: Message;
  if ((flags & propertiesFlag) === 0) {
    message = { topic, payload: bytes.subarray(next, end), clientId, deviceId, receivedAt, qos, packetId };
  } else {
    const propertiesAt = next + 4;
    next = propertiesAt + view.getUint32(next, true);
    const properties = decodeProperties(bytes, propertiesAt, next);
    message = { topic, payload: bytes.subarray(next, end), clientId, deviceId, receivedAt, qos, packetId, properties };
  }
  const stream = context.streams[view.getUint16(at + 12, true)] ?? "";
  if ((flags & releasedFlag) !== 0) return { offset, kind: "released", stream, message };
  return rejection === undefined
    ? { offset, kind: "accepted", stream, message }
    : { offset, kind: "rejected", stream, message, rejection };
}

/** The indexes of the streams that a frame's records belong to. */
export function readStreams(frame: Buffer, rawLength: number): ReadonlySet<number> {
  const indexes = new Set<number>();
  for (let at = frameHeaderBytes; at < rawLength; at += frame.readUInt32LE(at))
    indexes.add(frame.readUInt16LE(at + 12));
  return indexes;
}

/**
 * Changes the stream indexes of a frame from one table to another that has at least its names. The frame's checksum is
 * wrong afterwards: stamp it.
 */
export function remapStreams(frame: Buffer, rawLength: number, from: readonly string[], to: readonly string[]): void {
  for (let at = frameHeaderBytes; at < rawLength; at += frame.readUInt32LE(at)) {
    const index = to.indexOf(from[frame.readUInt16LE(at + 12)] ?? "");
    frame.writeUInt16LE(index === -1 ? noStream : index, at + 12);
  }
}
