// Readings into a SQLite file, exactly once: the rows of a batch and the cursor behind them are one transaction.
//
//   readings            layout document: gateway TEXT, offset INTEGER, received_at INTEGER, time INTEGER, stream TEXT,
//                       device TEXT, topic TEXT, data TEXT (JSON); times in milliseconds since 1970; key (gateway, offset),
//                       index (device, time)
//   readings_<stream>   layout wide, see layout/wide.ts; key (gateway, offset), index (device, time)
//   metrics             layout narrow, see layout/narrow.ts; key (gateway, offset, metric), index (device, metric, time)
//   sluice_cursor       see sqlite-tables.ts
//
// WAL mode, so that other processes read while this one writes; synchronous FULL, so that a commit survives a power cut.

import { statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout } from "node:timers/promises";
import { z } from "zod";
import { toError } from "../errors.ts";
import type { Batch, Offset } from "../reading.ts";
import { layoutSetting, toRows } from "./layout/layout.ts";
import type { Cells, Table } from "./layout/table.ts";
import { defineSink, SinkError } from "./sink.ts";
import type { Sink, SinkContext, Written } from "./sink.ts";
import { beginWriting, codeOf, createCursor, createInserter, prepareFile, rollBack } from "./sqlite-tables.ts";
import type { TableSettings } from "./sqlite-tables.ts";

const sqliteSettings = z.strictObject({
  path: z
    .string()
    .min(1)
    .transform((text) => resolve(text))
    .optional()
    .describe("The database file, made with its folder when it does not exist; by default telemetry.db in dataDir."),
  layout: layoutSetting,
  index: z
    .enum(["device", "time", "none"])
    .default("device")
    .describe(
      "Of tables that are made: device: what a device sent is found quickly by time; of the time that writing takes, half is for that. time: what all devices sent is found quickly by time. none: rows can be found by gateway and offset only; for archives. An index of your own may be added or dropped at any time.",
    ),
});

/** Readings into a SQLite file. */
export const sqlite = defineSink({
  type: "sqlite",
  settings: sqliteSettings,
  reference: {
    writes:
      "Into tables of a SQLite file that other processes read meanwhile. Each begins with the columns `gateway`, `offset`, `received_at`, `time` (milliseconds since 1970), `stream`, `device` and `topic`. document: `readings`, with `data` as JSON. wide: `readings_` and the name of the stream, a column for each field, and `rest`. narrow: `metrics`, with `metric`, `value`, `text` and `rest`. See [layouts](#layouts).",
    once: "Exactly once: rows and cursor are one transaction. A replay changes nothing: what is there already is passed over.",
    notes: [
      "While the sink is behind it holds the file's write lock for up to a quarter of a second at a time: another program that writes into the file needs a busy timeout of some seconds. Readers are never held up.",
      "Several sinks may write into one file, each with its own position; but each waits for the others.",
      "Parked is only what cannot be written as JSON, such as a BigInt.",
    ],
    example: 'sqlite({ path: "data/telemetry.db", layout: "wide" })',
  },
  open: ({ path, ...tables }, context) => openSqlite(path ?? join(context.dataDir, "telemetry.db"), tables, context),
});

/** How long a lock of another process or sink blocks this thread. */
const BUSY_MS = 250;
/**
 * So long the lock is free after a long transaction: another writer looks for it some times in a quarter of a second, and
 * without a pause it would find it taken nearly always.
 */
const FREE_MS = 10;

/**
 * A transaction writes a page of the index for each device that it has a reading of: with 1,000 devices a row in one of 40,000
 * costs half of a row in one of 2,000. So while more follows, a transaction stays open until it has so many rows, so
 * many characters of text, or so much time. Other processes read meanwhile, but cannot write.
 */
const LARGEST = { rows: 40_000, characters: 16 * 1024 * 1024, timeMs: 200 };
/** A batch whose rows take longer is written in several transactions, each with the cursor behind its rows. */
const LONGEST_MS = 250;

/** An index by device has a warm page for each of them: 32 MB of cache instead of 2, for 1,000 devices and more. */
const CACHE = "PRAGMA cache_size = -32000";
const BYTES_OF_WAL = 32_768_000;

/**
 * The pages of a file that is made, and in pages how long the WAL of any file gets before it is copied into it. Rows that are only
 * appended, to the table and to an index by time, fill large pages, which are a quarter less work. An index by device has a few
 * rows more in each of its pages: there, large ones would only be more bytes to write.
 */
function setPages(db: DatabaseSync, index: TableSettings["index"]): void {
  db.exec(`PRAGMA page_size = ${index === "device" ? 4_096 : 16_384}`);
  const bytes = Number(db.prepare("PRAGMA page_size").get()?.["page_size"]);
  db.exec(`PRAGMA wal_autocheckpoint = ${Math.round(BYTES_OF_WAL / bytes)}`);
}

