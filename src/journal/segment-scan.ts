// One segment from its first frame to its end: what it has, what of it is gone, and which commit was its last.

import { toOffset, type Offset } from "../reading.ts";
import { compareAge, readFrames, type OpenedSegment } from "./folder.ts";
import type { FrameFile, PlacedFrame } from "./frame-file.ts";
import type { DamagedBytes, LostRecords } from "./loss.ts";
import { toSegmentName, type Frame } from "./segment.ts";

export const noLimit = toOffset(Number.MAX_SAFE_INTEGER);

export interface Scan {
  readonly records: number;
  /** Behind the last record, in the journal and in the file. */
  readonly end: Offset;
  readonly endByte: number;
  /** When the last frame's first record was received. */
  readonly lastTimeMs: number;
  readonly lost: readonly LostRecords[];
  /** Bytes between frames that are none, and cost no record. */
  readonly harmless: readonly DamagedBytes[];
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

export interface LastScan extends Scan {
  /** Undefined also when its streams cannot be told: then it cannot be written again. */
  readonly lastCommit: LastCommit | undefined;
  /** Bytes behind the last record. */
  readonly tailBytes: number;
  /** Where the last commit that is there begins, when what is lost before it may belong to it. */
  readonly tornBase: Offset | undefined;
}

type OnFrame = (placed: PlacedFrame, isBehindGap: boolean) => void;

/** Reads a segment from its first frame to the first that is void, or to its end. */
export function scanSegment(
  frames: FrameFile,
  number: number,
  first: PlacedFrame,
  limit: Offset,
  onFrame?: OnFrame,
): Scan {
  const file = toSegmentName(number);
  const lost: LostRecords[] = [];
  const harmless: DamagedBytes[] = [];
  let end = first.frame.baseOffset;
  let endByte = first.at;
  let records = 0;
  let lastTimeMs = first.frame.baseTimeMs;
  for (const item of frames.scan(first.at, end)) {
    if (item.kind === "damaged") continue;
    const { at, frame } = item;
    if (frame.baseOffset >= limit) break;
    const damaged = { file, fromByte: endByte, toByte: at };
    const isGap = frame.baseOffset > end;
    if (isGap) {
      lost.push({ from: end, to: frame.baseOffset, damaged: [damaged], missing: undefined, inLastCommit: false });
    } else if (at > endByte) {
      harmless.push(damaged);
    }
    onFrame?.(item, isGap || at > endByte);
    records += frame.count;
    lastTimeMs = frame.baseTimeMs;
    end = toOffset(frame.baseOffset + frame.count);
    endByte = at + frame.length;
  }
  return { records, end, endByte, lastTimeMs, lost, harmless };
}

interface CommitInHand {
  readonly at: number;
  readonly first: Frame;
  readonly frames: { readonly bytes: Buffer; readonly rawLength: number }[];
  /** Bytes before it are damaged, and may have been its first frames. */
  readonly mayMiss: boolean;
}

/** Reads the last segment with records; `files` are all, for the stream tables. */
export function scanLast(
  dir: string,
  file: OpenedSegment,
  first: PlacedFrame,
  files: readonly OpenedSegment[],
  seed: number,
): LastScan {
  return readFrames(dir, file, seed, (frames) => {
    let commits: readonly CommitInHand[] = [];
    let isComplete = true;
    const scan = scanSegment(frames, file.number, first, noLimit, ({ at, frame }, isBehindGap) => {
      const isBehindDamage = isBehindGap || (at === first.at && at !== file.headerLength);
      const [commit] = commits;
      if (commit === undefined || isBehindDamage || compareAge(commit.first, frame) !== 0) {
        commits = [{ at, first: frame, frames: [], mayMiss: isBehindDamage && isComplete }];
      }
      commits[0]?.frames.push({ bytes: frames.copy(at, frame.length), rawLength: frame.rawLength });
      isComplete = frame.lastOfCommit;
    });
    const [commit] = commits;
    return {
      ...scan,
      lastCommit: commit && toLastCommit(commit, scan.end, file.number, files),
      tailBytes: frames.size - scan.endByte,
      tornBase: commit?.mayMiss === true ? commit.first.baseOffset : undefined,
    };
  });
}

function toLastCommit(
  { at, first, frames }: CommitInHand,
  end: Offset,
  segment: number,
  files: readonly OpenedSegment[],
): LastCommit | undefined {
  // All segments of a run have the same table.
  const header = files.find((file) => file.header?.epoch === first.epoch)?.header;
  if (header === undefined) return undefined;
  return { frames, streams: header.streams, base: first.baseOffset, end, segment, keepBytes: at };
}
