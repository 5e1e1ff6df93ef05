// What a start finds in the journal's folder, and what of it counts. Called with the lock held, before anything is
// written. Nothing that was acknowledged is ever cut; the rules, in the order in which they apply:
//
// 1. The header and the first frame of every segment are read; a file of another journal or a newer version is refused.
//    A file that stands in another's place is put back in its own, or set aside.
// 2. What lies at or above the base of the next segment is void: its commit failed and was written again there.
// 3. A segment whose last frame ends where the next one begins is whole: only its end is read. Any other, and the last
//    one with records, is scanned in full, and what is missing is reported with its exact range.
// 4. A bad frame with valid frames behind it is damage of acknowledged data: kept, reported, skipped by readers. A bad end
//    of the last segment is the torn tail of what was never acknowledged, unless head or cursors tell that it was.
// 5. The last commit may be in the page cache only (its sync failed, then the process ended): it is handed back, to be
//    written again into the new segment before the old copy is cut. One is enough: one commit is in flight at a time.
// 6. No offset below the head or a cursor is used again: a sink would take the new record for one that it has. What the
//    journal no longer has of them is reported as lost; then the last commit it has was followed by others, and stays.

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { SluiceError } from "../errors.ts";
import { toOffset, type Offset } from "../reading.ts";
import { cursorsFolder, listCursors, type FoundCursor } from "./cursor.ts";
import {
  putInPlace,
  readFirstFrame,
  readFolder,
  readFrames,
  setAside,
  type FoundSegment,
  type OpenedSegment,
} from "./folder.ts";
import type { FrameFile, PlacedFrame } from "./frame-file.ts";
import { readHead } from "./head.ts";
import { toLostRecords, type DamagedBytes, type LostRecords } from "./loss.ts";
import { frameMagicBytes, maximumHeaderBytes, toFrameSeed, toSegmentName, type Frame } from "./segment.ts";
import type { Slot } from "./slots.ts";
import type { LiveSegment } from "./store.ts";

/** No run makes so many segments ahead of another: a number beyond is not one that the journal gave. */
const longestSpan = 2 ** 20;

