// Records that a sink or handler can never take, set aside durably with the cause, before its cursor passes them.
//
//   parked         sink TEXT, gateway TEXT, offset INTEGER: the key | time INTEGER: when it was parked | error TEXT |
//                  stream TEXT, device TEXT, client TEXT, topic TEXT, received_at INTEGER, payload BLOB: the message |
//                  attempts INTEGER: how often it was tried; 0: never, because today's schema refuses it
//   user_version   1
//
// Times are in milliseconds since 1970. All workers of a gateway share the file `parked.db`, each with a connection of its own.

import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { toError } from "../errors.ts";
import type { JournalEntry } from "../journal/record.ts";

/** A record to be set aside. */
export interface Parked {
  readonly entry: JournalEntry;
  /** Why, as a sentence for the operator. */
  readonly error: string;
  readonly attempts: number;
}

/** Synchronous: for worker threads. */
export interface Parking extends Disposable {
  /** All of them are on disk when it returns; the same record again replaces the earlier one. Throws when that fails. */
  park(records: readonly Parked[]): void;
}

export interface ParkingOptions {
  /** Made when the first record is parked. */
  readonly file: string;
  /** Name of the sink or handler. */
  readonly sink: string;
  /** The gateway id. */
  readonly gateway: string;
}

const SCHEMA_VERSION = 1;
/** Other workers hold the lock only while they park. */
const BUSY_MS = 5_000;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS parked (
    sink TEXT NOT NULL, gateway TEXT NOT NULL, "offset" INTEGER NOT NULL, time INTEGER NOT NULL, error TEXT NOT NULL,
    stream TEXT NOT NULL, device TEXT NOT NULL, client TEXT NOT NULL, topic TEXT NOT NULL, received_at INTEGER NOT NULL,
    payload BLOB NOT NULL, attempts INTEGER NOT NULL, PRIMARY KEY (sink, gateway, "offset"));
  PRAGMA user_version = ${SCHEMA_VERSION};`;

const INSERT = `INSERT OR REPLACE INTO parked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;

export function createParking({ file, sink, gateway }: ParkingOptions): Parking {
  let db: DatabaseSync | undefined;
  return {
    park(records) {
      if (records.length === 0) return;
      try {
        if (db !== undefined && !existsSync(file)) {
          db.close();
          db = undefined;
        }
        db ??= openFile(file);
        insertAll(db, sink, gateway, records);
      } catch (cause) {
        throw new Error(`${file}: ${toError(cause).message}`, { cause });
      }
    },
    [Symbol.dispose]() {
      db?.close();
      db = undefined;
    },
  };
}

function openFile(file: string): DatabaseSync {
  const db = new DatabaseSync(file, { timeout: BUSY_MS });
  try {
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    const version = Number(db.prepare("PRAGMA user_version").get()?.["user_version"]);
    if (version > SCHEMA_VERSION) throw new Error(`its schema has version ${version}, written by a newer Sluice`);
    if (version < SCHEMA_VERSION) db.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT`);
    return db;
  } catch (cause) {
    db.close();
    throw cause;
  }
}

function insertAll(db: DatabaseSync, sink: string, gateway: string, records: readonly Parked[]): void {
  const insert = db.prepare(INSERT);
  const now = Date.now();
  db.exec("BEGIN IMMEDIATE");
  try {
    for (const { entry, error, attempts } of records) {
      const { deviceId, clientId, topic, receivedAt, payload } = entry.message;
      const message = [entry.stream, deviceId, clientId, topic, receivedAt, payload] as const;
      insert.run(sink, gateway, entry.offset, now, error, ...message, attempts);
    }
    db.exec("COMMIT");
  } catch (cause) {
    if (db.isTransaction) db.exec("ROLLBACK");
    throw cause;
  }
}
