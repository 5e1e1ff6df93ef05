// Looks into the gateway's SQLite file from outside, as any other program could: read-only, while it is written.

import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";

/** A row of `readings`; times in Unix milliseconds. */
export interface Row {
  readonly gateway: string;
  readonly offset: number;
  readonly received_at: number;
  readonly stream: string;
  readonly device: string;
  /** JSON. */
  readonly data: string;
}

export interface Look {
  /** All rows of the file. */
  readonly rows: number;
  /** The newest first. */
  readonly newest: readonly Row[];
}

export interface Rows extends Disposable {
  /** Undefined while there is no file or table yet, or when the file is busy. Reads only what is new since the last look. */
  look(limit: number): Look | undefined;
}

/** `path` need not exist yet. */
export function openRows(path: string): Rows {
  let db: DatabaseSync | undefined;
  const counted = new Map<string, { rows: number; below: number }>();
  return {
    look(limit) {
      try {
        if (db === undefined && !existsSync(path)) return undefined;
        db ??= new DatabaseSync(path, { readOnly: true });
        return look(db, counted, limit);
      } catch {
        return undefined;
      }
    },
    [Symbol.dispose]: () => db?.close(),
  };
}

/** Goes through the primary key (gateway, offset): counting by it is quick also in a file of millions of rows. */
function look(db: DatabaseSync, counted: Map<string, { rows: number; below: number }>, limit: number): Look {
  const gateways = db.prepare("SELECT gateway FROM sluice_cursor").all() as { gateway: string }[];
  const count = db.prepare(
    `SELECT count(*) AS rows, coalesce(max("offset") + 1, ?) AS below FROM readings WHERE gateway = ? AND "offset" >= ?`,
  );
  const newest = db.prepare(
    `SELECT gateway, "offset", received_at, stream, device, data FROM readings WHERE gateway = ?
     ORDER BY "offset" DESC LIMIT ?`,
  );
  let rows = 0;
  const candidates: Row[] = [];
  for (const { gateway } of gateways) {
    const before = counted.get(gateway) ?? { rows: 0, below: 0 };
    const added = count.get(before.below, gateway, before.below) as { rows: number; below: number };
    const now = { rows: before.rows + added.rows, below: added.below };
    counted.set(gateway, now);
    rows += now.rows;
    candidates.push(...(newest.all(gateway, limit) as unknown as Row[]));
  }
  return { rows, newest: candidates.toSorted((a, b) => b.received_at - a.received_at).slice(0, limit) };
}

/** The rows as a small table, a line each, heading first. */
export function toTable(rows: readonly Row[]): readonly string[] {
  return [
    `${"offset".padStart(9)}  ${"received".padEnd(12)}  ${"stream".padEnd(8)}  ${"device".padEnd(12)}  data`,
    ...rows.map(
      ({ offset, received_at, stream, device, data }) =>
        `${String(offset).padStart(9)}  ${new Date(received_at).toISOString().slice(11, 23)}  ${stream.padEnd(8)}  ` +
        `${device.padEnd(12)}  ${shorten(data)}`,
    ),
  ];
}

/** `seq 12 temperature 21.37 humidity 45.12`: the first metrics of a reading, else the JSON itself. */
function shorten(data: string): string {
  const { seq, metrics } = JSON.parse(data) as { readonly seq?: unknown; readonly metrics?: object };
  if (metrics === undefined) return data.slice(0, 60);
  const parts = Object.entries(metrics).slice(0, 3);
  return [["seq", seq], ...parts].map(([name, value]) => `${String(name)} ${String(value)}`).join("  ");
}
