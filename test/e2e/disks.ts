// Disks of a test's own, which can be full, broken or without power: a tmpfs, or ext4 in a file behind a loop device.
// They need Linux and the right to mount.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Readable, Writable } from "node:stream";
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
  /**
   * A switch that is ready to be thrown. Then every access fails, and what was not yet on the disk never will be. A sync that is under way meanwhile may
   * return success all the same: ext4 looks for the power only at its beginning.
   */
  openSwitch(): Promise<() => Promise<void>>;
  /** Takes it off, with all that the system remembers of it, and mounts it again. Nobody may use it meanwhile. */
  remount(): Promise<void>;
}

const ballastName = "ballast";

export async function openTmpfs(path: string, bytes: number): Promise<Disk> {
  await mkdir(path, { recursive: true });
  await execute("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "none", path]);
  return { ...ballastOn(path), [Symbol.asyncDispose]: () => detach(path) };
}

/** `image` is the file that it is in: on a small tmpfs it can be given a disk that fails although it has free space. */
export async function openLoopDisk(path: string, image: string, bytes: number): Promise<LoopDisk> {
  await mkdir(path, { recursive: true });
  await execute("truncate", ["--size", String(bytes), image]);
  await execute("mkfs.ext4", ["-q", "-F", "-b", "4096", image]);
  await execute("fallocate", ["--length", String(bytes), image]);
  let device = await attach(image, path);
  // Only what is free is a hole now: for want of space below, only writes of data can fail.
  await execute("fstrim", [path]);
  return {
    ...ballastOn(path),
    async openSwitch() {
      const { stdin, stdout, exited } = startPython(shutdown, path);
      await once(stdout, "data");
      return async () => {
        stdin.end("\n");
        if ((await exited) !== 0) throw new Error(`${path} still has power`);
      };
    },
    async remount() {
      await unmount(path);
      await execute("losetup", ["--detach", device]);
      device = await attach(image, path);
    },
    async [Symbol.asyncDispose]() {
      await detach(path);
      await execute("losetup", ["--detach", device]);
      await rm(image, { force: true });
    },
  };
}

/** Mounts the image and returns its device. */
async function attach(image: string, path: string): Promise<string> {
  const { stdout } = await execute("losetup", ["--find", "--show", image]);
  const device = stdout.trim();
  // A write that the file below takes only in part is success for a loop device: so none is longer than a page.
  await writeFile(`/sys/block/${basename(device)}/queue/max_sectors_kb`, "4");
  await execute("mount", [device, path]);
  return device;
}

/** EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, after a line of input. */
const shutdown = `
import fcntl, os, struct, sys
print("ready", flush=True)
sys.stdin.readline()
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack("I", 2))
`;

function startPython(
  script: string,
  argument: string,
): { stdin: Writable; stdout: Readable; exited: Promise<unknown> } {
  const child = spawn("python3", ["-c", script, argument], { stdio: ["pipe", "pipe", "inherit"] });
  const exited = once(child, "exit").then(([code]) => code as unknown);
  return { stdin: child.stdin, stdout: child.stdout, exited };
}

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

/** Also when a process still has files on it, as after a failed test; then it is gone with that process. */
async function detach(path: string): Promise<void> {
  await execute("umount", ["--lazy", path]);
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
