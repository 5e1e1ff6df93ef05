// Rejected messages, copied out of the journal so that they outlive it, until an operator has looked at them.
//
//   rejects         gateway TEXT, offset INTEGER: unique | the columns of inbox.ts | reason TEXT | issues TEXT: JSON, a list of
//                   {"path", "message"} | id INTEGER: the order in which they came | bytes INTEGER: what the row counts for
//   rejects_cursor  gateway TEXT | offset INTEGER: everything below is here, or was | dropped INTEGER: how many gave way
//   user_version    1
//
// Rows and cursor are committed together, so that what an operator has dropped does not come back after a crash. The
// oldest rows give way when there are too many. One worker writes to `rejects.db`.

import { existsSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import { toError } from "../errors.ts";
import type { JournalEntry } from "../journal/record.ts";
import { toOffset } from "../reading.ts";
import type { Issue, Offset, RejectionReason } from "../reading.ts";
import { describeRejection } from "./feed.ts";
import { inTransaction, MESSAGE_COLUMNS, openInboxFile, takeRows, toMessageValues } from "./inbox.ts";
import type { InboxItem, InboxKind } from "./inbox.ts";

export type RejectedEntry = JournalEntry & { readonly kind: "rejected" };

/** Why a message is still not taken. */
export interface StillRejected {
  readonly item: InboxItem;
  readonly reason: RejectionReason;
  readonly issues: readonly Issue[];
}

/** Synchronous: for a worker thread. Everything throws when the file cannot be used. */
export interface Rejects extends Disposable {
  /** Everything below was kept once; undefined: the file knows nothing of this gateway. */
  position(): Offset | undefined;
  /** Keeps them durably, together with the position; returns how many older ones gave way. */
  keep(entries: readonly RejectedEntry[], next: Offset): number;
  /** What an operator wants tried again, oldest first. */
  takeMarked(): readonly InboxItem[];
  /** Those that are taken are forgotten, the others keep waiting with their new reason. */
  settle(taken: readonly InboxItem[], failed: readonly StillRejected[]): void;
}

export interface RejectsOptions {
  /** Made when the first message is kept. */
  readonly file: string;
  /** The gateway id. */
  readonly gateway: string;
  /** At most so many, in all bytes of payloads, names and issues. */
  readonly keep: { readonly records: number; readonly bytes: number };
}

export const rejectsInbox: InboxKind = {
  table: "rejects",
  version: 1,
  schema: `
    CREATE TABLE rejects (
      id INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, gateway TEXT NOT NULL, "offset" INTEGER NOT NULL,
      time INTEGER NOT NULL, reason TEXT NOT NULL, error TEXT NOT NULL, issues TEXT NOT NULL, stream TEXT NOT NULL,
      device TEXT NOT NULL, client TEXT NOT NULL, topic TEXT NOT NULL, received_at INTEGER NOT NULL, qos INTEGER NOT NULL,
      properties TEXT, retry_at INTEGER, payload BLOB NOT NULL, UNIQUE (gateway, "offset"));
    CREATE INDEX rejects_retry ON rejects (id) WHERE retry_at IS NOT NULL;
    CREATE TABLE rejects_cursor (gateway TEXT PRIMARY KEY, "offset" INTEGER NOT NULL, dropped INTEGER NOT NULL DEFAULT 0);`,
  migrations: {},
  dropped: "SELECT total(dropped) AS n FROM rejects_cursor",
};

const INSERT = `INSERT OR IGNORE INTO rejects (bytes, gateway, "offset", time, reason, error, issues, ${MESSAGE_COLUMNS})
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;
const MOVE_CURSOR = `INSERT INTO rejects_cursor (gateway, "offset", dropped) VALUES (?, ?, ?)
  ON CONFLICT (gateway) DO UPDATE SET "offset" = excluded."offset", dropped = dropped + excluded.dropped`;
const MARKED = "SELECT * FROM rejects WHERE retry_at IS NOT NULL ORDER BY id LIMIT ?";
const UPDATE = `UPDATE rejects SET retry_at = NULL, reason = ?, error = ?, issues = ? WHERE gateway = ? AND "offset" = ?`;

/** Messages that are tried again together: the main thread decodes them between two of its other jobs. */
const TOGETHER = 20;
const LARGEST_BYTES = 256 * 1024;
/** What a row counts for beside its payload and issues. */
const ROW_BYTES = 300;

interface Totals {
  records: number;
  bytes: number;
  /** Changes when another connection has written, such as an operator's who drops some. */
  version: unknown;
}

export function createRejects({ file, gateway, keep }: RejectsOptions): Rejects {
  let db: DatabaseSync | undefined;
  let totals: Totals | undefined;

  function use<T>(work: (opened: DatabaseSync) => T): T {
    try {
      if (db !== undefined && !existsSync(file)) {
        db.close();
        db = undefined;
        totals = undefined;
      }
      db ??= openInboxFile(file, rejectsInbox);
      return work(db);
    } catch (cause) {
      totals = undefined;
      throw new Error(`${file}: ${toError(cause).message}`, { cause });
    }
  }

  function keepAll(opened: DatabaseSync, entries: readonly RejectedEntry[], next: Offset): number {
    const before = readTotals(opened, totals);
    const now = Date.now();
    const insert = opened.prepare(INSERT);
    for (const { offset, stream, message, rejection } of entries) {
      const issues = JSON.stringify(rejection.issues);
      const { reason } = rejection;
      const error = describeRejection(rejection);
      const bytes = ROW_BYTES + message.payload.length + 2 * issues.length + message.topic.length;
      const values = toMessageValues(stream, message);
      const { changes } = insert.run(bytes, gateway, offset, now, reason, error, issues, ...values);
      before.records += Number(changes);
      before.bytes += Number(changes) * bytes;
    }
    const dropped = makeRoom(opened, before, keep);
    opened.prepare(MOVE_CURSOR).run(gateway, next, dropped);
    totals = before;
    return dropped;
  }

  return {
    position() {
      if (!existsSync(file)) return undefined;
      const row = use((opened) => opened.prepare(`SELECT "offset" FROM rejects_cursor WHERE gateway = ?`).get(gateway));
      return row === undefined ? undefined : toOffset(Number(row["offset"]));
    },
    keep: (entries, next) => use((opened) => inTransaction(opened, () => keepAll(opened, entries, next))),
    takeMarked() {
      if (!existsSync(file)) return [];
      return use((opened) => takeRows(opened.prepare(MARKED).iterate(TOGETHER), LARGEST_BYTES).map(({ item }) => item));
    },
    settle(taken, failed) {
      totals = undefined;
      use((opened) =>
        inTransaction(opened, () => {
          const remove = opened.prepare(`DELETE FROM rejects WHERE gateway = ? AND "offset" = ?`);
          for (const one of taken) remove.run(one.gateway, one.offset);
          const update = opened.prepare(UPDATE);
          for (const { item, reason, issues } of failed) {
            const error = describeRejection({ reason, issues });
            update.run(reason, error, JSON.stringify(issues), item.gateway, item.offset);
          }
        }),
      );
    },
    [Symbol.dispose]() {
      db?.close();
      db = undefined;
    },
  };
}

/** Counted anew when somebody else has written. */
function readTotals(db: DatabaseSync, known: Totals | undefined): Totals {
  const version = db.prepare("PRAGMA data_version").get()?.["data_version"];
  if (known !== undefined && known.version === version) return { ...known };
  const row = db.prepare("SELECT count(*) AS records, total(bytes) AS bytes FROM rejects").get();
  return { records: Number(row?.["records"]), bytes: Number(row?.["bytes"]), version };
}

/** Deletes the oldest until the rest is within its bounds; returns how many. */
function makeRoom(db: DatabaseSync, totals: Totals, { records, bytes }: RejectsOptions["keep"]): number {
  let dropped = 0;
  let last = 0;
  for (const row of db.prepare("SELECT id, bytes FROM rejects ORDER BY id").iterate()) {
    if (totals.records <= records && totals.bytes <= bytes) break;
    last = Number(row["id"]);
    totals.records -= 1;
    totals.bytes -= Number(row["bytes"]);
    dropped += 1;
  }
  if (dropped > 0) db.prepare("DELETE FROM rejects WHERE id <= ?").run(last);
  return dropped;
}
