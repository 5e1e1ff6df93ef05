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
import type { SQLInputValue, StatementSync } from "node:sqlite";
import { z } from "zod";
import { toError } from "../errors.ts";
import { toOffset } from "../reading.ts";
import type { Batch, Entry } from "../reading.ts";
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
  open: ({ path }, { gateway, dataDir }) => openSqlite(path ?? join(dataDir, "telemetry.db"), gateway),
});

const SCHEMA_VERSION = 1;
/** How long a lock of another process blocks this thread; after that it is an error, and retried with backoff. */
const BUSY_MS = 250;

/**
 * A transaction writes a page of the index for each device that it has a reading of, so that large ones cost much less: with
 * 1,000 devices 20,000 rows in one take half the CPU time of ten times 2,000. It blocks the thread for 0.2 s and the data are in memory.
 */
const BATCH_LIMIT = { records: 20_000, bytes: 8 * 1024 * 1024 };

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
    return true;
  });
}

function readVersion(db: DatabaseSync): number {
  return Number(db.prepare("PRAGMA user_version").get()?.["user_version"]);
}

/** Commits what `work` has done when it returns true; otherwise, and when it throws, nothing of it stays. */
function inTransaction(db: DatabaseSync, work: () => boolean): boolean {
  db.exec("BEGIN IMMEDIATE");
  try {
    const isDone = work();
    db.exec(isDone ? "COMMIT" : "ROLLBACK");
    return isDone;
  } catch (cause) {
    // SQLite has rolled back itself after a full disk and the like.
    if (db.isTransaction) db.exec("ROLLBACK");
    throw cause;
  }
}

function createSink(db: DatabaseSync, path: string, gateway: string): Sink {
  const inode = statSync(path).ino;
  const insertOne = db.prepare(toInsert(1));
  const insertMany = db.prepare(toInsert(ROWS_PER_CALL));
  const moveCursor = db.prepare(MOVE_CURSOR);
  const writeBatch = (batch: Batch): boolean => {
    if (!writeRows(batch, insertOne, insertMany)) return false;
    moveCursor.run(batch.gateway, batch.next);
    return true;
  };
  return {
    batchLimit: BATCH_LIMIT,
    position() {
      const row = db.prepare(`SELECT "offset" FROM sluice_cursor WHERE gateway = ?`).get(gateway);
      return Promise.resolve(row === undefined ? undefined : toOffset(Number(row["offset"])));
    },
    // oxlint-disable-next-line typescript/require-await -- a throw must be a rejection
    async write(batch, signal) {
      signal.throwIfAborted();
      try {
        if (statSync(path, { throwIfNoEntry: false })?.ino !== inode) throw new Error("the file was moved or deleted");
        if (inTransaction(db, () => writeBatch(batch))) return { kind: "all" } satisfies Written;
      } catch (cause) {
        throw explain(path, cause);
      }
      return toExcept(batch.entries);
    },
    [Symbol.asyncDispose]() {
      if (db.isOpen) db.close();
      return Promise.resolve();
    },
  };
}

/** False: the data of an entry is not JSON. The text of a row is made where it is bound, so that few are alive at a time. */
function writeRows({ gateway, entries }: Batch, insertOne: StatementSync, insertMany: StatementSync): boolean {
  let values: SQLInputValue[] = [];
  for (const { offset, reading } of entries) {
    const { stream, deviceId, topic, time, receivedAt, data } = reading;
    const text = toJson(data);
    if (typeof text !== "string") return false;
    values.push(gateway, offset, receivedAt, time, stream, deviceId, topic, text);
    if (values.length === ROWS_PER_CALL * COLUMNS.length) {
      insertMany.run(...values);
      values = [];
    }
  }
  for (let at = 0; at < values.length; at += COLUMNS.length) insertOne.run(...values.slice(at, at + COLUMNS.length));
  return true;
}

function toJson(data: unknown): string | Error {
  try {
    return JSON.stringify(data) ?? "null";
  } catch (cause) {
    return toError(cause);
  }
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
