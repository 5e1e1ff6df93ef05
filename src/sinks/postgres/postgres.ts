// Readings into PostgreSQL, exactly once: the rows of a batch and the position behind them are one transaction.
//
//   sluice_cursor   gateway text, sink text, offset bigint: everything below it has been written; key (gateway, sink)
//   and the tables of the layout (../layout), by default
//   readings        gateway text, offset bigint, received_at timestamptz, time timestamptz, stream text, device text,
//                   topic text, data jsonb; key (gateway, offset, received_at), index (device, time)
//
// A batch is one message to the server and one round trip: the position is moved if it is where this sink has left it, and
// the rows follow as binary COPY. ADR 13 has the measurements.

import { z } from "zod";
import { toOffset } from "../../reading.ts";
import type { Batch, Offset } from "../../reading.ts";
import { layoutSetting } from "../layout/layout.ts";
import { defineSink } from "../sink.ts";
import type { Sink, SinkContext } from "../sink.ts";
import { tlsSettings } from "../tls.ts";
import { openConnection } from "./connection.ts";
import type { Connection } from "./connection.ts";
import { createStore } from "./store.ts";
import { cursorsIn, prepareTables } from "./tables.ts";

const name = z
  .string()
  .min(1)
  .max(63)
  .regex(/^[^\0]*$/, "must not have U+0000");

const postgresSettings = z.strictObject({
  host: z
    .string()
    .min(1)
    .default("127.0.0.1")
    .describe("The server's name or address, or the folder of its Unix domain socket, such as /run/postgresql."),
  port: z.int().min(1).max(65_535).default(5432).describe("Its port, also of a Unix domain socket."),
  database: name.default("telemetry").describe("The database. It must exist."),
  user: name.default("sluice").describe("The role that connects."),
  password: z
    .string()
    .min(1)
    .optional()
    .describe("Its password; none when left out. The environment and ~/.pgpass are not read."),
  tls: tlsSettings
    .optional()
    .describe("TLS, with these certificates; `{}` for those that Node.js knows. Left out: no TLS."),
  schema: name.default("public").describe("The schema of the tables. It must exist."),
  layout: layoutSetting,
  partition: z
    .enum(["day", "none"])
    .default("day")
    .describe(
      "day: new tables are partitioned by the UTC day of `received_at`, so that old days are dropped at once; as a hypertable where TimescaleDB is installed in the database. none: plain tables.",
    ),
});

type PostgresSettings = z.output<typeof postgresSettings>;

/** Readings into PostgreSQL or TimescaleDB. */
export const postgres = defineSink({
  type: "postgres",
  settings: postgresSettings,
  batch: { records: 5_000 },
  reference: {
    writes:
      "Into tables of a PostgreSQL database, which are made when they are missing. By default one table `readings` has a row for each reading: `gateway`, `offset`, `received_at` and `time` (`timestamptz`), `stream`, `device`, `topic` and `data` (`jsonb`), with the key (`gateway`, `offset`, `received_at`) and an index on (`device`, `time`). `sluice_cursor` holds the position of each sink.",
    once: "Exactly once: the rows of a batch and the position behind them are one transaction. A transaction of an earlier connection that is still under way, or a second gateway with the same id, cannot write after this one: the position must be where this sink has left it. A replay adds only rows that are not there.",
    notes: [
      "Partitions: each UTC day of `received_at`, the time of arrival, has one, such as `readings_p20261129`, made with its first reading. Not of `time`, which is what devices say: a few wrong clocks would make partitions for 1970 and 2099, and dropping old ones would take what has just arrived. To keep 30 days, drop or detach older partitions. A query on `time` looks into every partition by its index; with a condition on `received_at` too it looks into those days only. Partitions that you make yourself, for other ranges or by another tool, are used as they are.",
      "TimescaleDB: new tables become hypertables on `received_at` with chunks of a day. This is tested against a stand-in for its function `create_hypertable` only.",
      "Parked are readings with U+0000 or half of a surrogate pair in a text, which PostgreSQL cannot store, and what breaks a constraint that you have added. A field that a schema has got gets a column (`wide`) when the gateway is started with it; one whose type has changed goes to `rest`.",
      "PostgreSQL 12 or later. The user needs USAGE and CREATE on the schema, or, where an administrator makes tables and partitions, USAGE on it, SELECT, INSERT and UPDATE on `sluice_cursor` and SELECT and INSERT on the tables; a replay also TEMPORARY on the database. Nothing of a session is used beyond a transaction, so that PgBouncer may pool transactions.",
      "With `synchronous_commit = off` in the server a crash of it costs rows and position together, and they come again while the journal has them.",
    ],
    example: `postgres({ host: "db.example", user: "sluice", password: env.PGPASSWORD, tls: {} })`,
  },
  open: openPostgres,
});

/** For connecting, and for making tables. */
const OPENS_WITHIN_MS = 10_000;

async function openPostgres(settings: PostgresSettings, context: SinkContext): Promise<Sink> {
  const late = AbortSignal.timeout(OPENS_WITHIN_MS);
  const connection = await openConnection(settings, context.name, late);
  try {
    return await connection.during(late, async () => {
      const tables = await prepareTables(connection, settings, context);
      const position = await readPosition(connection, settings.schema, context);
      return createSink(connection, position, createStore({ connection, tables, settings, sink: context.name }));
    });
  } catch (cause) {
    connection.destroy();
    throw cause;
  }
}

async function readPosition(
  connection: Connection,
  schema: string,
  { gateway, name: sink }: SinkContext,
): Promise<Offset | undefined> {
  const text = `SELECT "offset" FROM ${cursorsIn(schema)} WHERE gateway = $1 AND sink = $2`;
  const [row] = await connection.query(text, [gateway, sink]);
  return row === undefined ? undefined : toOffset(Number(row["offset"]));
}

function createSink(connection: Connection, found: Offset | undefined, store: ReturnType<typeof createStore>): Sink {
  let position = found;
  return {
    position: () => Promise.resolve(position),
    async write(batch, signal) {
      signal.throwIfAborted();
      const isNew = ({ offset }: Batch["entries"][number]): boolean => position === undefined || offset >= position;
      const [entries, next] =
        batch.replay === true
          ? [batch.entries, undefined]
          : [batch.entries.filter(isNew), toOffset(Math.max(batch.next, position ?? 0))];
      if (entries.length === 0 && (next === undefined || next === position)) return { kind: "all" };
      const written = await connection.during(signal, () =>
        store({ gateway: batch.gateway, entries, ...(next !== undefined && { move: { from: position, to: next } }) }),
      );
      if (written.kind === "all" && next !== undefined) position = next;
      return written;
    },
    [Symbol.asyncDispose]() {
      connection.destroy();
      return Promise.resolve();
    },
  };
}
