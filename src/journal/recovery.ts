// What a start finds in the journal's folder, and what of it counts. Called with the lock held, before anything is
// written. Nothing that was acknowledged is ever cut; the rules, in the order in which they apply:
//
// 1. The header and the first frame of every segment are read; a file of another journal or a newer version is refused.
// 2. What lies at or above the base of the next segment is void: its commit failed and was written again there.
// 3. Only the last segment with records is scanned in full: all others were complete before the next one began.
// 4. A bad frame with no valid frame behind it is a torn tail of what was never acknowledged: cut. One with valid frames
//    behind it is damage of acknowledged data: kept, reported with its exact range, skipped by readers.
// 5. The last commit may be in the page cache only (its sync failed, then the process ended): it is handed back, to be
//    written again into the new segment before the old copy is cut. One is enough: one commit is in flight at a time.
// 6. No offset below a cursor is used again: a sink would take the new record for one that it has.

import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readSync, renameSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { SluiceError } from "../errors.ts";
import { toOffset, type Offset } from "../reading.ts";
import { cursorsFolder, listCursors } from "./cursor.ts";
import type { LiveSegment } from "./store.ts";
import {
  findFrame,
  maximumFrameBytes,
  maximumHeaderBytes,
  parseFrame,
  parseSegmentHeader,
  parseSegmentName,
  segmentHeaderBytes,
  toFrameSeed,
  toSegmentName,
  type Frame,
  type SegmentHeader,
} from "./segment.ts";

/** Acknowledged bytes that cannot be read: the records from `from` up to, not including, `to` are lost. */
interface DamagedRange {
  readonly segment: number;
  readonly fromByte: number;
  readonly toByte: number;
  readonly from: Offset;
  readonly to: Offset;
  /** All of it belongs to the last commit, whose write may have been torn before it was acknowledged. */
  readonly inLastCommit: boolean;
}

/** What a start found; all zero and empty after a clean stop but for `segments` and `rewritten`. */
export interface RecoveryReport {
  /** Segments with records. */
  readonly segments: number;
  /** Bytes of a write that never became durable, cut off. */
  readonly tornBytes: number;
  /** Segments whose records are all written again in a later one, deleted. */
  readonly superseded: number;
  readonly damaged: readonly DamagedRange[];
  /** Files without one valid frame among others that have some: kept as `.damaged`. */
  readonly unreadable: readonly string[];
  /** Records of the last commit, written again. */
  readonly rewritten: number;
  /** Offsets that a cursor had passed but the journal no longer has; they stay unused. */
  readonly skipped: { readonly from: Offset; readonly to: Offset } | undefined;
  readonly elapsedMs: number;
}

/** The last commit, as it stands in its old segment. */
export interface LastCommit {
  readonly frames: readonly { readonly bytes: Buffer; readonly rawLength: number }[];
  /** Stream table of the old segment. */
  readonly streams: readonly string[];
  readonly base: Offset;
  readonly end: Offset;
  readonly segment: number;
  /** The old segment without it. */
  readonly keepBytes: number;
}

export interface Recovered {
  readonly id: string;
  /** For this run: one more than any found. */
  readonly epoch: number;
  readonly nextNumber: number;
  readonly segments: readonly LiveSegment[];
  readonly lastCommit: LastCommit | undefined;
  /** The offset of the first new record. */
  readonly next: Offset;
  /** Files that hold nothing that counts: to be deleted once this run's segment is durable. */
  readonly garbage: readonly string[];
  readonly report: RecoveryReport;
}

/** A segment file as far as rule 1 reads it. */
interface Found {
  readonly number: number;
  readonly size: number;
  readonly writtenMs: number;
  readonly header: SegmentHeader | undefined;
  readonly headerLength: number;
}

interface FoundFrames extends Found {
  /** The first valid frame. */
  readonly firstFrame: Frame | undefined;
  /** Something that should be a frame stands before it. */
  readonly isBeginningLost: boolean;
}

