// How far a consumer has come: a file with slots as in slots.ts, of which a cursor uses the offset.

import { readdirSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { SluiceError, toError } from "../errors.ts";
import { toOffset, type Offset } from "../reading.ts";
import { nodeDisk } from "./disk.ts";
import { isOf, openSlots, readSlots, type Slot } from "./slots.ts";

const magic = "SLUICEC1";
const suffix = ".cursor";

/** Where a journal's cursors are, below its folder. */
export const cursorsFolder = "cursors";

export interface CursorOptions {
  /** Exists already. */
  readonly dir: string;
  /** Of the consumer. Any text; the file name is its URI encoding. */
  readonly name: string;
  readonly journalId: string;
  /** Where a cursor without a file begins. */
  readonly start: Offset;
  /** A commit is on disk after this time at the latest. Default 200. */
  readonly intervalMs?: number;
  /** Called after each write that is on disk: the journal may be trimmed up to there. */
  readonly onDurable?: (position: Offset) => void;
  /** A write on the timer failed; it is tried again after `intervalMs`. Without it the error is thrown from the timer. */
  readonly onError?: (error: Error) => void;
}

/** Synchronous file access: for worker threads. */
export interface Cursor extends AsyncDisposable {
  /** What the consumer committed last. */
  readonly position: Offset;
  /** What of it survives a crash. Never above `position` but after a step back. */
  readonly durable: Offset;
  /** new: there was no file. damaged: no slot was valid, or it is another journal's; it begins at `start` again. */
  readonly origin: "new" | "kept" | "damaged";
  /** Remembers the position, and writes it within `intervalMs`. The last word counts, also when it goes back. */
  commit(to: Offset): void;
  /** Writes now if there is something to write. Throws when the disk refuses. */
  flush(): void;
}

/**
 * Creates the file, durable with its directory entry, when there is none. One owner at a time. Throws
 * SLUICE_JOURNAL_VERSION when a newer version of Sluice wrote the file.
 */
export function openCursor(options: CursorOptions): Cursor {
  const { dir, name, journalId, start, intervalMs = 200 } = options;
  const toSlot = (offset: Offset): Slot => ({ offset, journalId, first: toOffset(0), segment: 0, epoch: 0 });
  const file = openSlots(join(dir, encodeURIComponent(name) + suffix), magic, toSlot(start));
  let durable = file.found?.offset ?? start;
  let position = durable;
  let timer: NodeJS.Timeout | undefined;

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    if (position === durable) return;
    const to = position;
    file.save(toSlot(to));
    durable = to;
    options.onDurable?.(durable);
  }

  function onTimer(): void {
    try {
      flush();
    } catch (error) {
      if (options.onError === undefined) throw error;
      timer = setTimeout(onTimer, intervalMs);
      options.onError(toError(error));
    }
  }

  return {
    get position() {
      return position;
    },
    get durable() {
      return durable;
    },
    origin: file.origin,
    commit(to) {
      position = to;
      if (position !== durable) timer ??= setTimeout(onTimer, intervalMs);
    },
    flush,
    async [Symbol.asyncDispose]() {
      try {
        flush();
      } finally {
        file[Symbol.dispose]();
      }
    },
  };
}

/** Durably: the journal is no longer held for it. Throws when there is no such file. */
export function removeCursor(dir: string, name: string): void {
  unlinkSync(join(dir, encodeURIComponent(name) + suffix));
  nodeDisk.syncDir(dir);
}

/** A cursor file as it is found. */
export interface FoundCursor {
  readonly name: string;
  /** Everything below is done; 0 when the file does not tell, so that it holds everything. */
  readonly position: Offset;
  /** Why the file does not tell: then its consumer begins again with the oldest record. */
  readonly damage: string | undefined;
  readonly timeMs: number | undefined;
}

/**
 * Every cursor of a folder; none when there is no such folder. Throws SLUICE_JOURNAL_VERSION for a file of a newer version
 * and SLUICE_DATA_DIR when the folder cannot be read.
 */
export function listCursors(dir: string, journalId: string): readonly FoundCursor[] {
  let files: string[];
  try {
    files = readdirSync(dir);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw new SluiceError("SLUICE_DATA_DIR", `${dir}: ${toError(error).message}`, { cause: error });
  }
  return files.flatMap((file) => {
    const name = toConsumerName(file);
    return name === undefined ? [] : [readCursor(join(dir, file), name, journalId)];
  });
}

/** Undefined: the file is not a cursor's. */
function toConsumerName(file: string): string | undefined {
  if (!file.endsWith(suffix)) return undefined;
  try {
    return decodeURIComponent(file.slice(0, -suffix.length));
  } catch {
    return undefined;
  }
}

function readCursor(path: string, name: string, journalId: string): FoundCursor {
  const damaged = (damage: string): FoundCursor => ({ name, position: toOffset(0), damage, timeMs: undefined });
  try {
    if (!statSync(path).isFile()) return damaged("it is not a file");
    const slot = readSlots(path, magic);
    if (slot === undefined) return damaged("no slot of it is valid");
    if (!isOf(slot, journalId)) return damaged(`it belongs to journal ${slot.journalId}`);
    return { name, position: slot.offset, damage: undefined, timeMs: slot.timeMs };
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    return damaged(toError(error).message);
  }
}
