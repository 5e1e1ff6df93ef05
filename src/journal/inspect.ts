// What `sluice journal stat` and `verify` tell of a journal, from its files only: no lock is taken and nothing is written,
// so that they may look at one that a gateway writes to, trims and rolls meanwhile.

import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { SluiceError } from "../errors.ts";
import type { Offset, UnixMs } from "../reading.ts";
import type { FoundCursor } from "./cursor.ts";
import { listSegments, type OpenedSegment } from "./folder.ts";
import { countLost, type DamagedBytes, type LostRecords } from "./loss.ts";
import { noLimit } from "./segment-scan.ts";
import { survey, type LiveFile, type Survey } from "./survey.ts";

/** A folder that changes while it is read is read again, this often. */
const maximumTries = 5;
/** SQLite locks bytes from here on. */
const sqliteLockByte = 0x4000_0000;

interface SegmentStat {
  readonly name: string;
  readonly bytes: number;
  /** The first record, and behind the last. */
  readonly from: Offset;
  readonly to: Offset;
  readonly epoch: number;
  /** When the first record was received. */
  readonly timeMs: UnixMs;
}

export interface JournalStat {
  readonly id: string;
  /** unknown: not this system. */
  readonly lock: "held" | "free" | "unknown";
  readonly epoch: number;
  readonly bytes: number;
  readonly firstOffset: Offset;
  /** Behind the last record. */
  readonly end: Offset;
  readonly records: number;
  /** Of which is known without reading everything: `verifyJournal` does that. */
  readonly lostRecords: number;
  readonly firstTimeMs: UnixMs | undefined;
  readonly lastTimeMs: UnixMs | undefined;
  readonly head: { readonly durable: Offset; readonly segment: number; readonly timeMs: UnixMs } | undefined;
  readonly segments: readonly SegmentStat[];
  readonly cursors: readonly (FoundCursor & { readonly lag: number })[];
}

/** Throws SluiceError when there is no journal, or it cannot be read. */
export function statJournal(dir: string): JournalStat {
  const found = lookAt(dir, false);
  const { id, live, head, last, next, lost, cursors, files } = found;
  const firstOffset = live[0]?.base ?? next;
  const lostRecords = countLost(lost);
  return {
    id,
    lock: readLock(dir),
    epoch: Math.max(0, head?.epoch ?? 0, ...files.map(({ header }) => header?.epoch ?? 0)),
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    firstOffset,
    end: next,
    records: next - firstOffset - lostRecords,
    lostRecords,
    firstTimeMs: live[0]?.first.frame.baseTimeMs,
    lastTimeMs: last?.lastTimeMs,
    head: head && { durable: head.offset, segment: head.segment, timeMs: head.timeMs },
    segments: live.map(({ file, first, end }) => ({
      name: file.name,
      bytes: file.size,
      from: first.frame.baseOffset,
      to: end === noLimit ? found.end : end,
      epoch: first.frame.epoch,
      timeMs: first.frame.baseTimeMs,
    })),
    cursors: cursors.map((cursor) => ({ ...cursor, lag: Math.max(0, next - Math.max(cursor.position, firstOffset)) })),
  };
}

export interface Verification {
  readonly id: string;
  readonly segments: number;
  readonly bytes: number;
  readonly records: number;
  readonly firstOffset: Offset;
  readonly end: Offset;
  readonly lost: readonly LostRecords[];
  /** Bytes that should be frames, are none, and cost no record. */
  readonly harmless: readonly DamagedBytes[];
  /** Sentences about the rest. */
  readonly notes: readonly string[];
  /** Behind the last record: a write in progress, or one that a crash has torn. */
  readonly unfinishedBytes: number;
}

/** Reads everything and checks every frame. Throws like `statJournal`. */
export function verifyJournal(dir: string): Verification {
  const { id, live, last, scans, next, end, lost, notes, strays, files, empty } = lookAt(dir, true);
  const all = [...scans.values(), ...(last === undefined ? [] : [last])];
  return {
    id,
    segments: live.length,
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    records: all.reduce((sum, { records }) => sum + records, 0),
    firstOffset: live[0]?.base ?? next,
    end: next,
    lost,
    harmless: all.flatMap(({ harmless }) => harmless),
    notes: [
      ...notes,
      ...strays.map(({ name }) => `${name} is in no segment's place, and is not read`),
      ...empty.filter(isAmong(live)).map(({ name }) => `${name} has not one valid frame`),
    ],
    unfinishedBytes: next > end ? 0 : (last?.tailBytes ?? 0),
  };
}

/** A segment with bytes behind which others follow; the newest may be in the making. */
const isAmong =
  (live: readonly LiveFile[]) =>
  ({ number, size, headerLength }: OpenedSegment): boolean =>
    size > headerLength && number < (live.at(-1)?.file.number ?? 0);

export const isClean = ({ lost, harmless, notes }: Verification): boolean =>
  lost.length + harmless.length + notes.length === 0;

/** A survey that is not fooled by segments that come and go while it reads. */
export function lookAt(dir: string, whole: boolean): Survey {
  for (let left = maximumTries; ; left -= 1) {
    const before = listSegments(dir);
    try {
      const found = survey(dir, whole);
      const isJournal = found.files.length > 0 || found.head !== undefined || found.strays.length > 0;
      if (!isJournal) throw new SluiceError("SLUICE_DATA_DIR", `${dir}: there is no journal`);
      if (found.lost.length === 0 || left === 1 || before.join() === listSegments(dir).join()) return found;
    } catch (error) {
      // Trimmed between the list and the look.
      if (left === 1 || !isGone(error)) throw error;
    }
  }
}

const isGone = (error: unknown): boolean =>
  error instanceof SluiceError &&
  error.cause instanceof Error &&
  "code" in error.cause &&
  error.cause.code === "ENOENT";

/** Whether a process holds the journal's lock: asked of the kernel, since a try would be in the way of a start. */
export function readLock(dir: string): JournalStat["lock"] {
  try {
    const inode = statSync(join(dir, "lock"), { throwIfNoEntry: false })?.ino;
    if (inode === undefined) return "free";
    const isHeld = readFileSync("/proc/locks", "utf8")
      .split("\n")
      .map((line) => /:(\d+) (\d+) \S+$/.exec(line))
      .some((match) => Number(match?.[1]) === inode && Number(match?.[2]) >= sqliteLockByte);
    return isHeld ? "held" : "free";
  } catch {
    return "unknown";
  }
}
