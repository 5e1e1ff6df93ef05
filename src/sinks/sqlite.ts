// Readings into a SQLite file, exactly once: the rows of a batch and the cursor behind them are one transaction.
//
//   readings        gateway TEXT, offset INTEGER, received_at INTEGER, time INTEGER, stream TEXT, device TEXT, topic TEXT,
//                   data TEXT (JSON); times in milliseconds since 1970; key (gateway, offset), index (stream, device, time)
//   sluice_cursor   gateway TEXT, offset INTEGER: everything below it is in `readings`
//   user_version    1
//
// WAL mode, so that other processes read while this one writes; synchronous FULL, so that a commit survives a power cut.

import { statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { SQLInputValue } from "node:sqlite";
import { z } from "zod";
import { toError } from "../errors.ts";
import { toOffset } from "../reading.ts";
import type { Batch, Entry } from "../reading.ts";
import { toJson } from "./document.ts";
import { defineSink } from "./sink.ts";
import type { RefusedEntry, Sink, Written } from "./sink.ts";

const sqliteSettings = z.strictObject({
  path: z
    .string()
    .min(1)
    .transform((text) => resolve(text))
    .optional()
    .describe("The database file, made with its folder when it does not exist; by default telemetry.db in dataDir."),
});

/** Readings into a SQLite file. */
export const sqlite = defineSink({
  type: "sqlite",
  settings: sqliteSettings,
  reference: {
    writes: "Into a table of a SQLite file that other processes read meanwhile.",
    once: "Exactly once: rows and cursor are one transaction.",
    notes: [],
    example: "sqlite()",
  },
  open: ({ path }, { gateway, dataDir }) => openSqlite(path ?? join(dataDir, "telemetry.db"), gateway),
});

const SCHEMA_VERSION = 1;
/** How long a lock of another process blocks this thread; after that it is an error, and retried with backoff. */
const BUSY_MS = 250;

/**
 * A transaction writes a page of the index for each device that it has a reading of: with 1,000 devices a row in one of 40,000
 * costs half of a row in one of 2,000. So while more follows, a transaction stays open until it has so many rows, or so
 * many characters of JSON. Other processes read meanwhile, but cannot write.
 */
const LARGEST = { rows: 40_000, characters: 16 * 1024 * 1024 };

/**
 * The index has a warm page for each device: 32 MB of cache instead of 2, and a checkpoint each 32 MB of WAL instead of 4,
 * give 1.6 times the rows per CPU second with 1,000 devices.
 */
const TUNING = "PRAGMA cache_size = -32000; PRAGMA wal_autocheckpoint = 8000";

const SCHEMA = `
  CREATE TABLE readings (
    gateway TEXT NOT NULL, "offset" INTEGER NOT NULL, received_at INTEGER NOT NULL, time INTEGER NOT NULL,
    stream TEXT NOT NULL, device TEXT NOT NULL, topic TEXT NOT NULL, data TEXT NOT NULL,
    PRIMARY KEY (gateway, "offset")) WITHOUT ROWID;
  CREATE INDEX readings_by_device ON readings (stream, device, time);
  CREATE TABLE sluice_cursor (gateway TEXT PRIMARY KEY, "offset" INTEGER NOT NULL) WITHOUT ROWID;
  PRAGMA user_version = ${SCHEMA_VERSION};`;

/** Rows of one call: beside SQLite's own work the call is most of what a row costs. */
const ROWS_PER_CALL = 16;
const COLUMNS = ["gateway", `"offset"`, "received_at", "time", "stream", "device", "topic", "data"];

/** OR ROLLBACK is for what cannot happen: without it SQLite keeps a journal of each statement of several rows. */
function toInsert(rows: number): string {
  const row = `(${COLUMNS.map(() => "?").join(", ")})`;
  const values = Array.from({ length: rows }, () => row);
  return `INSERT OR ROLLBACK INTO readings (${COLUMNS.join(", ")}) VALUES ${values.join(", ")} ON CONFLICT DO NOTHING`;
}

const MOVE_CURSOR = `INSERT INTO sluice_cursor (gateway, "offset") VALUES (?, ?)
  ON CONFLICT (gateway) DO UPDATE SET "offset" = max("offset", excluded."offset")`;

/** Opens or makes the file. Rejects with a sentence that names it when it cannot be used, now or at all. */
async function openSqlite(path: string, gateway: string): Promise<Sink> {
  let db: DatabaseSync | undefined;
  try {
    await mkdir(dirname(path), { recursive: true });
    db = new DatabaseSync(path, { timeout: BUSY_MS });
    db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; ${TUNING}`);
    prepareSchema(db);
    return createSink(db, path, gateway);
  } catch (cause) {
    db?.close();
    throw explain(path, cause);
  }
}

function prepareSchema(db: DatabaseSync): void {
  const version = readVersion(db);
  if (version === SCHEMA_VERSION) return;
  if (version > SCHEMA_VERSION) {
    throw new Error(`its schema has version ${version}, written by a newer Sluice; this one knows ${SCHEMA_VERSION}`);
  }
  inTransaction(db, () => {
    // Another process may have been faster.
    if (readVersion(db) === 0) db.exec(SCHEMA);
  });
}

function readVersion(db: DatabaseSync): number {
  return Number(db.prepare("PRAGMA user_version").get()?.["user_version"]);
}

function inTransaction(db: DatabaseSync, work: () => void): void {
  db.exec("BEGIN IMMEDIATE");
  try {
    work();
    db.exec("COMMIT");
  } catch (cause) {
    // SQLite has rolled back itself after a full disk and the like.
    if (db.isTransaction) db.exec("ROLLBACK");
    throw cause;
  }
}

function createSink(db: DatabaseSync, path: string, gateway: string): Sink {
  const inode = statSync(path).ino;
  const insert = createInsert(db);
  const moveCursor = db.prepare(MOVE_CURSOR);
  /** Of the open transaction. */
  let held = { rows: 0, characters: 0 };

  function write(batch: Batch): Written {
    if (statSync(path, { throwIfNoEntry: false })?.ino !== inode) throw new Error("the file was moved or deleted");
    if (!db.isTransaction) {
      held = { rows: 0, characters: 0 };
      db.exec("BEGIN IMMEDIATE");
    }
    const characters = insert(batch);
    // What was inserted comes again without the others, and is passed over then; the cursor has not moved.
    if (characters === undefined) return toExcept(batch.entries);
    if (batch.replay !== true) moveCursor.run(batch.gateway, batch.next);
    held = { rows: held.rows + batch.entries.length, characters: held.characters + characters };
    const isLarge = held.rows >= LARGEST.rows || held.characters >= LARGEST.characters;
    if (batch.moreFollows === true && !isLarge) return { kind: "held" };
    db.exec("COMMIT");
    return { kind: "all" };
  }

  return {
    position() {
      const row = db.prepare(`SELECT "offset" FROM sluice_cursor WHERE gateway = ?`).get(gateway);
      return Promise.resolve(row === undefined ? undefined : toOffset(Number(row["offset"])));
    },
    // oxlint-disable-next-line typescript/require-await -- a throw must be a rejection
    async write(batch, signal) {
      try {
        signal.throwIfAborted();
        return write(batch);
      } catch (cause) {
        // SQLite has rolled back itself after a full disk and the like.
        if (db.isTransaction) db.exec("ROLLBACK");
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

/** The characters of JSON that were inserted; undefined: the data of an entry is not JSON, and some were not inserted. */
function createInsert(db: DatabaseSync): (batch: Batch) => number | undefined {
  const insertOne = db.prepare(toInsert(1));
  const insertMany = db.prepare(toInsert(ROWS_PER_CALL));
  const width = COLUMNS.length;
  return ({ gateway, entries }) => {
    let characters = 0;
    let values: SQLInputValue[] = [];
    for (const { offset, reading } of entries) {
      const { stream, deviceId, topic, time, receivedAt, data } = reading;
      const text = toJson(data);
      if (typeof text !== "string") return undefined;
      characters += text.length;
      values.push(gateway, offset, receivedAt, time, stream, deviceId, topic, text);
      if (values.length < ROWS_PER_CALL * width) continue;
      insertMany.run(...values);
      values = [];
    }
    for (let at = 0; at < values.length; at += width) insertOne.run(...values.slice(at, at + width));
    return characters;
  };
}

function toExcept(entries: readonly Entry[]): Written {
  const refused = entries.flatMap(({ offset, reading }): readonly RefusedEntry[] => {
    const text = toJson(reading.data);
    return typeof text === "string" ? [] : [{ offset, reason: `its data cannot be written as JSON: ${text.message}` }];
  });
  const [first, ...others] = refused;
  // Data whose toJSON fails at times only: the batch comes again.
  if (first === undefined) throw new Error("the data of an entry could not be written as JSON, and then it could");
  return { kind: "except", refused: [first, ...others] };
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

function explain(path: string, cause: unknown): Error {
  const error = toError(cause);
  const { errcode } = error as { readonly errcode?: number };
  const hint = errcode === undefined ? undefined : hints[errcode & 0xff];
  return new Error([`${path}: ${error.message}.`, hint].filter(Boolean).join(" "), { cause });
}
