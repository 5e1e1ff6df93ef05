// What the journal's folder holds, and what of it counts: what a start and the tools see alike. Changes nothing. The rules,
// in the order in which they apply:
//
// 1. The header and the first frame of every segment are read; a file of another journal or a newer version is refused.
//    A file under the name of another keeps its place, when that is free; one that cannot be placed does not count.
// 2. What lies at or above the base of the next segment is void: its commit failed and was written again there. So is what
//    lies below the beginning that the head tells.
// 3. A segment whose last frame ends where the next one begins is whole: only its end is read. Any other, and the last
//    one with records, is scanned in full, and what is missing is reported with its exact range.
// 4. A bad frame with valid frames behind it is damage of acknowledged data. A bad end of the last segment is the torn tail
//    of what was never acknowledged, unless head, cursors or the header of a later segment tell that it was.

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { SluiceError } from "../errors.ts";
import { toOffset, type Offset } from "../reading.ts";
import { cursorsFolder, listCursors, type FoundCursor } from "./cursor.ts";
import {
  findStrays,
  isMisnamed,
  readFirstFrame,
  readFolder,
  readFrames,
  type FoundSegment,
  type OpenedSegment,
} from "./folder.ts";
import type { PlacedFrame } from "./frame-file.ts";
import { readHead } from "./head.ts";
import { toLostRecords, type DamagedBytes, type LostRecords } from "./loss.ts";
import { noLimit, scanLast, scanSegment, type LastScan, type Scan } from "./segment-scan.ts";
import { frameMagicBytes, maximumHeaderBytes, toFrameSeed, toSegmentName } from "./segment.ts";
import type { Slot, StampedSlot } from "./slots.ts";

/** A segment with records that count. */
export interface LiveFile {
  readonly file: OpenedSegment;
  readonly first: PlacedFrame;
  /** Nothing lower is this segment's; of the oldest, where the journal begins. */
  readonly base: Offset;
  /** The first frame of the next; of the last, `noLimit`. */
  readonly end: Offset;
}

export interface Survey {
  readonly id: string;
  readonly seed: number;
  readonly head: StampedSlot | undefined;
  readonly cursors: readonly FoundCursor[];
  /** Files that stand in a segment's place, by number. */
  readonly files: readonly OpenedSegment[];
  readonly live: readonly LiveFile[];
  /** Segments whose records are all written again in a later one, or trimmed. */
  readonly superseded: readonly OpenedSegment[];
  /** Without one valid frame. */
  readonly empty: readonly OpenedSegment[];
  /** Files that are in nobody's place. */
  readonly strays: readonly FoundSegment[];
  /** Names of segments that are no files. */
  readonly strange: readonly string[];
  /** Of the last segment with records. */
  readonly last: LastScan | undefined;
  /** Of the others that were scanned in full, by number. */
  readonly scans: ReadonlyMap<number, Scan>;
  /** Behind the last record that is there. */
  readonly end: Offset;
  /** Behind the last record that was acknowledged, as far as anything tells: above `end` when the end is lost. */
  readonly next: Offset;
  readonly lost: readonly LostRecords[];
  /** Sentences about what else is not as it should be, and costs no record. */
  readonly notes: readonly string[];
}

/** `whole`: every segment is scanned in full, not only those that need it. */
export function survey(dir: string, whole: boolean): Survey {
  // Before the folder: a journal that is written to meanwhile has no less than they say.
  const { slot, note } = readHead(dir);
  const folder = readFolder(dir);
  const id = identify(dir, [...folder.segments, ...folder.doubles], slot);
  const head = slot?.journalId === id ? slot : undefined;
  const cursors = listCursors(join(dir, cursorsFolder), id);
  const seed = toFrameSeed(id);
  const opened = folder.segments.map((file) => readFirstFrame(dir, file, seed));
  const { ordered: files, strays } = findStrays(opened, head?.segment ?? 0);
  const sorted = sortOut(files, head);
  const { live, empty } = sorted;
  const newest = live.at(-1);
  const last = newest && scanLast(dir, newest.file, newest.first, files, seed);

  const bases = files.map(({ header }) => header?.baseOffset ?? 0);
  const told = [head?.offset ?? 0, ...bases, ...cursors.map(({ position }) => position)];
  const end = toOffset(last?.end ?? head?.first ?? Math.max(0, ...bases));
  const next = toOffset(Math.max(end, ...told));
  const scans = new Map<number, Scan>();
  const lost = [...findLost(dir, sorted, seed, whole, scans), ...(last?.lost ?? [])].map((range) =>
    mayBeTorn(range, last?.tornBase, head) ? { ...range, inLastCommit: true } : range,
  );
  if (next > end) lost.push(toLostEnd(end, next, { newest, last, empty, head }));
  const headNote = slot !== head && slot !== undefined ? `head belongs to journal ${slot.journalId}` : note;
  return {
    id,
    seed,
    head,
    cursors,
    files,
    ...sorted,
    strays: [...folder.doubles, ...strays],
    strange: folder.strange,
    last,
    scans,
    end,
    next,
    lost,
    notes: toNotes(folder.strange, live, cursors, headNote),
  };
}

