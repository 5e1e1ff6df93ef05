// How much room the journal's disk has beside what the journal leaves to others: sinks and cursors write there too, and a
// disk that is full to the last byte fails in more ways than one that is nearly so.

import type { Disk } from "./disk.ts";

const standardReserveBytes = 64 * 1024 * 1024;
/** Of a small disk the reserve is at most this share. */
const largestShare = 1 / 20;
/** Low below the reserve; well again at this multiple of it. */
const wellAt = 1.25;
const checkMs = 250;

export interface DiskSpace {
  readonly freeBytes: number;
  readonly isLow: boolean;
  /** What must become free for the disk to be well again; 0 when it is not low. */
  readonly lackingBytes: number;
}

/** Asks the disk at most every 250 ms; a disk that cannot tell is not low. `reserveBytes`: by default 64 MiB. */
export function createDiskSpace(dir: string, disk: Disk, reserveBytes: number | undefined): () => DiskSpace {
  let space: DiskSpace = { freeBytes: Infinity, isLow: false, lackingBytes: 0 };
  let checkedMs = Number.NEGATIVE_INFINITY;
  return () => {
    const nowMs = performance.now();
    if (nowMs - checkedMs < checkMs) return space;
    checkedMs = nowMs;
    try {
      const { freeBytes, totalBytes } = disk.space(dir);
      const reserve = reserveBytes ?? Math.min(standardReserveBytes, totalBytes * largestShare);
      const wanted = space.isLow ? reserve * wellAt : reserve;
      const isLow = freeBytes < wanted;
      space = { freeBytes, isLow, lackingBytes: isLow ? reserve * wellAt - freeBytes : 0 };
    } catch {
      space = { freeBytes: Infinity, isLow: false, lackingBytes: 0 };
    }
    return space;
  };
}
