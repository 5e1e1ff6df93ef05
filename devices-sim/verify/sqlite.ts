// The table `readings` of a SQLite file, in the layout `document`, in the order of (gateway, offset). Read in short
// transactions, so that the gateway goes on and its log does not grow.

import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { parseData, type Row, type Source } from "./row.ts";

const PAGE = 10_000;
const BUSY_MS = 5000;

// The key begins with the gateway, so that this is quick in a file of millions of rows.
const NEXT_GATEWAY = "SELECT min(gateway) AS gateway FROM readings WHERE gateway > ?";
const NEXT_ROWS = `SELECT "offset", received_at, device, data FROM readings WHERE gateway = ? AND "offset" > ?
  ORDER BY "offset" LIMIT ${PAGE}`;

interface Stored {
  readonly offset: number;
  readonly received_at: number;
  readonly device: string;
  readonly data: string;
}

export function openSqlite(path: string): Source {
  let db: DatabaseSync | undefined;
  const lasts = new Map<string, number>();

  async function* readGateway(opened: DatabaseSync, gateway: string): AsyncGenerator<readonly Row[]> {
    const next = opened.prepare(NEXT_ROWS);
    for (;;) {
      const rows = next.all(gateway, lasts.get(gateway) ?? -1) as unknown as Stored[];
      const last = rows.at(-1);
      if (last === undefined) return;
      lasts.set(gateway, last.offset);
      yield rows.map(({ offset, received_at: receivedAt, device, data }) => ({
        lane: gateway,
        offset,
        device,
        receivedAt,
        data: parseData(data),
      }));
      if (rows.length < PAGE) return;
    }
  }

  return {
    once: true,
    async *read() {
      if (db === undefined && !existsSync(path)) throw new Error("there is no such file");
      db ??= new DatabaseSync(path, { readOnly: true, timeout: BUSY_MS });
      const nextGateway = db.prepare(NEXT_GATEWAY);
      for (let gateway = ""; ;) {
        const next = nextGateway.get(gateway)?.["gateway"];
        if (typeof next !== "string") return;
        gateway = next;
        yield* readGateway(db, gateway);
      }
    },
    [Symbol.asyncDispose]() {
      db?.close();
      return Promise.resolve();
    },
  };
}