/** The journal's id, by its headers, else by its head; a new one when the folder is new. */
function identify(dir: string, found: readonly FoundSegment[], head: Slot | undefined): string {
  const names = new Map(found.flatMap(({ header, name }) => (header === undefined ? [] : [[header.journalId, name]])));
  const [id, other] = names.keys();
  if (other !== undefined) {
    const files = [...names].map(([one, name]) => `${name} of ${one}`);
    throw new SluiceError(
      "SLUICE_JOURNAL_DAMAGED",
      `${dir} has segments of more than one journal: ${files.join(", ")}`,
    );
  }
  if (id !== undefined) return id;
  if (head !== undefined) return head.journalId;
  // A crash in the very first start leaves a file that is not yet a segment: it has no frame.
  if (found.some((file) => file.size > maximumHeaderBytes || hasFrame(dir, file))) {
    throw new SluiceError("SLUICE_JOURNAL_DAMAGED", `no segment in ${dir} has a readable header`);
  }
  return randomBytes(16).toString("hex");
}

const hasFrame = (dir: string, segment: FoundSegment): boolean =>
  readFrames(dir, segment, 0, (file) => file.copy(0, file.size).includes(frameMagicBytes));

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
  let end = noLimit;
  for (const file of files.toReversed()) {
    const { first } = file;
    if (first === undefined) empty.push(file);
    // One that lies before the beginning was trimmed, and a power cut has brought its name back.
    else if (first.frame.baseOffset >= end || end <= (head?.first ?? 0)) superseded.push(file);
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
function toBeginning(
  { file: { header, headerLength, number }, first, base }: LiveFile,
  head: Slot | undefined,
): number {
  if (head !== undefined) return head.first;
  if (first.at === headerLength) return base;
  return header?.baseOffset ?? (number === 1 ? 0 : base);
}

/** Rule 3: what is missing before each segment, and within those that are not whole. */
function* findLost(
  dir: string,
  { live, empty }: Sorted,
  seed: number,
  whole: boolean,
  scans: Map<number, Scan>,
): Generator<LostRecords> {
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
    const isWhole = end === noLimit || (!whole && readFrames(dir, file, seed, (frames) => frames.endsWith(end)));
    if (isWhole) {
      before = { number, size, end, damaged: undefined };
    } else {
      const scan = readFrames(dir, file, seed, (frames) => scanSegment(frames, number, first, end));
      scans.set(number, scan);
      yield* scan.lost;
      before = { number, size, end: scan.end, damaged: toBytes(number, scan.endByte, size) };
    }
  }
}

/** What stands from one byte to another without being a record. */
const toBytes = (number: number, fromByte: number, toByte: number): DamagedBytes | undefined =>
  fromByte < toByte ? { file: toSegmentName(number), fromByte, toByte } : undefined;

const toHollow = ({
  number,
  headerLength,
  size,
}: FoundSegment): { number: number; damaged: DamagedBytes | undefined } => ({
  number,
  damaged: toBytes(number, Math.min(headerLength, size), size) ?? {
    file: toSegmentName(number),
    fromByte: size,
    toByte: size,
  },
});

/** What is lost before the last commit may be its beginning, never acknowledged, unless the head says that it was. */
function mayBeTorn({ to, missing }: LostRecords, tornBase: Offset | undefined, head: Slot | undefined): boolean {
  return to === tornBase && missing === undefined && !(head !== undefined && head.offset >= to);
}

/** What head, cursors and headers know of and no segment has. */
function toLostEnd(
  from: Offset,
  to: Offset,
  parts: {
    readonly newest: LiveFile | undefined;
    readonly last: LastScan | undefined;
    readonly empty: readonly OpenedSegment[];
    readonly head: Slot | undefined;
  },
): LostRecords {
  const { newest, last, empty, head } = parts;
  const number = newest?.file.number ?? 0;
  const size = newest?.file.size ?? 0;
  const before = newest && { number, size, damaged: last && toBytes(number, last.endByte, size) };
  const between = empty.filter((one) => one.number > number && one.size > one.headerLength).map(toHollow);
  const highest = Math.max(head?.segment ?? 0, ...between.map((one) => one.number));
  const after = highest > number ? { missing: highest } : undefined;
  return toLostRecords({ from, to, before, between, after });
}

function toNotes(
  strange: readonly string[],
  live: readonly LiveFile[],
  cursors: readonly FoundCursor[],
  headNote: string | undefined,
): readonly string[] {
  const misnamed = live.map(({ file }) => file).filter(isMisnamed);
  const headless = live.filter(({ file: { header } }) => header === undefined);
  return [
    ...strange.map((name) => `${name} is not a file, and is ignored`),
    ...misnamed.map(({ name, number }) => `${name} is ${toSegmentName(number)} by its header, and is read as such`),
    ...headless.map(
      ({ file: { number } }) => `the header of ${toSegmentName(number)} is damaged; its records are read`,
    ),
    ...cursors.flatMap(({ name, damage }) =>
      damage === undefined ? [] : [`the cursor of ${name} is not used: ${damage}`],
    ),
    ...(headNote === undefined ? [] : [headNote]),
  ];
}
