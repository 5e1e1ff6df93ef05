// The table `readings` of a SQLite file. Read in short transactions, so that the gateway goes on and its log does not grow.

import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { createReadingsReader, PAGE, type ReadingsTable, type StoredReading } from "./readings-table.ts";
import { toIncomparableTable, type Source } from "./row.ts";

const BUSY_MS = 5000;

// The key begins with the gateway, so that this is quick in a file of millions of rows.
const NEXT_GATEWAY = "SELECT min(gateway) AS gateway FROM readings WHERE gateway > ?";
const NEXT_ROWS = `SELECT "offset", received_at, device, data FROM readings WHERE gateway = ? AND "offset" > ?
  ORDER BY "offset" LIMIT ${PAGE}`;

/** A table of another layout, when there is none that can be read. */
const OTHER_LAYOUT = `SELECT tables.name FROM sqlite_schema AS tables JOIN pragma_table_info(tables.name) AS columns
  WHERE tables.type = 'table' AND columns.name = 'rest' AND (tables.name = 'metrics' OR tables.name LIKE 'readings!_%' ESCAPE '!')
  AND NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'readings') ORDER BY tables.name LIMIT 1`;

export function openSqlite(path: string): Source {
  let db: DatabaseSync | undefined;
  const readNew = createReadingsReader();

  function openFile(): DatabaseSync {
    if (db === undefined && !existsSync(path)) throw new Error("there is no such file");
    db ??= new DatabaseSync(path, { readOnly: true, timeout: BUSY_MS });
    const other = db.prepare(OTHER_LAYOUT).get()?.["name"];
    if (other !== undefined) throw toIncomparableTable(String(other));
    return db;
  }

  return {
    once: true,
    async *read() {
      yield* readNew(tableOf(openFile()));
    },
    // oxlint-disable-next-line typescript/require-await -- a throw must be a rejection
    async check() {
      openFile();
    },
    [Symbol.asyncDispose]() {
      db?.close();
      return Promise.resolve();
    },
  };
}

function tableOf(db: DatabaseSync): ReadingsTable {
  const [nextGateway, nextRows] = [db.prepare(NEXT_GATEWAY), db.prepare(NEXT_ROWS)];
  return {
    nextGateway: (after) => nextGateway.get(after)?.["gateway"],
    nextRows: (gateway, offset) => nextRows.all(gateway, offset) as unknown as StoredReading[],
  };
}
