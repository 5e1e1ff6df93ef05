// The folder of the files, and how several files are closed as one, together with the position behind them.
//
//   stream=climate/date=2026-11-24/hour=13/<gateway>.<sink>.<first offset>-<last offset>.<extension>   a closed file
//   .sluice/<gateway>.<sink>.json      {"version":1,"position":1235,"files":["stream=climate/…"]}: the last files that were closed
//   .sluice/<name of a file>.tmp       a file that is not closed
//
// 1. Each file is written whole as .tmp, and synced. 2. The .json is replaced by a rename and .sluice synced: from now on they
// are closed. 3. Each .tmp is renamed to its place, and the folders synced. After a crash the next open does step 3 for what
// the .json names, and deletes the .tmp of others; so that nobody ever sees a part of a file, and of what is below the position
// every reading is in one file.

import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { setImmediate } from "node:timers/promises";
import { z } from "zod";
import { toOffset } from "../../reading.ts";
import type { Offset } from "../../reading.ts";
import { SinkError } from "../sink.ts";

/** A file that is to be closed. */
interface NewFile {
  /** Relative to the folder; its last part is in no other file's path. */
  readonly path: string;
  readonly pieces: () => readonly Uint8Array[];
}

export interface Folder {
  /** Every reading below it is in a closed file, as far as it is for this sink; undefined: none was closed yet. */
  readonly position: Offset | undefined;
  /**
   * Closes all of them and moves the position, or does nothing of it when it throws before the moment of commit. After a
   * throw the folder must be opened again. Between two files `signal` may end it.
   */
  close(files: readonly NewFile[], position: Offset, signal: AbortSignal): Promise<void>;
  /** The same for files of a replay: one after the other, and without a position. */
  closeBeside(files: readonly NewFile[], signal: AbortSignal): Promise<void>;
}

const stateSchema = z.object({ version: z.literal(1), position: z.int().min(0), files: z.array(z.string()) });
type State = z.output<typeof stateSchema>;

/** Makes it, or finishes what a crash has left. `owner` is what the names of this sink's files begin with: `<gateway>.<sink>.` */
export function openFolder(path: string, owner: string): Folder {
  const hidden = join(path, ".sluice");
  const stateFile = join(hidden, `${owner}json`);
  const made = mkdirSync(hidden, { recursive: true });
  if (made !== undefined) foldersOf(dirname(made), relative(dirname(made), stateFile)).forEach(syncFolder);
  const { ino } = statSync(path);
  let position = recover(path, hidden, stateFile, owner);

  async function write(files: readonly NewFile[], signal: AbortSignal): Promise<readonly string[]> {
    if (statSync(path, { throwIfNoEntry: false })?.ino !== ino) throw new Error("the folder was moved or deleted");
    const written: string[] = [];
    for (const file of files) {
      const pieces = file.pieces();
      if (pieces.length === 0) continue;
      writeFile(temporary(hidden, file.path), pieces);
      written.push(file.path);
      // Disk and compression block the thread: here the signal is heard.
      await setImmediate();
      signal.throwIfAborted();
    }
    return written;
  }

  return {
    get position() {
      return position;
    },
    async close(files, to, signal) {
      const state: State = { version: 1, position: to, files: [...(await write(files, signal))] };
      writeFile(`${stateFile}.tmp`, [Buffer.from(JSON.stringify(state))]);
      syncFolder(hidden);
      renameSync(`${stateFile}.tmp`, stateFile);
      syncFolder(hidden);
      putInPlace(path, hidden, state.files);
      position = to;
    },
    async closeBeside(files, signal) {
      putInPlace(path, hidden, await write(files, signal));
    },
  };
}

const temporary = (hidden: string, file: string): string => join(hidden, `${basename(file)}.tmp`);

function recover(path: string, hidden: string, stateFile: string, owner: string): Offset | undefined {
  const state = readState(stateFile);
  // A rename that this process sees may not be on disk yet.
  syncFolder(hidden);
  if (state !== undefined) putInPlace(path, hidden, state.files);
  for (const name of readdirSync(hidden)) {
    if (name.startsWith(owner) && name.endsWith(".tmp")) unlinkSync(join(hidden, name));
  }
  return state === undefined ? undefined : toOffset(state.position);
}

/** Those that have no .tmp were renamed before a crash. */
function putInPlace(path: string, hidden: string, files: readonly string[]): void {
  for (const file of files) {
    if (!existsSync(temporary(hidden, file))) continue;
    mkdirSync(join(path, dirname(file)), { recursive: true });
    renameSync(temporary(hidden, file), join(path, file));
  }
  const folders = new Set([...files.flatMap((file) => foldersOf(path, file)), hidden]);
  for (const folder of folders) if (existsSync(folder)) syncFolder(folder);
}

function readState(path: string): State | undefined {
  if (!existsSync(path)) return undefined;
  const text = readFileSync(path, "utf8");
  try {
    return stateSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new SinkError(
      "misconfigured",
      `${path}: it was damaged, or written by a newer Sluice. Without it the sink goes on at the gateway's own cursor, and what was closed last may be written again: delete it if that is fine.`,
      { cause },
    );
  }
}

/** A new file, or another in the place of one that a crash has left; on disk when it returns. */
function writeFile(path: string, pieces: readonly Uint8Array[]): void {
  const fd = openSync(path, "w");
  try {
    for (const piece of pieces) writeFileSync(fd, piece);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function syncFolder(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Every folder from `root` to that of the file: each may be new. */
function foldersOf(root: string, file: string): readonly string[] {
  const folder = dirname(file);
  return folder === "." ? [root] : [...foldersOf(root, folder), join(root, folder)];
}
