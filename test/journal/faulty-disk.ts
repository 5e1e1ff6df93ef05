// The real disk, on which chosen calls fail with a chosen errno, once or until it is well again. The bytes of a failed
// sync stay in the file, as they do in the page cache.

import { nodeDisk, type Disk } from "../../src/journal/disk.ts";

export type Operation = "create" | "write" | "sync" | "truncate" | "unlink" | "syncDir";

export interface FaultyDisk {
  readonly disk: Disk;
  /** The next `times` calls fail. */
  readonly failNext: (operation: Operation, times?: number, errno?: string) => void;
  /** So many bytes less of each write reach the disk from now on; 0: all of them do. */
  shortBy: number;
  /** Every fault is over. */
  readonly heal: () => void;
  /** Every call, with `!` when it failed. */
  readonly log: string[];
  /** Files that were written to, or synced, again after their sync had failed: there must be none. */
  readonly syncedAgain: readonly number[];
}

export function createFaultyDisk(): FaultyDisk {
  const failures = new Map<Operation, { left: number; errno: string }>();
  const log: string[] = [];
  const suspect = new Set<number>();
  const syncedAgain: number[] = [];
  const guard = <A extends readonly unknown[], R>(operation: Operation, call: (...args: A) => R) => {
    return (...args: A): R => {
      const fault = failures.get(operation);
      const [fd] = args;
      if (typeof fd === "number" && suspect.has(fd)) syncedAgain.push(fd);
      log.push(fault === undefined || fault.left === 0 ? operation : `${operation}!`);
      if (fault === undefined || fault.left === 0) return call(...args);
      fault.left -= 1;
      if (operation === "sync") suspect.add(fd as number);
      throw Object.assign(new Error(`${fault.errno}: ${operation}`), { code: fault.errno });
    };
  };
  const faulty: FaultyDisk = {
    disk: {
      create: guard("create", nodeDisk.create),
      write: guard("write", (fd, buffers, position) => {
        const bytes = buffers.reduce((sum, { byteLength }) => sum + byteLength, 0);
        const cut = Buffer.concat(
          buffers.map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength)),
        );
        return nodeDisk.write(fd, [cut.subarray(0, Math.max(0, bytes - faulty.shortBy))], position);
      }),
      sync: guard("sync", nodeDisk.sync),
      close(fd) {
        suspect.delete(fd);
        nodeDisk.close(fd);
      },
      truncate: guard("truncate", nodeDisk.truncate),
      unlink: guard("unlink", nodeDisk.unlink),
      syncDir: guard("syncDir", nodeDisk.syncDir),
      space: nodeDisk.space,
    },
    failNext: (operation, times = 1, errno = "EIO") => failures.set(operation, { left: times, errno }),
    shortBy: 0,
    heal() {
      failures.clear();
      faulty.shortBy = 0;
    },
    log,
    syncedAgain,
  };
  return faulty;
}
