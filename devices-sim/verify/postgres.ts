// The table `readings` of PostgreSQL. `search_path` finds it.

import { Socket } from "node:net";
import type { Client } from "pg";
import { createReadingsReader, PAGE, type ReadingsTable, type StoredReading } from "./readings-table.ts";
import { toIncomparableTable, type Source } from "./row.ts";

/** A server that says nothing for so long is not there. */
const SILENCE_MS = 60_000;

const NEXT_GATEWAY = "SELECT min(gateway) AS gateway FROM readings WHERE gateway > $1";
// With those that have the offset of the last one: only (gateway, offset, received_at) is unique in a partitioned table.
const NEXT_ROWS = `SELECT "offset"::float8, (extract(epoch FROM received_at) * 1000)::float8 AS received_at, device,
  data::text AS data FROM readings WHERE gateway = $1 AND "offset" > $2
  ORDER BY "offset" FETCH FIRST ${PAGE} ROWS WITH TIES`;

/** A table of another layout, when there is none that can be read. */
const OTHER_LAYOUT = `SELECT table_name FROM information_schema.columns WHERE to_regclass('readings') IS NULL
  AND table_schema = ANY (current_schemas(false)) AND column_name = 'rest'
  AND (table_name = 'metrics' OR table_name LIKE 'readings!_%' ESCAPE '!') ORDER BY table_name LIMIT 1`;

export function openPostgres(url: string): Source {
  let client: Client | undefined;
  let socket: Socket | undefined;
  const readNew = createReadingsReader();

  async function connect(): Promise<Client> {
    const { Client: PgClient } = await import("pg");
    const own = new Socket();
    socket = own;
    const connecting = new PgClient({ connectionString: url, stream: () => own, query_timeout: SILENCE_MS });
    // A connection that breaks fails the query that waits or comes next, and is opened anew then.
    connecting.on("error", () => {
      client = undefined;
    });
    const timer = setTimeout(() => own.destroy(new Error("the server does not answer")), SILENCE_MS);
    try {
      await connecting.connect();
    } catch (cause) {
      own.destroy();
      throw cause;
    } finally {
      clearTimeout(timer);
    }
    return connecting;
  }

  async function openTable(): Promise<ReadingsTable> {
    const connected = (client ??= await connect());
    const { rows } = await connected.query<{ readonly table_name: string }>(OTHER_LAYOUT);
    if (rows[0] !== undefined) throw toIncomparableTable(rows[0].table_name);
    return tableOf(connected);
  }

  return {
    once: true,
    async *read() {
      yield* readNew(await openTable());
    },
    async check() {
      await openTable();
    },
    // Also when the server is frozen: it is not asked.
    [Symbol.asyncDispose]() {
      socket?.destroy();
      return Promise.resolve();
    },
  };
}

const tableOf = (client: Client): ReadingsTable => ({
  async nextGateway(after) {
    const { rows } = await client.query<{ readonly gateway: string | null }>(NEXT_GATEWAY, [after]);
    return rows[0]?.gateway;
  },
  nextRows: async (gateway, offset) => (await client.query<StoredReading>(NEXT_ROWS, [gateway, offset])).rows,
});
