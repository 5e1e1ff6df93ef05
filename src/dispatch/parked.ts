// Records that a sink or handler can never take, set aside durably with the cause, before its cursor passes them.
//
//   parked         sink TEXT, gateway TEXT, offset INTEGER: the key | the other columns of inbox.ts |
//                  attempts INTEGER: how often it was tried; 0: never, because today's schema refuses it |
//                  tries INTEGER: of the retry that was asked for, how often it was begun
//   user_version   2; 1 had no qos, properties, retry_at and tries
//
// All workers of a gateway share the file `parked.db`.

import { existsSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import { toError } from "../errors.ts";
import type { JournalEntry } from "../journal/record.ts";
import type { Offset } from "../reading.ts";
import { inTransaction, MESSAGE_COLUMNS, openInboxFile, takeRows, toMessageValues } from "./inbox.ts";
import type { InboxItem, InboxKind } from "./inbox.ts";

/** A record to be set aside. */
export interface Parked {
  readonly entry: JournalEntry;
  /** Why, as a sentence for the operator. */
  readonly error: string;
  readonly attempts: number;
}

/** What became of a record that was tried again and is still parked. */
export interface StillParked {
  readonly offset: Offset;
  readonly error: string;
  readonly attempts: number;
}

/** Nothing is parked before a person has made room: what is to be parked waits in the journal, and with it what is behind. */
class ParkingFull extends Error {
  override readonly name = "ParkingFull";
  /** As of a SinkError. */
  readonly kind = "misconfigured";
}

/** Synchronous: for worker threads. */
export interface Parking extends Disposable {
  /**
   * All of them are on disk when it returns; the same record again replaces the earlier one. Throws when that fails, or when
   * the file is as large as it may be.
   */
  park(records: readonly Parked[]): void;
  /**
   * Records that an operator wants tried again, of one gateway id, in its order; [] when there are none. Settle all of them
   * before the next call. One whose worker has ended while it was tried comes alone, and no more than three times.
   */
  takeMarked(): readonly InboxItem[];
  /** Those that are taken are forgotten, the others keep waiting with their new error. */
  settle(gateway: string, taken: readonly Offset[], failed: readonly StillParked[]): void;
}

export interface ParkingOptions {
  /** Made when the first record is parked. */
  readonly file: string;
  /** Name of the sink or handler. */
  readonly sink: string;
  /** The gateway id. */
  readonly gateway: string;
  /** Nothing more is parked while the file's contents take so much. */
  readonly maximumBytes: number;
}

const NEW_IN_2 = [
  "qos INTEGER NOT NULL DEFAULT 0",
  "properties TEXT",
  "retry_at INTEGER",
  "tries INTEGER NOT NULL DEFAULT 0",
];
const INDEX = `CREATE INDEX parked_retry ON parked (sink, gateway, "offset") WHERE retry_at IS NOT NULL`;

export const parkedInbox: InboxKind = {
  table: "parked",
  version: 2,
  schema: `
    CREATE TABLE parked (
      sink TEXT NOT NULL, gateway TEXT NOT NULL, "offset" INTEGER NOT NULL, time INTEGER NOT NULL, error TEXT NOT NULL,
      stream TEXT NOT NULL, device TEXT NOT NULL, client TEXT NOT NULL, topic TEXT NOT NULL, received_at INTEGER NOT NULL,
      payload BLOB NOT NULL, attempts INTEGER NOT NULL, ${NEW_IN_2.join(", ")}, PRIMARY KEY (sink, gateway, "offset"));
    ${INDEX};`,
  migrations: { 1: `${NEW_IN_2.map((column) => `ALTER TABLE parked ADD COLUMN ${column};`).join(" ")} ${INDEX};` },
};

const INSERT = `INSERT OR REPLACE INTO parked (sink, gateway, "offset", time, error, attempts, ${MESSAGE_COLUMNS})
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;
const KEY = `WHERE sink = ? AND gateway = ? AND "offset" = ?`;
const MARKED = `SELECT * FROM parked WHERE sink = ? AND retry_at IS NOT NULL ORDER BY gateway, "offset" LIMIT ?`;

/** Records that are tried again together. */
const TOGETHER = 200;
const LARGEST_BYTES = 4 * 1024 * 1024;
/** A record that ends its worker each time it is tried must not be tried for ever. */
const MAXIMUM_TRIES = 3;

export function createParking({ file, sink, gateway, maximumBytes }: ParkingOptions): Parking {
  let db: DatabaseSync | undefined;

  function use<T>(work: (opened: DatabaseSync) => T): T {
    try {
      if (db !== undefined && !existsSync(file)) {
        db.close();
        db = undefined;
      }
      db ??= openInboxFile(file, parkedInbox);
      return work(db);
    } catch (cause) {
      throw new Error(`${file}: ${toError(cause).message}`, { cause });
    }
  }

  function settle(of: string, taken: readonly Offset[], failed: readonly StillParked[]): void {
    use((opened) =>
      inTransaction(opened, () => {
        const remove = opened.prepare(`DELETE FROM parked ${KEY}`);
        for (const offset of taken) remove.run(sink, of, offset);
        const keep = opened.prepare(`UPDATE parked SET retry_at = NULL, tries = 0, error = ?, attempts = ? ${KEY}`);
        for (const { offset, error, attempts } of failed) keep.run(error, attempts, sink, of, offset);
      }),
    );
  }

  return {
    park(records) {
      if (records.length === 0) return;
      const bytes = use(readUsedBytes);
      if (bytes >= maximumBytes) {
        throw new ParkingFull(
          `${file} holds ${Math.round(bytes / 2 ** 20)} MiB of parked records, and \`parked.bytes\` allows no more: see \`sluice parked list\`, mend the cause, then \`sluice parked retry\` or \`drop\`. ${sink} waits until then.`,
        );
      }
      use((opened) => insertAll(opened, sink, gateway, records));
    },
    takeMarked() {
      if (db === undefined && !existsSync(file)) return [];
      const marked = use((opened) => takeRows(opened.prepare(MARKED).iterate(sink, TOGETHER), LARGEST_BYTES));
      const [first] = marked;
      if (first === undefined) return [];
      const { item, row } = first;
      if (Number(row["tries"]) >= MAXIMUM_TRIES) {
        const error = `its worker ended each of the ${MAXIMUM_TRIES} times that it was tried again; before: ${item.error}`;
        settle(item.gateway, [], [{ offset: item.offset, error, attempts: item.attempts ?? 0 }]);
        return this.takeMarked();
      }
      const hasEnded = marked.some((one) => Number(one.row["tries"]) > 0);
      const items = marked.map((one) => one.item).filter((one) => one.gateway === item.gateway);
      const taken = hasEnded ? [item] : items;
      use((opened) =>
        inTransaction(opened, () => {
          const begin = opened.prepare(`UPDATE parked SET tries = tries + 1 ${KEY}`);
          for (const one of taken) begin.run(sink, one.gateway, one.offset);
        }),
      );
      return taken;
    },
    settle,
    [Symbol.dispose]() {
      db?.close();
      db = undefined;
    },
  };
}

/** Without the pages that deleted records have left. */
function readUsedBytes(db: DatabaseSync): number {
  const read = (name: string): number => Number(db.prepare(`PRAGMA ${name}`).get()?.[name]);
  return (read("page_count") - read("freelist_count")) * read("page_size");
}

function insertAll(db: DatabaseSync, sink: string, gateway: string, records: readonly Parked[]): void {
  const now = Date.now();
  inTransaction(db, () => {
    const insert = db.prepare(INSERT);
    for (const { entry, error, attempts } of records) {
      insert.run(sink, gateway, entry.offset, now, error, attempts, ...toMessageValues(entry.stream, entry.message));
    }
  });
}
