// The tables of a SQLite file: which there are, how those of an earlier version become today's, and how rows get into them.
//
//   sluice_cursor   gateway TEXT, sink TEXT, offset INTEGER: the sink has written everything below it; key (gateway, sink)
//   user_version    2; 1 had one cursor for all sinks of a gateway. Its cursor is now that of the sink "", until a sink
//                   that has none of its own takes it over
//
// Tables for readings are made when a sink opens that has something for them. Of all it is true that they may be older than
// the configuration: they get the columns that they lack, and what does not fit their columns stays JSON (fitTable).

import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import { setImmediate } from "node:timers/promises";
import { toOffset } from "../reading.ts";
import type { Offset } from "../reading.ts";
import { createTables, fitTable } from "./layout/layout.ts";
import { quoteName } from "./layout/table.ts";
import type { Cells, Column, Layout, LayoutStream, Table } from "./layout/table.ts";
import { SinkError } from "./sink.ts";

const SCHEMA_VERSION = 2;

const CURSOR_TABLE = `CREATE TABLE sluice_cursor (
  gateway TEXT NOT NULL, sink TEXT NOT NULL, "offset" INTEGER NOT NULL, PRIMARY KEY (gateway, sink)) WITHOUT ROWID`;

/** From version 0, a new file, and from version 1, to today's. */
const steps: readonly string[] = [
  CURSOR_TABLE,
  `ALTER TABLE sluice_cursor RENAME TO sluice_cursor_1; ${CURSOR_TABLE};
   INSERT INTO sluice_cursor SELECT gateway, '', "offset" FROM sluice_cursor_1; DROP TABLE sluice_cursor_1`,
];

/** Of the tables that are made. */
export interface TableSettings {
  readonly layout: Layout;
  readonly index: "device" | "time" | "none";
}

/**
 * Makes or upgrades what every file has and the tables for the readings of `streams`, or else changes nothing. The tables are
 * by stream.
 */
export function prepareFile(
  db: DatabaseSync,
  { layout, index }: TableSettings,
  streams: readonly LayoutStream[],
  warn: (text: string) => void,
): Promise<ReadonlyMap<string, Table>> {
  return inTransaction(db, () => {
    upgrade(db);
    const tables = createTables(layout, streams);
    const fitted = new Map([...new Set(tables.values())].map((table) => [table, openTable(db, table, index, warn)]));
    return new Map([...tables].map(([stream, table]) => [stream, fitted.get(table) ?? table]));
  });
}

function upgrade(db: DatabaseSync): void {
  const version = readVersion(db);
  if (version > SCHEMA_VERSION) {
    const text = `its schema has version ${version}, written by a newer Sluice; this one knows ${SCHEMA_VERSION}`;
    throw new SinkError("misconfigured", text);
  }
  const step = steps[version];
  if (step !== undefined) db.exec(`${step}; PRAGMA user_version = ${SCHEMA_VERSION}`);
}

function readVersion(db: DatabaseSync): number {
  return Number(db.prepare("PRAGMA user_version").get()?.["user_version"]);
}

async function inTransaction<Result>(db: DatabaseSync, work: () => Result): Promise<Result> {
  await beginWriting(db);
  try {
    const result = work();
    db.exec("COMMIT");
    return result;
  } catch (cause) {
    rollBack(db);
    throw cause;
  }
}

/** So long the write lock is asked for; after that it is an error. */
const LOCK_MS = 2_000;
const SQLITE_BUSY = 5;

/** Begins a transaction that has the write lock. */
export async function beginWriting(db: DatabaseSync, signal?: AbortSignal): Promise<void> {
  const untilMs = performance.now() + LOCK_MS;
  while (!isBegun(db, performance.now() >= untilMs)) {
    await setImmediate();
    signal?.throwIfAborted();
  }
}

/** False: another has the lock. */
function isBegun(db: DatabaseSync, isLastTry: boolean): boolean {
  try {
    db.exec("BEGIN IMMEDIATE");
    return true;
  } catch (cause) {
    if (isLastTry || codeOf(cause) !== SQLITE_BUSY) throw cause;
    return false;
  }
}

/** The primary result code, https://sqlite.org/rescode.html; 0 of what is no error of SQLite. */
export const codeOf = (error: unknown): number => ((error as { readonly errcode?: number }).errcode ?? 0) & 0xff;

/** SQLite has done so itself after a full disk and the like, and when it was closed. */
export function rollBack(db: DatabaseSync): void {
  if (db.isOpen && db.isTransaction) db.exec("ROLLBACK");
}

/** Of one sink. */
export interface FileCursor {
  read(gateway: string): Promise<Offset | undefined>;
  /** In the caller's transaction. */
  move(gateway: string, to: Offset): void;
}

export function createCursor(db: DatabaseSync, sink: string): FileCursor {
  const select = db.prepare(`SELECT "offset" FROM sluice_cursor WHERE gateway = ? AND sink = ?`);
  const move = db.prepare(`INSERT INTO sluice_cursor (gateway, sink, "offset") VALUES (?, ?, ?)
    ON CONFLICT (gateway, sink) DO UPDATE SET "offset" = max("offset", excluded."offset")`);
  const takeOver = db.prepare("UPDATE OR IGNORE sluice_cursor SET sink = ? WHERE gateway = ? AND sink = ''");
  return {
    async read(gateway) {
      const row =
        select.get(gateway, sink) ??
        (await inTransaction(db, () => {
          takeOver.run(sink, gateway);
          return select.get(gateway, sink);
        }));
      return row === undefined ? undefined : toOffset(Number(row["offset"]));
    },
    move: (gateway, to) => void move.run(gateway, sink, to),
  };
}

