// The records of a journal, oldest first, and as text: one JSON object a line. Like inspect.ts it reads files only.

import { isUtf8 } from "node:buffer";
import { closeSync, fstatSync, openSync } from "node:fs";
import { join } from "node:path";
import { toOffset, type Message, type MessageProperties, type Offset, type UnixMs } from "../reading.ts";
import { FrameFile } from "./frame-file.ts";
import { lookAt, readLock } from "./inspect.ts";
import { NameCache } from "./names.ts";
import { decodeRecord, longestTimeDeltaMs, recordLength, type JournalEntry, type RecordContext } from "./record.ts";
import { frameHeaderBytes, type Frame } from "./segment.ts";
import type { LiveFile } from "./survey.ts";

/** A place in the journal, by number or by time of receipt. */
export type Point =
  | { readonly kind: "offset"; readonly offset: Offset }
  | { readonly kind: "time"; readonly timeMs: UnixMs };

export interface RangeOptions {
  readonly dir: string;
  /** The first record; by default the oldest. */
  readonly from?: Point | undefined;
  /** Behind the last record. */
  readonly to?: Point | undefined;
  /** Records from `from` up to, not including, `to` are in the range, and the journal does not have them (any longer). */
  readonly onGap?: (from: Offset, to: Offset) => void;
}

export interface DumpOptions extends RangeOptions {
  readonly stream?: string | undefined;
  readonly device?: string | undefined;
  readonly limit?: number | undefined;
}

/** The lines of `readRange`, made as they are asked for. */
export function* dumpJournal({ stream, device, limit = Infinity, ...range }: DumpOptions): Generator<string, void> {
  let left = limit;
  for (const entry of readRange(range)) {
    if (left <= 0) return;
    if (stream !== undefined && entry.stream !== stream) continue;
    if (device !== undefined && entry.message.deviceId !== device) continue;
    left -= 1;
    yield toLine(entry);
  }
}

/**
 * The records of a range, read as they are asked for. What a gateway writes meanwhile is not among them, nor what it has
 * written and not yet synced. Damaged records are passed over: `verifyJournal` tells of them. Throws SluiceError when there
 * is no journal.
 */
export function* readRange(options: RangeOptions): Generator<JournalEntry, void> {
  const { dir, from, to, onGap = () => {} } = options;
  const { live, head, seed, files, end: last } = lookAt(dir, false);
  const durable = head !== undefined && readLock(dir) === "held" ? head.offset : last;
  const end = to?.kind === "offset" ? toOffset(Math.min(durable, to.offset)) : durable;
  const streams = new Map(files.map(({ header }) => [header?.epoch ?? 0, header?.streams ?? []]));
  const names = new NameCache();
  let next = from?.kind === "offset" ? from.offset : (live[0]?.base ?? end);
  const pass = (reached: Offset): void => {
    if (reached > next) onGap(next, reached);
  };
  for (const segment of live.filter((one) => mayHold(one, options))) {
    for (const { frame, bytes } of readSegment(dir, segment, seed)) {
      if (frame.baseOffset >= end) break;
      pass(frame.baseOffset);
      next = toOffset(Math.max(next, frame.baseOffset + frame.count));
      if (!isInRange(frame, options)) continue;
      const context = { baseTimeMs: frame.baseTimeMs, streams: streams.get(frame.epoch) ?? [], names };
      for (const entry of readRecords(bytes, frame, context)) {
        if (entry.offset >= end) break;
        if (isWanted(entry, options)) yield entry;
      }
    }
  }
  pass(end);
}

function mayHold({ first, end }: LiveFile, { from, to }: RangeOptions): boolean {
  return (
    (from?.kind !== "offset" || end > from.offset) && (to?.kind !== "offset" || first.frame.baseOffset < to.offset)
  );
}

/** The valid frames of a segment that are not void; none when it has been trimmed meanwhile. */
function* readSegment(
  dir: string,
  { file, first, end }: LiveFile,
  seed: number,
): Generator<{ readonly frame: Frame; readonly bytes: Buffer }, void> {
  const fd = openIfThere(join(dir, file.name));
  if (fd === undefined) return;
  try {
    const frames = new FrameFile(fd, fstatSync(fd).size, seed);
    for (const item of frames.scan(first.at, first.frame.baseOffset)) {
      if (item.kind === "damaged") continue;
      if (item.frame.baseOffset >= end) return;
      yield { frame: item.frame, bytes: frames.copy(item.at, item.frame.length) };
    }
  } finally {
    closeSync(fd);
  }
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** Spares the records of a frame that has none in the range. */
function isInRange({ baseOffset, count, baseTimeMs }: Frame, { from, to }: RangeOptions): boolean {
  if (from?.kind === "offset" && baseOffset + count <= from.offset) return false;
  if (from?.kind === "time" && baseTimeMs + longestTimeDeltaMs < from.timeMs) return false;
  return to?.kind !== "time" || baseTimeMs < to.timeMs;
}

function* readRecords(bytes: Buffer, frame: Frame, context: RecordContext): Generator<JournalEntry, void> {
  const slot = { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
  let { baseOffset: offset } = frame;
  for (let at = frameHeaderBytes; at < frame.rawLength; at += recordLength(slot.view, at)) {
    yield decodeRecord(slot, at, offset, context);
    offset = toOffset(offset + 1);
  }
}

function isWanted({ offset, message }: JournalEntry, { from, to }: RangeOptions): boolean {
  const place = (point: Point): number =>
    point.kind === "offset" ? offset - point.offset : message.receivedAt - point.timeMs;
  return (from === undefined || place(from) >= 0) && (to === undefined || place(to) < 0);
}

function toLine({ offset, kind, stream, message, rejection }: JournalEntry): string {
  return `${JSON.stringify({ offset, kind, stream, ...showMessage(message), rejection })}\n`;
}

/** A message as JSON that a person can read. */
export function showMessage(message: Message): object {
  const { receivedAt, deviceId, clientId, topic, qos, packetId, properties } = message;
  const payload = Buffer.from(message.payload.buffer, message.payload.byteOffset, message.payload.length);
  return {
    time: new Date(receivedAt).toISOString(),
    device: deviceId,
    client: clientId,
    topic,
    qos,
    packetId: packetId === 0 ? undefined : packetId,
    properties: properties === undefined ? undefined : toShown(properties),
    payload: isUtf8(payload) ? payload.toString("utf8") : { base64: payload.toString("base64") },
  };
}

function toShown({ correlationData, ...texts }: MessageProperties): object {
  if (correlationData === undefined) return texts;
  return { ...texts, correlationData: { base64: Buffer.from(correlationData).toString("base64") } };
}
