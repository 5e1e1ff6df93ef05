// The files of a run's segments: made with a synced header and directory entry, and deleted. Synchronous.

import { join } from "node:path";
import type { Offset } from "../reading.ts";
import type { Disk } from "./disk.ts";
import { encodeSegmentHeader, toSegmentName } from "./segment.ts";

/** With so many files of failed tries that cannot be deleted no further one is made. */
const mostFailed = 16;

export interface SegmentFilesOptions {
  readonly dir: string;
  readonly disk: Disk;
  readonly journalId: string;
  readonly epoch: number;
  readonly streams: readonly string[];
  readonly nextNumber: number;
}

export interface SegmentFile {
  readonly number: number;
  readonly fd: number;
  /** Of the header. */
  readonly bytes: number;
}

interface Leftover {
  readonly bytes: number;
  /** Of a try that failed. */
  readonly isFailed: boolean;
}

export class SegmentFiles {
  readonly #options: SegmentFilesOptions;
  /** Files that the disk refused to delete, by number. They are tried again, and their bytes count until they are gone. */
  readonly #leftovers = new Map<number, Leftover>();
  #nextNumber: number;

  constructor(options: SegmentFilesOptions) {
    this.#options = options;
    this.#nextNumber = options.nextNumber;
  }

  /** The number that the next file gets. */
  get nextNumber(): number {
    return this.#nextNumber;
  }

  /** Of files that should be gone and are not. */
  get leftoverBytes(): number {
    let sum = 0;
    for (const { bytes } of this.#leftovers.values()) sum += bytes;
    return sum;
  }

  path(number: number): string {
    return join(this.#options.dir, toSegmentName(number));
  }

  /** A file with its header, both durable. Throws when the disk refuses; then nothing of it is left, or a leftover. */
  create(base: Offset): SegmentFile {
    const { disk, dir, journalId, epoch, streams } = this.#options;
    const failed = [...this.#leftovers.values()].filter(({ isFailed }) => isFailed).length;
    if (failed >= mostFailed) throw new Error(`${failed} unfinished segments cannot be deleted`);
    const number = this.#nextNumber;
    const header = encodeSegmentHeader({ number, journalId, createdMs: Date.now(), baseOffset: base, epoch, streams });
    let fd: number;
    try {
      fd = disk.create(this.path(number));
      this.#nextNumber += 1;
    } catch (error) {
      // Another program's file, or one that an earlier run could not delete, keeps its number.
      if (isExisting(error)) this.#nextNumber += 1;
      throw error;
    }
    try {
      if (disk.write(fd, [header], 0) !== header.length) throw new Error("short write of a segment header");
      disk.sync(fd);
      disk.syncDir(dir);
    } catch (error) {
      bestEffort(() => disk.close(fd));
      this.discard({ number, bytes: header.length });
      throw error;
    }
    return { number, fd, bytes: header.length };
  }

  /** Deletes a file that readers have seen, now or when the disk allows it. Its number is not used again. */
  remove(number: number, bytes: number): void {
    this.#unlink(number, { bytes, isFailed: false });
  }

  /** Deletes a file that no reader has seen. Tries in the background must not use up the numbers, whose span is bounded. */
  discard({ number, bytes }: Pick<SegmentFile, "number" | "bytes">): void {
    const isGone = this.#unlink(number, { bytes, isFailed: true });
    if (isGone && number === this.#nextNumber - 1) this.#nextNumber = number;
  }

  /** Tries again to delete what could not be deleted. */
  clear(): void {
    for (const [number, leftover] of this.#leftovers) {
      if (!this.#unlink(number, leftover)) return; // the disk still refuses
    }
  }

  #unlink(number: number, leftover: Leftover): boolean {
    const isGone = bestEffort(() => this.#options.disk.unlink(this.path(number)));
    if (isGone) this.#leftovers.delete(number);
    else this.#leftovers.set(number, leftover);
    return isGone;
  }
}

const isExisting = (error: unknown): boolean => error instanceof Error && "code" in error && error.code === "EEXIST";

/** False: the action has thrown. */
export function bestEffort(action: () => void): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}
