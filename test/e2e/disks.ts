// Disks of a test's own, which can be full, broken or without power: a tmpfs, or ext4 in a file behind a loop device.
// They need Linux and the right to mount.

import { execFile } from "node:child_process";
import { mkdir, rm, stat, truncate, writeFile } from "node:fs/promises";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

const execute = promisify(execFile);

export interface Disk extends AsyncDisposable {
  /** Where it is mounted. */
  readonly path: string;
  /** Writes a file of ballast until nothing more fits. */
  fill(): Promise<void>;
  /** Deletes the ballast. */
  free(): Promise<void>;
}

export interface LoopDisk extends Disk {
  /** From now on every access fails, and what was not yet on the disk never will be. */
  cutPower(): Promise<void>;
  /** Takes it off, with all that the system remembers of it, and mounts it again. Nobody may use it meanwhile. */
  remount(): Promise<void>;
}

const ballastName = "ballast";

export async function openTmpfs(path: string, bytes: number): Promise<Disk> {
  await mkdir(path, { recursive: true });
  await execute("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "none", path]);
  return { ...ballastOn(path), [Symbol.asyncDispose]: () => unmount(path) };
}

/** `image` is the file that it is in: on a small tmpfs it can be given a disk that fails although it has free space. */
export async function openLoopDisk(path: string, image: string, bytes: number): Promise<LoopDisk> {
  await mkdir(path, { recursive: true });
  await writeFile(image, "");
  await truncate(image, bytes);
  // Everything but data is written at once: on an image with holes only writes of data can fail for want of space.
  await execute("mkfs.ext4", ["-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", image]);
  await execute("mount", ["-o", "loop", image, path]);
  return {
    ...ballastOn(path),
    async cutPower() {
      await execute("python3", ["-c", shutdown, path]);
    },
    async remount() {
      await unmount(path);
      await execute("mount", ["-o", "loop", image, path]);
    },
    async [Symbol.asyncDispose]() {
      await unmount(path);
      await rm(image, { force: true });
    },
  };
}

/** EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH. */
const shutdown = `
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack("I", 2))
`;

async function unmount(path: string): Promise<void> {
  for (let tries = 20; ; tries -= 1) {
    try {
      await execute("umount", [path]);
      return;
    } catch (error) {
      // A process that was just killed may not have let go of its last file.
      if (tries === 0) throw error;
      await delay(50);
    }
  }
}

function ballastOn(path: string): Pick<Disk, "path" | "fill" | "free"> {
  const file = join(path, ballastName);
  return {
    path,
    async fill() {
      await using ballast = await open(file, "a");
      for (let size = 2 ** 20; size >= 512;) {
        try {
          await ballast.writev([Buffer.alloc(size, 1)]);
        } catch {
          size /= 2;
        }
      }
      await ballast.sync().catch(() => {});
    },
    free: () => rm(file),
  };
}

export const sizeOf = async (path: string): Promise<number> => (await stat(path)).size;
