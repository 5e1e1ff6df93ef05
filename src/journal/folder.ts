// The segment files of a journal's folder as they are found, whoever put them there: a name is not trusted before the
// header confirms it, and nothing is deleted. Read-only but for `rearrange`.

import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { SluiceError, toError } from "../errors.ts";
import { FrameFile, type PlacedFrame } from "./frame-file.ts";
import {
  maximumHeaderBytes,
  parseSegmentHeader,
  parseSegmentName,
  segmentHeaderBytes,
  toSegmentName,
  type Frame,
  type SegmentHeader,
} from "./segment.ts";

/** No journal leaves out so many numbers: a higher one was not given by it. */
const longestSpan = 2 ** 20;

/** A segment file as far as its header. */
export interface FoundSegment {
  /** Of the file. */
  readonly name: string;
  /** By the header; when that is damaged by the name. */
  readonly number: number;
  readonly size: number;
  /** When it was last written to. */
  readonly writtenMs: number;
  /** Undefined: it is damaged. */
  readonly header: SegmentHeader | undefined;
  /** Where the first frame should be. */
  readonly headerLength: number;
}

/** A segment file as far as its first frame. */
export interface OpenedSegment extends FoundSegment {
  /** The first valid frame. */
  readonly first: PlacedFrame | undefined;
}

export interface FoundFolder {
  /** In their places, by number. */
  readonly segments: readonly FoundSegment[];
  /** Files that stand for a segment whose place another has: not read. */
  readonly doubles: readonly FoundSegment[];
  /** Names of segments that are no files: folders, links to nothing. */
  readonly strange: readonly string[];
}

/**
 * A file under a name that is not its own keeps its place when no other has it. Throws SLUICE_JOURNAL_VERSION when a file
 * is of a newer version, SLUICE_DATA_DIR when one cannot be read.
 */
export function readFolder(dir: string): FoundFolder {
  const strange: string[] = [];
  const segments: FoundSegment[] = [];
  const misnamed: FoundSegment[] = [];
  for (const name of listSegments(dir)) {
    const path = join(dir, name);
    if (naming(path, () => statSync(path, { throwIfNoEntry: false }))?.isFile() === true) {
      const segment = readStart(dir, name);
      (isMisnamed(segment) ? misnamed : segments).push(segment);
    } else if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) {
      strange.push(name); // else a gateway has trimmed it since the folder was listed
    }
  }
  const doubles: FoundSegment[] = [];
  for (const segment of misnamed) {
    const isTaken = segments.some(({ number }) => number === segment.number);
    (isTaken || strange.includes(toSegmentName(segment.number)) ? doubles : segments).push(segment);
  }
  return { segments: segments.toSorted((a, b) => a.number - b.number), doubles, strange };
}

export const isMisnamed = ({ name, number }: FoundSegment): boolean => name !== toSegmentName(number);

/** Names of segments, in order. */
export function listSegments(dir: string): readonly string[] {
  return naming(dir, () => readdirSync(dir))
    .filter((name) => parseSegmentName(name) !== undefined)
    .toSorted();
}

function readStart(dir: string, name: string): FoundSegment {
  const path = join(dir, name);
  const { bytes, size, writtenMs } = naming(path, () => readBeginning(path));
  const parsed = parseSegmentHeader(bytes);
  if (parsed.kind === "newer") {
    throw new SluiceError("SLUICE_JOURNAL_VERSION", `${path} has version ${parsed.version}`);
  }
  return parsed.kind === "header"
    ? { name, number: parsed.header.number, size, writtenMs, header: parsed.header, headerLength: parsed.length }
    : {
        name,
        number: parseSegmentName(name) ?? 0,
        size,
        writtenMs,
        header: undefined,
        headerLength: segmentHeaderBytes,
      };
}

export function readFirstFrame(dir: string, segment: FoundSegment, seed: number): OpenedSegment {
  const { headerLength } = segment;
  const first = readFrames(dir, segment, seed, (file) => {
    const frame = file.frameAt(headerLength);
    return frame === undefined ? file.find(segmentHeaderBytes, 0) : { at: headerLength, frame };
  });
  return { ...segment, first };
}

/** Opens a segment's frames for the time of `read`. An error of the disk names the file. */
export function readFrames<T>(dir: string, { name }: FoundSegment, seed: number, read: (file: FrameFile) => T): T {
  const path = join(dir, name);
  return naming(path, () => {
    const fd = openSync(path, "r");
    try {
      return read(new FrameFile(fd, fstatSync(fd).size, seed));
    } finally {
      closeSync(fd);
    }
  });
}

/**
 * Files whose header does not tell their place, and whose frames say that they are elsewhere: older than those of a
 * segment before, or newer than those of one behind. So does a number far above `known`, one that the journal has given.
 */
export function findStrays(
  files: readonly OpenedSegment[],
  known: number,
): { ordered: OpenedSegment[]; strays: OpenedSegment[] } {
  const trusted = files.filter(({ header, first }) => header !== undefined && first !== undefined);
  const ordered: OpenedSegment[] = [];
  const strays: OpenedSegment[] = [];
  for (const file of files) {
    const isLost =
      file.header === undefined &&
      (file.number - Math.max(known, ordered.at(-1)?.number ?? 0) > longestSpan ||
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

/** The order in which frames were written. */
export const compareAge = (a: Frame, b: Frame): number => a.epoch - b.epoch || a.commit - b.commit;

/** Keeps files under names that nobody reads, and gives those that were misnamed their own. */
export function rearrange(dir: string, misnamed: readonly FoundSegment[], aside: readonly FoundSegment[]): void {
  for (const { name } of aside) setAside(dir, name);
  // All of them go first: two may have changed places.
  const moved = misnamed.map((segment) => ({ segment, from: setAside(dir, segment.name) }));
  for (const { segment, from } of moved) {
    const home = join(dir, toSegmentName(segment.number));
    naming(home, () => renameSync(from, home));
  }
}

function setAside(dir: string, name: string): string {
  const path = join(dir, name);
  let to = `${path}.damaged`;
  for (let count = 2; existsSync(to); count += 1) to = `${path}.${count}.damaged`;
  naming(path, () => renameSync(path, to));
  return to;
}

function readBeginning(path: string): { bytes: Buffer; size: number; writtenMs: number } {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const { size, mtimeMs: writtenMs } = fstatSync(fd);
    const bytes = Buffer.alloc(Math.min(maximumHeaderBytes, size));
    return { bytes: bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0)), size, writtenMs };
  } finally {
    closeSync(fd);
  }
}

function naming<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    throw new SluiceError("SLUICE_DATA_DIR", `${path}: ${toError(error).message}`, { cause: error });
  }
}
