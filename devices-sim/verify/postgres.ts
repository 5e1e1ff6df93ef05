// The table `readings` of PostgreSQL, in the layout `document`, in the order of (gateway, offset). `search_path` finds it.

import { Socket } from "node:net";
import type { Client } from "pg";
import { parseData, type Row, type Source } from "./row.ts";

/** And those that have the offset of the last one: only (gateway, offset, received_at) is unique in a partitioned table. */
const PAGE = 10_000;
/** A server that says nothing for so long is not there. */
const SILENCE_MS = 60_000;

const NEXT_GATEWAY = "SELECT min(gateway) AS gateway FROM readings WHERE gateway > $1";
const NEXT_ROWS = `SELECT "offset"::float8, (extract(epoch FROM received_at) * 1000)::float8 AS received_at, device,
  data::text AS data FROM readings WHERE gateway = $1 AND "offset" > $2
  ORDER BY "offset" FETCH FIRST ${PAGE} ROWS WITH TIES`;

interface Stored {
  readonly offset: number;
  readonly received_at: number;
  readonly device: string;
  readonly data: string;
}

export function openPostgres(url: string): Source {
  let client: Client | undefined;
  let socket: Socket | undefined;
  const lasts = new Map<string, number>();

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

  async function* readGateway(connected: Client, gateway: string): AsyncGenerator<readonly Row[]> {
    for (;;) {
      const { rows } = await connected.query<Stored>(NEXT_ROWS, [gateway, lasts.get(gateway) ?? -1]);
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
      client ??= await connect();
      for (let gateway = ""; ;) {
        const { rows } = await client.query<{ readonly gateway: string | null }>(NEXT_GATEWAY, [gateway]);
        const next = rows[0]?.gateway;
        if (typeof next !== "string") return;
        gateway = next;
        yield* readGateway(client, gateway);
      }
    },
    // Also when the server is frozen: it is not asked.
    [Symbol.asyncDispose]() {
      socket?.destroy();
      return Promise.resolve();
    },
  };
}