export function recover(dir: string): Recovered {
  const startedMs = performance.now();
  const found = readHeaders(dir);
  const id = identify(dir, found);
  const seed = toFrameSeed(id);
  const files = found.map((file) => readFirstFrame(dir, file, seed));
  const { live, superseded, empty } = sortOut(files);
  const last = live.at(-1);
  const scan = last === undefined ? undefined : scanSegment(dir, last.file, seed, last.base);

  const segments = live.map(({ file: { number, size, writtenMs }, base, end }) => {
    return { number, base, end, bytes: size, endedMs: writtenMs };
  });
  const lastCommit = scan?.lastCommit;
  const garbage = superseded.map(({ number }) => toSegmentName(number));
  if (lastCommit !== undefined) {
    const kept = segments.pop();
    if (kept !== undefined && lastCommit.base > kept.base) {
      segments.push({ ...kept, end: lastCommit.base, bytes: lastCommit.keepBytes });
    } else if (kept !== undefined) {
      garbage.push(toSegmentName(kept.number));
    }
  }

  const end = Math.max(scan?.end ?? 0, ...found.map(({ header }) => header?.baseOffset ?? 0));
  const next = Math.max(end, ...listCursors(join(dir, cursorsFolder)).map(({ position }) => position));
  const { unreadable, tornBytes } = putAside(dir, empty, last?.file.number ?? 0, garbage);
  const epochs = files.map(({ header, firstFrame }) => header?.epoch ?? firstFrame?.epoch ?? 0);
  return {
    id,
    epoch: Math.max(0, ...epochs) + 1,
    nextNumber: (found.at(-1)?.number ?? 0) + 1,
    segments,
    lastCommit,
    next: toOffset(next),
    garbage,
    report: {
      segments: live.length,
      tornBytes: tornBytes + (scan?.tornBytes ?? 0),
      superseded: superseded.length,
      damaged: scan?.damaged ?? [],
      unreadable,
      rewritten: lastCommit === undefined ? 0 : lastCommit.end - lastCommit.base,
      skipped: next > end ? { from: toOffset(end), to: toOffset(next) } : undefined,
      elapsedMs: performance.now() - startedMs,
    },
  };
}

function readHeaders(dir: string): Found[] {
  const numbers = readdirSync(dir)
    .map(parseSegmentName)
    .filter((number) => number !== undefined)
    .sort((a, b) => a - b);
  return numbers.map((number) => {
    const { bytes, size, writtenMs } = readPart(join(dir, toSegmentName(number)), 0, maximumHeaderBytes);
    const parsed = parseSegmentHeader(bytes);
    if (parsed.kind === "newer") {
      throw new SluiceError("SLUICE_JOURNAL_VERSION", `${toSegmentName(number)} has version ${parsed.version}`);
    }
    return parsed.kind === "header"
      ? { number, size, writtenMs, header: parsed.header, headerLength: parsed.length }
      : { number, size, writtenMs, header: undefined, headerLength: segmentHeaderBytes };
  });
}

/** The journal's id, by its newest segment; a new one when the folder is new. */
function identify(dir: string, found: readonly Found[]): string {
  const ids = new Set(found.map(({ header }) => header?.journalId).filter((id) => id !== undefined));
  const [id, other] = ids;
  if (other !== undefined) {
    throw new SluiceError(
      "SLUICE_JOURNAL_DAMAGED",
      `${dir} has segments of more than one journal: ${[...ids].join(", ")}`,
    );
  }
  if (id !== undefined) return id;
  // A crash in the very first start leaves a file that is not yet a segment.
  if (found.some(({ size }) => size > maximumHeaderBytes)) {
    throw new SluiceError("SLUICE_JOURNAL_DAMAGED", `no segment in ${dir} has a readable header`);
  }
  return randomBytes(16).toString("hex");
}

function readFirstFrame(dir: string, file: Found, seed: number): FoundFrames {
  const { number, size, headerLength } = file;
  if (size <= headerLength) return { ...file, firstFrame: undefined, isBeginningLost: false };
  const path = join(dir, toSegmentName(number));
  const first = parseFrame(readPart(path, headerLength, maximumFrameBytes).bytes, 0, seed);
  if (first !== undefined) return { ...file, firstFrame: first, isBeginningLost: false };
  const bytes = readFileSync(path);
  const at = findFrame(bytes, segmentHeaderBytes, seed, 0);
  return { ...file, firstFrame: at === undefined ? undefined : parseFrame(bytes, at, seed), isBeginningLost: true };
}

