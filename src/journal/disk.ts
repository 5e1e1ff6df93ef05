// The few things the journal asks of a disk, synchronous: the seam at which a test lets one of them fail.

import {
  close,
  closeSync,
  fdatasyncSync,
  fsyncSync,
  openSync,
  statfsSync,
  truncateSync,
  unlinkSync,
  writevSync,
} from "node:fs";

export interface Disk {
  /** Creates a file that does not exist. */
  readonly create: (path: string) => number;
  /** Returns how many bytes were written; fewer than given means that the disk is full. */
  readonly write: (fd: number, buffers: readonly NodeJS.ArrayBufferView[], position: number) => number;
  readonly sync: (fd: number) => void;
  readonly close: (fd: number) => void;
  readonly truncate: (path: string, bytes: number) => void;
  readonly unlink: (path: string) => void;
  readonly syncDir: (path: string) => void;
  /** Of the file system that holds `path`, for a process without privileges. */
  readonly space: (path: string) => { readonly freeBytes: number; readonly totalBytes: number };
}

export const nodeDisk: Disk = {
  create: (path) => openSync(path, "wx", 0o640),
  write: (fd, buffers, position) => writevSync(fd, buffers, position),
  sync: fdatasyncSync,
  close: closeSync,
  truncate: truncateSync,
  unlink(path) {
    const fd = openSync(path, "r");
    try {
      unlinkSync(path);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    // The name is gone. To give back the pages of a segment takes 25 ms, during which there would be no commit: the system does it
    // when the last descriptor is closed, and a thread of the pool waits for that.
    close(fd, () => {});
  },
  space(path) {
    const { bavail, blocks, bsize } = statfsSync(path);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  },
  syncDir(path) {
    const fd = openSync(path, "r");
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  },
};