/** Opens or makes the file. Rejects with a sentence that names it when it cannot be used, now or at all. */
async function openSqlite(path: string, settings: TableSettings, context: SinkContext): Promise<Sink> {
  let db: DatabaseSync | undefined;
  try {
    await mkdir(dirname(path), { recursive: true });
    db = new DatabaseSync(path, { timeout: BUSY_MS });
    setPages(db, settings.index);
    db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; ${CACHE}`);
    const tables = await prepareFile(db, settings, context.streams, (text) => context.warn(`${path}: ${text}`));
    return createSink(db, path, tables, context);
  } catch (cause) {
    db?.close();
    throw explain(path, cause);
  }
}

function createSink(
  db: DatabaseSync,
  path: string,
  tables: ReadonlyMap<string, Table>,
  { gateway, name }: SinkContext,
): Sink {
  const inode = statSync(path).ino;
  const cursor = createCursor(db, name);
  const inserters = new Map([...new Set(tables.values())].map((table) => [table, createInserter(db, table)]));
  /** Of the open transaction. */
  let held = { rows: 0, characters: 0, since: 0 };

  async function begin(signal: AbortSignal): Promise<void> {
    if (db.isTransaction) return;
    await beginWriting(db, signal);
    held = { rows: 0, characters: 0, since: performance.now() };
  }

  function insert(table: Table, rows: readonly Cells[]): void {
    const inserter = inserters.get(table);
    for (const row of rows) {
      inserter?.insert(row);
      for (const cell of row) if (typeof cell === "string") held.characters += cell.length;
    }
    held.rows += rows.length;
  }

  async function commit(batch: Batch, next: Offset): Promise<void> {
    for (const inserter of inserters.values()) inserter.flush();
    if (batch.replay !== true) cursor.move(batch.gateway, next);
    db.exec("COMMIT");
    if (heldMs() >= BUSY_MS / 2) await setTimeout(FREE_MS);
  }

  const heldMs = (): number => performance.now() - held.since;
  const isLarge = (): boolean =>
    held.rows >= LARGEST.rows || held.characters >= LARGEST.characters || heldMs() >= LARGEST.timeMs;

  async function write(batch: Batch, signal: AbortSignal): Promise<Written> {
    if (statSync(path, { throwIfNoEntry: false })?.ino !== inode) throw new Error("the file was moved or deleted");
    const made = toRows(tables, batch);
    // What is held stays so, and the cursor has not moved.
    if (made.kind === "except") return made;
    let isDivided = false;
    await begin(signal);
    for (const { offset, table, rows } of made.entries) {
      if (heldMs() >= LONGEST_MS) {
        await commit(batch, offset);
        isDivided = true;
        signal.throwIfAborted();
        await begin(signal);
      }
      insert(table, rows);
    }
    if (batch.moreFollows === true && !isDivided && !isLarge()) return { kind: "held" };
    await commit(batch, batch.next);
    return { kind: "all" };
  }

  return {
    async position() {
      try {
        return await cursor.read(gateway);
      } catch (cause) {
        throw explain(path, cause);
      }
    },
    async write(batch, signal) {
      try {
        signal.throwIfAborted();
        return await write(batch, signal);
      } catch (cause) {
        rollBack(db);
        for (const inserter of inserters.values()) inserter.clear();
        throw signal.aborted ? cause : explain(path, cause);
      }
    },
    [Symbol.asyncDispose]() {
      // What is held is rolled back by closing.
      if (db.isOpen) db.close();
      return Promise.resolve();
    },
  };
}

/** SQLite's primary result codes, https://sqlite.org/rescode.html, that an operator can do something about. */
const hints: Readonly<Record<number, string>> = {
  5: "Another process holds a write lock on it; it is tried again.",
  6: "Another process holds a write lock on it; it is tried again.",
  8: "The file, its -wal file and its folder must be writable.",
  10: "Its disk failed to read or write: look into the system's log.",
  11: "It is damaged: move it away, and a new one is made; `sqlite3 FILE .recover` may save its rows.",
  13: "Its disk is full: make space, and writing goes on.",
  14: "Its folder or file cannot be opened: check that it is a file and the permissions.",
  26: "It is another kind of file: give another path, or move it away.",
};

const passing: ReadonlySet<number> = new Set([5, 6, 10, 13]);

function explain(path: string, cause: unknown): Error {
  const error = toError(cause);
  const code = codeOf(error);
  const hint = hints[code];
  const message = [`${path}: ${error.message}.`, hint].filter(Boolean).join(" ");
  const isPassing = error instanceof SinkError ? error.kind === "transient" : hint === undefined || passing.has(code);
  return new SinkError(isPassing ? "transient" : "misconfigured", message, { cause });
}