function openTable(
  db: DatabaseSync,
  wanted: Table,
  index: TableSettings["index"],
  warn: (text: string) => void,
): Table {
  const existing = readColumns(db, wanted.name);
  if (existing.size === 0) {
    db.exec(toDefinition(wanted));
    if (index !== "none") db.exec(toIndex(wanted, index));
    return wanted;
  }
  const { table, missing, unusable } = fit(wanted, existing);
  for (const column of missing) db.exec(`ALTER TABLE ${quoteName(wanted.name)} ADD COLUMN ${toColumn(column)}`);
  if (unusable.length > 0) {
    const names = unusable.map(({ name, type }) => `${quoteName(name)} (now ${type})`).join(", ");
    warn(`table ${wanted.name} has other columns than the schema of its stream wants; in rest as JSON stay: ${names}`);
  }
  return table;
}

function fit(wanted: Table, existing: ReadonlyMap<string, string>): ReturnType<typeof fitTable> {
  try {
    return fitTable(wanted, existing, toType);
  } catch (cause) {
    const text = `table ${wanted.name} is not one that Sluice has made: give another path, or rename the table`;
    throw new SinkError("misconfigured", text, { cause });
  }
}

function readColumns(db: DatabaseSync, table: string): ReadonlyMap<string, string> {
  const rows = db.prepare("SELECT name, type FROM pragma_table_info(?)").all(table);
  return new Map(rows.map((row) => [String(row["name"]), String(row["type"])]));
}

/** A column that was declared BOOLEAN has 1 and 0, and a TIMESTAMP milliseconds since 1970. */
const types = {
  text: "TEXT",
  json: "TEXT",
  bigint: "INTEGER",
  double: "REAL",
  boolean: "BOOLEAN",
  timestamp: "TIMESTAMP",
} as const;

/** The common times have been INTEGER since version 1. */
const toType = ({ type, path }: Column): string =>
  type === "timestamp" && path === undefined ? types.bigint : types[type];

const toColumn = (column: Column): string =>
  `${quoteName(column.name)} ${toType(column)}${column.nullable ? "" : " NOT NULL"}`;

/**
 * What a device sent is looked for by time: all, or one metric of it. A stream's name before it would be the same in nearly each
 * comparison: a sixth of what a row costs.
 */
const indexes: Readonly<Record<Layout, Readonly<Record<"device" | "time", string>>>> = {
  document: { device: "device, time", time: "time" },
  wide: { device: "device, time", time: "time" },
  narrow: { device: "device, metric, time", time: "time" },
};

/**
 * With rowids, the index has a row's number where it would have its key: with gateway ids of 36 characters a row costs a sixth
 * less CPU than WITHOUT ROWID, which tables of version 1 are.
 */
function toDefinition({ name, columns, key }: Table): string {
  const lines = [...columns.map(toColumn), `PRIMARY KEY (${key.map(quoteName).join(", ")})`];
  return `CREATE TABLE ${quoteName(name)} (${lines.join(", ")})`;
}

const toIndex = ({ name, layout }: Table, by: "device" | "time"): string =>
  `CREATE INDEX ${quoteName(`${name}_by_${by}`)} ON ${quoteName(name)} (${indexes[layout][by]})`;

/** Rows of one call at most: beside SQLite's own work the call is most of what a row costs. */
const ROWS_PER_CALL = 16;
const CELLS_PER_CALL = 1_000;

export interface Inserter {
  /** Rows may wait for others until `flush`. */
  insert(row: Cells): void;
  flush(): void;
  /** Forgets what waits. */
  clear(): void;
}

/** Rows that are there already are passed over. */
export function createInserter(db: DatabaseSync, table: Table): Inserter {
  const width = table.columns.length;
  const rows = Math.max(1, Math.min(ROWS_PER_CALL, Math.floor(CELLS_PER_CALL / width)));
  const insertOne = db.prepare(toInsert(table, 1));
  const insertMany = db.prepare(toInsert(table, rows));
  let values: SQLInputValue[] = [];

  function take(): readonly SQLInputValue[] {
    const taken = values;
    values = [];
    return taken;
  }

  return {
    insert(row) {
      for (const cell of row) values.push(typeof cell === "boolean" ? Number(cell) : cell);
      if (values.length === rows * width) insertMany.run(...take());
    },
    flush() {
      const waiting = take();
      for (let at = 0; at < waiting.length; at += width) insertOne.run(...waiting.slice(at, at + width));
    },
    clear: () => void take(),
  };
}

/** OR ROLLBACK is for what cannot happen: without it SQLite keeps a journal of each statement of several rows. */
function toInsert({ name, columns }: Table, rows: number): string {
  const names = columns.map((column) => quoteName(column.name)).join(", ");
  const row = `(${columns.map(() => "?").join(", ")})`;
  const values = Array.from({ length: rows }, () => row).join(", ");
  return `INSERT OR ROLLBACK INTO ${quoteName(name)} (${names}) VALUES ${values} ON CONFLICT DO NOTHING`;
}