/** What a start found; all zero and empty after a clean stop but for `segments` and `rewritten`. */
export interface RecoveryReport {
  /** Segments with records. */
  readonly segments: number;
  /** Bytes of a write that never became durable, cut off. */
  readonly tornBytes: number;
  /** Segments whose records are all written again in a later one, deleted. */
  readonly superseded: number;
  /** Records that the journal no longer has, in order; also those that an earlier start has told of. */
  readonly lost: readonly LostRecords[];
  /** Segments in a wrong place or without one valid frame among others: kept as `.damaged`. */
  readonly aside: readonly string[];
  /** Sentences about what else is not as it should be, and costs no record. */
  readonly notes: readonly string[];
  /** Records of the last commit, written again. */
  readonly rewritten: number;
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

export function recover(dir: string): Recovered {
  const startedMs = performance.now();
  const folder = readFolder(dir);
  const { slot, note } = readHead(dir);
  const id = identify(dir, folder.segments, slot);
  const head = slot?.journalId === id ? slot : undefined;
  const cursors = listCursors(join(dir, cursorsFolder), id);
  const seed = toFrameSeed(id);
  const { inPlace, aside } = putInPlace(dir, folder.segments);
  const opened = inPlace.map((file) => readFirstFrame(dir, file, seed));
  const { ordered, strays } = findStrays(opened);
  for (const { number } of strays) setAside(dir, number);

  const sorted = sortOut(ordered, head);
  const { live, superseded, empty } = sorted;
  const last = live.at(-1);
  const scan = last === undefined ? undefined : scanLast(dir, last.file, ordered, seed);
  // What a header or a slot says was durable when it was written.
  const told = [head?.offset ?? 0, ...cursors.map(({ position }) => position)];
  const bases = inPlace.map(({ header }) => header?.baseOffset ?? 0);
  const end = scan?.end ?? head?.first ?? Math.max(0, ...bases);
  const next = toOffset(Math.max(end, ...told, ...bases));
  const isCutShort = next > end;
  const lastCommit = isCutShort ? undefined : scan?.lastCommit;

  const lost = [...findLost(dir, sorted, seed), ...(scan?.lost ?? [])].map((range) =>
    mayBeTorn(range, scan?.tornBase, head) ? { ...range, inLastCommit: true } : range,
  );
  if (isCutShort) lost.push(toLostEnd(toOffset(end), next, { last, scan, empty, head }));

  const { segments, garbage } = toSegments(live, lastCommit, next);
  garbage.push(...superseded.map(({ number }) => toSegmentName(number)));
  const put = putAside(dir, empty, isCutShort ? Infinity : (last?.file.number ?? 0));
  garbage.push(...put.garbage);
  const numbers = [...ordered, ...strays].map(({ header, number }) => (header === undefined ? 0 : number));
  const tornBytes = scan === undefined || isCutShort ? 0 : scan.tailBytes;
  return {
    id,
    epoch: Math.max(0, head?.epoch ?? 0, ...ordered.flatMap(toEpochs)) + 1,
    nextNumber: toNextNumber([...numbers, last?.file.number ?? 0, head?.segment ?? 0], folder),
    segments,
    lastCommit,
    next,
    garbage,
    report: {
      segments: live.length,
      tornBytes: tornBytes + put.tornBytes,
      superseded: superseded.length,
      lost,
      aside: [...aside, ...strays.map(({ number }) => toSegmentName(number)), ...put.aside],
      notes: toNotes(folder.strange, live, cursors, note ?? toHeadNote(slot, head)),
      rewritten: lastCommit === undefined ? 0 : lastCommit.end - lastCommit.base,
      elapsedMs: performance.now() - startedMs,
    },
  };
}

/** The journal's id, by its headers, else by its head; a new one when the folder is new. */
function identify(dir: string, found: readonly FoundSegment[], head: Slot | undefined): string {
  const ids = new Set(found.map(({ header }) => header?.journalId).filter((id) => id !== undefined));
  const [id, other] = ids;
  if (other !== undefined) {
    throw new SluiceError(
      "SLUICE_JOURNAL_DAMAGED",
      `${dir} has segments of more than one journal: ${[...ids].join(", ")}`,
    );
  }
  if (id !== undefined) return id;
  if (head !== undefined) return head.journalId;
  // A crash in the very first start leaves a file that is not yet a segment: it has no frame.
  if (found.some(({ size, number }) => size > maximumHeaderBytes || hasFrame(dir, number))) {
    throw new SluiceError("SLUICE_JOURNAL_DAMAGED", `no segment in ${dir} has a readable header`);
  }
  return randomBytes(16).toString("hex");
}

const hasFrame = (dir: string, number: number): boolean =>
  readFrames(dir, number, 0, (file) => file.copy(0, file.size).includes(frameMagicBytes));

/**
 * Files whose header does not tell their place, and whose frames say that they are elsewhere: older than those of a
 * segment before, or newer than those of one behind.
 */
function findStrays(files: readonly OpenedSegment[]): { ordered: OpenedSegment[]; strays: OpenedSegment[] } {
  const trusted = files.filter(({ header, first }) => header !== undefined && first !== undefined);
  const ordered: OpenedSegment[] = [];
  const strays: OpenedSegment[] = [];
  for (const file of files) {
    const isLost =
      file.header === undefined &&
      (file.number - (ordered.at(-1)?.number ?? file.number) > longestSpan ||
        [...trusted, ...ordered].some((other) => isMisplaced(file, other)));
    (isLost ? strays : ordered).push(file);
  }
  return { ordered, strays };
}

function isMisplaced(file: OpenedSegment, other: OpenedSegment): boolean {
  if (file.first === undefined || other.first === undefined) return false;
  const age = compareAge(file.first.frame, other.first.frame);
  return file.number < other.number ? age > 0 : age < 0;
}

const compareAge = (a: Frame, b: Frame): number => a.epoch - b.epoch || a.commit - b.commit;

interface LiveFile {
  readonly file: OpenedSegment;
  readonly first: PlacedFrame;
  /** Nothing lower is this segment's. */
  readonly base: Offset;
  /** The first frame of the next. */
  readonly end: Offset;
}

interface Sorted {
  readonly live: readonly LiveFile[];
  readonly superseded: readonly OpenedSegment[];
  /** Without one valid frame. */
  readonly empty: readonly OpenedSegment[];
}

/** Rule 2, from the newest segment to the oldest: what counts, each up to the base of the next. */
function sortOut(files: readonly OpenedSegment[], head: Slot | undefined): Sorted {
  const live: LiveFile[] = [];
  const superseded: OpenedSegment[] = [];
  const empty: OpenedSegment[] = [];
  let end = toOffset(Number.MAX_SAFE_INTEGER);
  for (const file of files.toReversed()) {
    const { first } = file;
    if (first === undefined) empty.push(file);
    else if (first.frame.baseOffset >= end) superseded.push(file);
    else {
      live.unshift({ file, first, base: first.frame.baseOffset, end });
      end = first.frame.baseOffset;
    }
  }
  const [oldest] = live;
  if (oldest !== undefined) live[0] = { ...oldest, base: toOffset(Math.min(oldest.base, toBeginning(oldest, head))) };
  return { live, superseded, empty };
}

/**
 * Where the journal begins is told by the head. Without it by the oldest segment: when its first frames are damaged by
 * its header, and when that is damaged too by its number, if it is the first of all.
 */
function toBeginning({ file: { header, headerLength, number }, first, base }: LiveFile, head: Slot | undefined): number {
  if (head !== undefined) return head.first;
  if (first.at === headerLength) return base;
  return header?.baseOffset ?? (number === 1 ? 0 : base);
}

/** Rule 3: what is missing before each segment, and within those that are not whole. */
function* findLost(dir: string, { live, empty }: Sorted, seed: number): Generator<LostRecords> {
  let before: { number: number; size: number; end: Offset; damaged: DamagedBytes | undefined } | undefined;
  for (const { file, first, base, end } of live) {
    const { number, size, headerLength } = file;
    const from = before?.end ?? base;
    const to = first.frame.baseOffset;
    const beginning = toBytes(number, headerLength, first.at);
    const between = empty.filter((one) => one.number < number && one.number > (before?.number ?? number));
    if (from < to) {
      yield toLostRecords({ from, to, before, between: between.map(toHollow), after: { number, damaged: beginning } });
    }
    const isLast = end === Number.MAX_SAFE_INTEGER;
    if (isLast || readFrames(dir, number, seed, (frames) => frames.endsWith(end))) {
      before = { number, size, end, damaged: undefined };
    } else {
      const scan = readFrames(dir, number, seed, (frames) => scanSegment(frames, number, first, end));
      yield* scan.lost;
      before = { number, size, end: scan.end, damaged: toBytes(number, scan.endByte, size) };
    }
  }
}

/** What stands from one byte to another without being a record. */
const toBytes = (number: number, fromByte: number, toByte: number): DamagedBytes | undefined =>
  fromByte < toByte ? { file: toSegmentName(number), fromByte, toByte } : undefined;

const toHollow = ({ number, headerLength, size }: FoundSegment): { number: number; damaged: DamagedBytes | undefined } => ({
  number,
  damaged: toBytes(number, Math.min(headerLength, size), size) ?? { file: toSegmentName(number), fromByte: size, toByte: size },
});

interface Scan {
  /** Behind the last record, in the journal and in the file. */
  readonly end: Offset;
  readonly endByte: number;
  readonly lost: readonly LostRecords[];
}

/** Reads a segment from its first frame to the first that is void, or to its end. */
export function scanSegment(
  frames: FrameFile,
  number: number,
  first: PlacedFrame,
  limit: Offset,
  onFrame: (placed: PlacedFrame, isBehindDamage: boolean) => void = () => {},
): Scan {
  const file = toSegmentName(number);
  const lost: LostRecords[] = [];
  let end = first.frame.baseOffset;
  let endByte = first.at;
  for (const item of frames.scan(first.at, end)) {
    if (item.kind === "damaged") continue;
    const { at, frame } = item;
    if (frame.baseOffset >= limit) break;
    const isBehindDamage = at !== endByte || frame.baseOffset > end;
    if (frame.baseOffset > end) {
      const damaged = [{ file, fromByte: endByte, toByte: at }];
      lost.push({ from: end, to: frame.baseOffset, damaged, missing: undefined, inLastCommit: false });
    }
    onFrame(item, isBehindDamage);
    end = toOffset(frame.baseOffset + frame.count);
    endByte = at + frame.length;
  }
  return { end, endByte, lost };
}

interface LastScan extends Scan {
  readonly lastCommit: LastCommit | undefined;
  /** Bytes behind the last record. */
  readonly tailBytes: number;
  /** Where the last commit that is there begins, when what is lost before it may belong to it. */
  readonly tornBase: Offset | undefined;
}

interface CommitInHand {
  readonly at: number;
  readonly first: Frame;
  readonly frames: { readonly bytes: Buffer; readonly rawLength: number }[];
  /** Bytes before it are damaged, and may have been its first frames. */
  readonly mayMiss: boolean;
}

/** Rules 4 and 5 for the last segment with records. */
function scanLast(dir: string, file: OpenedSegment, files: readonly OpenedSegment[], seed: number): LastScan | undefined {
  const { first, number } = file;
  if (first === undefined) return undefined;
  const hand: { commit: CommitInHand | undefined; previous: Frame | undefined } = { commit: undefined, previous: undefined };
  return readFrames(dir, number, seed, (frames) => {
    const scan = scanSegment(frames, number, first, toOffset(Number.MAX_SAFE_INTEGER), ({ at, frame }, isBehindDamage) => {
      const { commit, previous } = hand;
      const isBehindGap = isBehindDamage || (previous === undefined && at !== file.headerLength);
      if (commit === undefined || isBehindGap || compareAge(commit.first, frame) !== 0) {
        hand.commit = { at, first: frame, frames: [], mayMiss: isBehindGap && (previous?.lastOfCommit ?? true) };
      }
      hand.commit?.frames.push({ bytes: frames.copy(at, frame.length), rawLength: frame.rawLength });
      hand.previous = frame;
    });
    const { commit } = hand;
    const tailBytes = frames.size - scan.endByte;
    const lastCommit = commit && toLastCommit(commit, scan.end, number, findStreams(commit.first.epoch, files));
    return { ...scan, lastCommit, tailBytes, tornBase: commit?.mayMiss === true ? commit.first.baseOffset : undefined };
  });
}

function toLastCommit(
  { at, first, frames }: CommitInHand,
  end: Offset,
  segment: number,
  streams: readonly string[] | undefined,
): LastCommit | undefined {
  if (streams === undefined) return undefined;
  return { frames, streams, base: first.baseOffset, end, segment, keepBytes: at };
}

/** The stream table of a run; undefined: no header has it, and its records cannot be written again with their streams. */
const findStreams = (epoch: number, files: readonly OpenedSegment[]): readonly string[] | undefined =>
  files.find(({ header }) => header?.epoch === epoch)?.header?.streams;

/** What is lost before the last commit may be its beginning, never acknowledged, unless the head says that it was. */
function mayBeTorn({ to, missing }: LostRecords, tornBase: Offset | undefined, head: Slot | undefined): boolean {
  return to === tornBase && missing === undefined && !(head !== undefined && head.offset >= to);
}

/** Rule 6: what head and cursors know of and no segment has. */
function toLostEnd(
  from: Offset,
  to: Offset,
  parts: {
    readonly last: LiveFile | undefined;
    readonly scan: LastScan | undefined;
    readonly empty: readonly OpenedSegment[];
    readonly head: Slot | undefined;
  },
): LostRecords {
  const { last, scan, empty, head } = parts;
  const number = last?.file.number ?? 0;
  const size = last?.file.size ?? 0;
  const before = last && { number, size, damaged: scan && toBytes(number, scan.endByte, size) };
  const between = empty.filter((one) => one.number > number && one.size > one.headerLength).map(toHollow);
  const newest = Math.max(head?.segment ?? 0, ...between.map((one) => one.number));
  const after = newest > number ? { missing: newest } : undefined;
  return toLostRecords({ from, to, before, between, after });
}

/** What readers will see. The last segment goes on without its last commit. */
function toSegments(
  live: readonly LiveFile[],
  lastCommit: LastCommit | undefined,
  next: Offset,
): { segments: LiveSegment[]; garbage: string[] } {
  const segments = live.map(({ file: { number, size }, base, end }) => ({
    number,
    base,
    end: toOffset(Math.min(end, next)),
    bytes: size,
  }));
  const garbage: string[] = [];
  if (lastCommit !== undefined) {
    const kept = segments.pop();
    if (kept !== undefined && lastCommit.base > kept.base) {
      segments.push({ ...kept, end: lastCommit.base, bytes: lastCommit.keepBytes });
    } else if (kept !== undefined) {
      garbage.push(toSegmentName(kept.number));
    }
  }
  return { segments, garbage };
}

/** Segments without records: a torn or empty one goes; one with bytes among others is kept under another name. */
function putAside(
  dir: string,
  empty: readonly FoundSegment[],
  lastNumber: number,
): { aside: string[]; garbage: string[]; tornBytes: number } {
  const aside: string[] = [];
  const garbage: string[] = [];
  let tornBytes = 0;
  for (const { number, size, headerLength } of empty) {
    const name = toSegmentName(number);
    if (size > headerLength && number < lastNumber) {
      setAside(dir, number);
      aside.push(name);
    } else {
      tornBytes += Math.max(0, size - headerLength);
      garbage.push(name);
    }
  }
  return { aside, garbage, tornBytes };
}

const toEpochs = ({ header, first }: OpenedSegment): readonly number[] => [header?.epoch ?? 0, first?.frame.epoch ?? 0];

/** Higher than any that the journal gave, and not the name of something else. */
function toNextNumber(given: readonly number[], { segments, strange }: { segments: readonly FoundSegment[]; strange: readonly string[] }): number {
  const taken = new Set([...segments.map(({ number }) => toSegmentName(number)), ...strange]);
  let number = Math.max(0, ...given) + 1;
  while (taken.has(toSegmentName(number))) number += 1;
  return number;
}

const toHeadNote = (slot: Slot | undefined, head: Slot | undefined): string | undefined =>
  slot !== undefined && head === undefined ? `head belongs to journal ${slot.journalId}` : undefined;

function toNotes(
  strange: readonly string[],
  live: readonly LiveFile[],
  cursors: readonly FoundCursor[],
  headNote: string | undefined,
): readonly string[] {
  const headless = live.filter(({ file: { header } }) => header === undefined);
  return [
    ...strange.map((name) => `${name} is not a file, and is ignored`),
    ...headless.map(({ file: { number } }) => `the header of ${toSegmentName(number)} is damaged; its records are read`),
    ...cursors.flatMap(({ name, damage }) => (damage === undefined ? [] : [`the cursor of ${name} is not used: ${damage}`])),
    ...(headNote === undefined ? [] : [headNote]),
  ];
}
