// A disk that can lose power, for the tests of crashes. Beside the files, which are the page cache, it keeps what has come
// to the platter: what was synced, and after a power cut any part of what was written since. A sync that fails leaves the
// pages clean and never written, as Linux does.

import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { nodeDisk, type Disk } from "../../src/journal/disk.ts";
import { headName, type Head } from "../../src/journal/head.ts";

const pageBytes = 512;

interface File {
  platter: Buffer;
  /** Written and not synced. */
  dirty: { readonly from: number; readonly to: number }[];
  isEntryDurable: boolean;
}

/** Says yes or no, by chance, where a power cut may go either way. */
export type Chance = () => boolean;

export interface PowerDisk extends Disk {
  /** The next calls of these kinds fail; "short" is a write that takes half. */
  fail(calls: readonly ("write" | "short" | "sync" | "create" | "truncate")[]): void;
  /** The process ends: what it wrote stays in the page cache. */
  kill(): void;
  /** The process ends with the power: the folder as the next start finds it. */
  cutPower(chance: Chance): void;
  /** Remembers what of the head is durable. */
  watch(head: Head): Head;
}

const broken = (): never => {
  throw new Error("EIO: the disk is told to fail");
};

export function openPowerDisk(dir: string): PowerDisk {
  const files = new Map<string, File>();
  const open = new Map<number, string>();
  let head: Buffer | undefined;
  let running: Head | undefined;
  let faults: string[] = [];

  function trip(...kinds: readonly string[]): string | undefined {
    const [next] = faults;
    if (next === undefined || !kinds.includes(next)) return undefined;
    faults = faults.slice(1);
    return next;
  }
  const fileOf = (fd: number): File => {
    const file = files.get(open.get(fd) ?? "");
    if (file === undefined) throw new Error("not a file of this disk");
    return file;
  };
  const keepHead = (): void => {
    head = readFileSync(join(dir, headName));
  };
  function kill(): void {
    faults = [];
    for (const fd of open.keys()) nodeDisk.close(fd);
    open.clear();
    running?.[Symbol.dispose]();
    running = undefined;
  }
  return {
    create(path) {
      if (trip("create") !== undefined) broken();
      const fd = nodeDisk.create(path);
      open.set(fd, basename(path));
      files.set(basename(path), { platter: Buffer.alloc(0), dirty: [], isEntryDurable: false });
      return fd;
    },
    write(fd, buffers, position) {
      const fault = trip("write", "short");
      if (fault === "write") broken();
      const whole = Buffer.concat(buffers.map((part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength)));
      const bytes = fault === "short" ? whole.subarray(0, whole.length / 2) : whole;
      fileOf(fd).dirty.push({ from: position, to: position + bytes.length });
      return nodeDisk.write(fd, [bytes], position);
    },
    sync(fd) {
      const file = fileOf(fd);
      const isBroken = trip("sync") !== undefined;
      if (!isBroken) for (const range of file.dirty) store(file, range, readFileSync(join(dir, open.get(fd) ?? "")));
      file.dirty = [];
      if (isBroken) broken();
    },
    close(fd) {
      open.delete(fd);
      nodeDisk.close(fd);
    },
    truncate(path, bytes) {
      // What is cut comes back with a power cut: nobody syncs it.
      if (trip("truncate") !== undefined) broken();
      nodeDisk.truncate(path, bytes);
    },
    unlink: (path) => nodeDisk.unlink(path),
    space: nodeDisk.space,
    syncDir() {
      const there = new Set(readdirSync(dir));
      for (const [name, file] of files) {
        if (there.has(name)) file.isEntryDurable = true;
        else files.delete(name);
      }
    },
    fail(calls) {
      faults = [...calls];
    },
    kill,
    cutPower(chance) {
      kill();
      const there = new Set(readdirSync(dir));
      for (const [name, file] of files) {
        const path = join(dir, name);
        const cached = there.has(name) ? readFileSync(path) : Buffer.alloc(0);
        for (const range of file.dirty) {
          for (let from = range.from; from < range.to; from += pageBytes) {
            if (chance()) store(file, { from, to: Math.min(range.to, from + pageBytes) }, cached);
          }
        }
        file.dirty = [];
        // A new file may be gone; one that was deleted may be back.
        const isKept = there.has(name) ? file.isEntryDurable || chance() : chance();
        if (isKept) writeFileSync(path, file.platter);
        else rmSync(path, { force: true });
        if (isKept) file.isEntryDurable = true;
        else files.delete(name);
      }
      if (head === undefined) return;
      const path = join(dir, headName);
      const cached = readFileSync(path);
      for (const at of [0, 512]) if (chance()) cached.copy(head, at, at, at + 512);
      writeFileSync(path, head);
    },
    watch(opened) {
      if (head === undefined || statSync(join(dir, headName)).size !== head.length) keepHead();
      running = opened;
      return {
        ...opened,
        sync() {
          opened.sync();
          keepHead();
        },
      };
    },
  };
}

/** Writes a range of the page cache to the platter; what was never written in between is zero, what was cut is gone. */
function store(file: File, { from, to }: { readonly from: number; readonly to: number }, cached: Buffer): void {
  const end = Math.min(to, cached.length);
  if (from >= end) return;
  if (end > file.platter.length) file.platter = Buffer.concat([file.platter, Buffer.alloc(end - file.platter.length)]);
  cached.copy(file.platter, from, from, end);
}
