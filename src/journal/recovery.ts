// What a start makes of what it finds in the journal's folder (survey.ts). Called with the lock held, before anything is
// written. Nothing that was acknowledged is ever cut:
//
// - Files that do not count are kept under another name (`.damaged`); only what is void or has no record is deleted.
// - The last commit may be in the page cache only (its sync failed, then the process ended): it is handed back, to be
//   written again into the new segment before the old copy is cut, and with it a torn tail. One is enough: one commit is
//   in flight at a time.
// - No offset below the head or a cursor is used again: a sink would take the new record for one that it has. When the
//   end is lost, the last commit that is there was followed by others, so that it is durable: nothing is cut then.

import { toOffset, type Offset } from "../reading.ts";
import { isMisnamed, rearrange, type OpenedSegment } from "./folder.ts";
import type { LostRecords } from "./loss.ts";
import type { LastCommit } from "./segment-scan.ts";
import { toSegmentName } from "./segment.ts";
import type { LiveSegment } from "./store.ts";
import { survey, type LiveFile, type Survey } from "./survey.ts";

/** What a start found; all zero and empty after a clean stop but for `segments` and `rewritten`. */
export interface RecoveryReport {
  /** Segments with records. */
  readonly segments: number;
  /** Bytes of a write that never became durable, cut off. */
  readonly tornBytes: number;
  /** Segments whose records are all written again in a later one, or were trimmed before: deleted. */
  readonly superseded: number;
  /** Records that the journal no longer has, in order; also those that an earlier start has told of. */
  readonly lost: readonly LostRecords[];
  /** Segments that are in nobody's place or without one valid frame among others: kept as `.damaged`. */
  readonly aside: readonly string[];
  /** Sentences about what else is not as it should be, and costs no record. */
  readonly notes: readonly string[];
  /** Records of the last commit, written again. */
  readonly rewritten: number;
  readonly elapsedMs: number;
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

/** Throws SluiceError: SLUICE_JOURNAL_VERSION, _DAMAGED, or SLUICE_DATA_DIR with the file that cannot be read or moved. */
export function recover(dir: string): Recovered {
  const startedMs = performance.now();
  const found = survey(dir, false);
  const { id, head, files, live, superseded, last, next, strays, lost, notes } = found;
  const { unreadable, hollow } = toHollow(found);
  const aside = [...strays, ...unreadable];
  rearrange(
    dir,
    files.filter(isMisnamed).filter((file) => !aside.includes(file)),
    aside,
  );
  const isCutShort = next > found.end;
  const lastCommit = isCutShort ? undefined : last?.lastCommit;
  const { segments, garbage } = toSegments(live, lastCommit, next);
  const tornBytes = hollow.reduce((sum, file) => sum + Math.max(0, file.size - file.headerLength), 0);
  return {
    id,
    epoch: Math.max(0, head?.epoch ?? 0, ...files.flatMap(toEpochs)) + 1,
    nextNumber: toNextNumber(found),
    segments,
    lastCommit,
    next,
    garbage: [...garbage, ...[...superseded, ...hollow].map(({ number }) => toSegmentName(number))],
    report: {
      segments: live.length,
      tornBytes: tornBytes + (isCutShort ? 0 : (last?.tailBytes ?? 0)),
      superseded: superseded.length,
      lost,
      aside: aside.map(({ name }) => name),
      notes,
      rewritten: lastCommit === undefined ? 0 : lastCommit.end - lastCommit.base,
      elapsedMs: performance.now() - startedMs,
    },
  };
}

/** Segments without a record: a torn or empty one goes; one with bytes that were acknowledged stays for a person. */
function toHollow({ empty, live, next, end }: Survey): {
  readonly unreadable: readonly OpenedSegment[];
  readonly hollow: readonly OpenedSegment[];
} {
  const lastNumber = next > end ? Infinity : (live.at(-1)?.file.number ?? 0);
  const isUnreadable = ({ number, size, headerLength }: OpenedSegment): boolean =>
    size > headerLength && number < lastNumber;
  return { unreadable: empty.filter(isUnreadable), hollow: empty.filter((file) => !isUnreadable(file)) };
}

/** What readers will see. The last segment goes on without its last commit. */
function toSegments(
  live: readonly LiveFile[],
  lastCommit: LastCommit | undefined,
  next: Offset,
): { segments: LiveSegment[]; garbage: string[] } {
  const segments = live.map(({ file: { number, size, writtenMs }, base, end }) => ({
    number,
    base,
    end: toOffset(Math.min(end, next)),
    bytes: size,
    endedMs: writtenMs,
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

const toEpochs = ({ header, first }: OpenedSegment): readonly number[] => [header?.epoch ?? 0, first?.frame.epoch ?? 0];

/** Higher than any that the journal gave, and not the name of something else. */
function toNextNumber({ files, live, head, strange }: Survey): number {
  const given = files.filter(({ header }) => header !== undefined).map(({ number }) => number);
  const taken = new Set([...files.map(({ number }) => toSegmentName(number)), ...strange]);
  let number = Math.max(0, ...given, live.at(-1)?.file.number ?? 0, head?.segment ?? 0) + 1;
  while (taken.has(toSegmentName(number))) number += 1;
  return number;
}