/** Rule 2, from the newest segment to the oldest: what counts, each up to the base of the next. */
function sortOut(files: readonly FoundFrames[]): {
  live: { file: FoundFrames; base: Offset; end: Offset }[];
  superseded: FoundFrames[];
  empty: FoundFrames[];
} {
  const live: { file: FoundFrames; base: Offset; end: Offset }[] = [];
  const superseded: FoundFrames[] = [];
  const empty: FoundFrames[] = [];
  let end = toOffset(Number.MAX_SAFE_INTEGER);
  for (const file of files.toReversed()) {
    const base = file.firstFrame?.baseOffset;
    if (base === undefined) empty.push(file);
    else if (base >= end) superseded.push(file);
    else {
      live.unshift({ file, base, end });
      end = base;
    }
  }
  // What the journal begins with is told by no other segment, when its first frames are damaged; nor by itself, when its
  // header is damaged too, unless it is the first segment of all.
  const [oldest] = live;
  if (oldest?.file.isBeginningLost === true) {
    const { header, number } = oldest.file;
    const begin = header?.baseOffset ?? (number === 1 ? 0 : oldest.base);
    live[0] = { ...oldest, base: toOffset(Math.min(oldest.base, begin)) };
  }
  return { live, superseded, empty };
}

/** Rules 3 to 5 for the last segment with records. */
function scanSegment(
  dir: string,
  file: FoundFrames,
  seed: number,
  base: Offset,
): { end: Offset; lastCommit: LastCommit | undefined; damaged: DamagedRange[]; tornBytes: number } {
  const bytes = readFileSync(join(dir, toSegmentName(file.number)));
  const damaged: DamagedRange[] = [];
  // The header says where the segment begins, also when its first frame is gone.
  let end = file.header === undefined ? base : toOffset(Math.min(base, file.header.baseOffset));
  let at = file.headerLength;
  let previous: Frame | undefined;
  let commit: { at: number; base: Offset; first: Frame; frames: { bytes: Buffer; rawLength: number }[] } | undefined;
  while (at < bytes.length) {
    const frame = parseFrame(bytes, at, seed);
    if (frame === undefined || frame.baseOffset < end) {
      const found = findFrame(bytes, at + 8, seed, end);
      if (found === undefined) break;
      const to = parseFrame(bytes, found, seed)?.baseOffset ?? end;
      const inLastCommit = previous === undefined || previous.lastOfCommit;
      damaged.push({ segment: file.number, fromByte: at, toByte: found, from: end, to, inLastCommit });
      end = to;
      at = found;
      commit = undefined;
      continue;
    }
    if (commit?.first.epoch !== frame.epoch || commit.first.commit !== frame.commit) {
      commit = { at, base: frame.baseOffset, first: frame, frames: [] };
    }
    commit.frames.push({ bytes: Buffer.from(bytes.subarray(at, at + frame.length)), rawLength: frame.rawLength });
    end = toOffset(frame.baseOffset + frame.count);
    at += frame.length;
    previous = frame;
  }
  const lastCommit: LastCommit | undefined = commit && {
    frames: commit.frames,
    streams: file.header?.streams ?? [],
    base: commit.base,
    end,
    segment: file.number,
    keepBytes: commit.at,
  };
  const reported = damaged.map((range) => ({
    ...range,
    inLastCommit: range.inLastCommit && range.toByte === commit?.at,
  }));
  return { end, lastCommit, damaged: reported, tornBytes: bytes.length - at };
}

/** Segments without records: a torn or empty one goes; one among others that has bytes is kept under another name. */
function putAside(
  dir: string,
  empty: readonly Found[],
  lastNumber: number,
  garbage: string[],
): { unreadable: string[]; tornBytes: number } {
  const unreadable: string[] = [];
  let tornBytes = 0;
  for (const { number, size, headerLength } of empty) {
    const name = toSegmentName(number);
    if (size > headerLength && number < lastNumber) {
      renameSync(join(dir, name), join(dir, `${name}.damaged`));
      unreadable.push(name);
    } else {
      tornBytes += Math.max(0, size - headerLength);
      garbage.push(name);
    }
  }
  return { unreadable, tornBytes };
}

function readPart(
  path: string,
  position: number,
  length: number,
): { readonly bytes: Buffer; readonly size: number; readonly writtenMs: number } {
  const fd = openSync(path, "r");
  try {
    const { size, mtimeMs } = fstatSync(fd);
    const bytes = Buffer.alloc(Math.max(0, Math.min(length, size - position)));
    const read = readSync(fd, bytes, 0, bytes.length, position);
    return { bytes: bytes.subarray(0, read), size, writtenMs: mtimeMs };
  } finally {
    closeSync(fd);
  }
}
