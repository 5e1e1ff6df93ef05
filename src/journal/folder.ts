// The segment files of a journal's folder as they are found, whoever put them there: a name is not trusted before the
// header confirms it, and nothing is deleted. Read-only but for `putInPlace` and `setAside`.

import { closeSync, constants, existsSync, fstatSync, openSync, readdirSync, readSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { SluiceError, toError } from "../errors.ts";
import { FrameFile, type PlacedFrame } from "./frame-file.ts";
import {
  maximumHeaderBytes,
  parseSegmentHeader,
  parseSegmentName,
  segmentHeaderBytes,
  toSegmentName,
  type SegmentHeader,
} from "./segment.ts";

/** A segment file as far as its header. */
export interface FoundSegment {
  readonly number: number;
  readonly size: number;
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
  /** By number. */
  readonly segments: readonly FoundSegment[];
  /** Names of segments that are none: folders, links to nothing. */
  readonly strange: readonly string[];
}

/** Throws SLUICE_JOURNAL_VERSION when a file is of a newer version, SLUICE_DATA_DIR when one cannot be read. */
export function readFolder(dir: string): FoundFolder {
  const strange: string[] = [];
  const segments: FoundSegment[] = [];
  for (const number of listSegments(dir)) {
    const name = toSegmentName(number);
    const found = statSync(join(dir, name), { throwIfNoEntry: false })?.isFile() === true;
    if (found) segments.push(readStart(dir, number));
    else strange.push(name);
  }
  return { segments, strange };
}

/** Numbers for which there is a name, ascending. */
export function listSegments(dir: string): number[] {
  const names = naming(dir, () => readdirSync(dir));
  return names
    .map(parseSegmentName)
    .filter((number) => number !== undefined)
    .toSorted((a, b) => a - b);
}

export function readStart(dir: string, number: number): FoundSegment {
  const name = toSegmentName(number);
  const { bytes, size } = naming(join(dir, name), () => readBeginning(join(dir, name)));
  const parsed = parseSegmentHeader(bytes);
  if (parsed.kind === "newer") {
    throw new SluiceError("SLUICE_JOURNAL_VERSION", `${join(dir, name)} has version ${parsed.version}`);
  }
  return parsed.kind === "header"
    ? { number, size, header: parsed.header, headerLength: parsed.length }
    : { number, size, header: undefined, headerLength: segmentHeaderBytes };
}

export function readFirstFrame(dir: string, segment: FoundSegment, seed: number): OpenedSegment {
  const { number, headerLength } = segment;
  const first = readFrames(dir, number, seed, (file) => {
    const frame = file.frameAt(headerLength);
    return frame === undefined ? file.find(segmentHeaderBytes, 0) : { at: headerLength, frame };
  });
  return { ...segment, first };
}

/** Opens a segment's frames for the time of `read`. An error of the disk names the file. */
export function readFrames<T>(dir: string, number: number, seed: number, read: (file: FrameFile) => T): T {
  const path = join(dir, toSegmentName(number));
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
 * Gives a file that stands under another number than its header says its name back, when that is free; else the file is
 * set aside. Returns what counts, and the names of what was set aside.
 */
export function putInPlace(
  dir: string,
  segments: readonly FoundSegment[],
): { readonly inPlace: readonly FoundSegment[]; readonly aside: readonly string[] } {
  const isInPlace = ({ header, number }: FoundSegment): boolean => header === undefined || header.number === number;
  const moved = segments.filter((segment) => !isInPlace(segment));
  // All of them first: two may have changed places.
  const kept = moved.map((segment) => ({ segment, path: setAside(dir, segment.number) }));
  const aside: string[] = [];
  const back: FoundSegment[] = [];
  for (const { segment, path } of kept) {
    const number = segment.header?.number ?? segment.number;
    const home = join(dir, toSegmentName(number));
    if (existsSync(home)) {
      aside.push(toSegmentName(segment.number));
    } else {
      naming(home, () => renameSync(path, home));
      back.push({ ...segment, number });
    }
  }
  const inPlace = [...segments.filter(isInPlace), ...back].toSorted((a, b) => a.number - b.number);
  return { inPlace, aside };
}

/** Keeps a file under a name that nobody reads; returns its path. */
export function setAside(dir: string, number: number): string {
  const path = join(dir, toSegmentName(number));
  let to = `${path}.damaged`;
  for (let count = 2; existsSync(to); count += 1) to = `${path}.${count}.damaged`;
  naming(path, () => renameSync(path, to));
  return to;
}

function readBeginning(path: string): { bytes: Buffer; size: number } {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const { size } = fstatSync(fd);
    const bytes = Buffer.alloc(Math.min(maximumHeaderBytes, size));
    return { bytes: bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0)), size };
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
