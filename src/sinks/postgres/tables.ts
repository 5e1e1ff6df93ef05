// The tables in PostgreSQL: made when they are missing, given the columns that a schema has got, and their partitions by day.

import { toError } from "../../errors.ts";
import type { UnixMs } from "../../reading.ts";
import { createTables, fitTable } from "../layout/layout.ts";
import { quoteName } from "../layout/table.ts";
import type { Column, ColumnType, Layout, Table } from "../layout/table.ts";
import { SinkError } from "../sink.ts";
import type { SinkContext } from "../sink.ts";
import type { Connection } from "./connection.ts";

/** How the tables are to be. */
export interface TableSettings {
  readonly schema: string;
  readonly layout: Layout;
  readonly partition: "day" | "none";
}

/**
 * For each transaction. Locks: what waits for one ends before the gateway gives it up, so that no such transactions pile up in the
 * server. Keep-alive: a gateway that vanished in the middle of a COPY holds its locks for no longer than 30 s.
 */
export const limits: readonly string[] = [
  "SET LOCAL lock_timeout = '5s'",
  "SET LOCAL statement_timeout = '10min'",
  "SET LOCAL tcp_keepalives_idle = 10",
  "SET LOCAL tcp_keepalives_interval = 5",
  "SET LOCAL tcp_keepalives_count = 4",
];

/** "sluice": whoever makes tables holds it to the end of the transaction. */
const LOCK = "SELECT pg_advisory_xact_lock(126939328405349)";

export const CURSORS = "sluice_cursor";

/** As PostgreSQL names the types of columns. */
const typeNames: Readonly<Record<ColumnType, string>> = {
  text: "text",
  bigint: "bigint",
  double: "double precision",
  boolean: "boolean",
  timestamp: "timestamp with time zone",
  json: "jsonb",
};

/** Whatever standard_conforming_strings says. */
export const toLiteral = (text: string): string => `E'${text.replaceAll(/['\\]/g, "$&$&")}'`;
export const qualify = (schema: string, name: string): string => `${quoteName(schema)}.${quoteName(name)}`;
export const cursorsIn = (schema: string): string => qualify(schema, CURSORS);
export const toNames = (columns: readonly string[]): string => columns.map(quoteName).join(", ");

/** What identifies a row; with the column of the partitions, which PostgreSQL wants in it. An offset has one time of arrival. */
export const keyOf = ({ key }: Table): string => toNames([...key, "received_at"]);

/** Makes what is missing, in one transaction. Resolves to the table of each stream, as it can be used. */
export async function prepareTables(
  connection: Connection,
  settings: TableSettings,
  { streams, warn }: Pick<SinkContext, "streams" | "warn">,
): Promise<ReadonlyMap<string, Table>> {
  const { schema, layout } = settings;
  const wanted = createTables(layout, streams);
  await connection.query("BEGIN");
  for (const limit of limits) await connection.query(limit);
  await connection.query(LOCK);
  const hasTimescale = await exists(connection, "SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'");
  if ((await readColumns(connection, schema, CURSORS)).size === 0) {
    const columns = `gateway text, sink text, "offset" bigint NOT NULL, PRIMARY KEY (gateway, sink)`;
    await connection.query(`CREATE TABLE ${cursorsIn(schema)} (${columns})`);
  }
  const usable = new Map<Table, Table>();
  for (const table of new Set(wanted.values())) {
    const there = await readColumns(connection, schema, table.name);
    if (there.size > 0) usable.set(table, await fit(connection, { table, there, schema, warn }));
    else for (const statement of toCreate(table, settings, hasTimescale)) await connection.query(statement);
  }
  await connection.query("COMMIT");
  return new Map([...wanted].map(([stream, table]) => [stream, usable.get(table) ?? table]));
}

async function exists(connection: Connection, text: string): Promise<boolean> {
  return (await connection.query(text)).length > 0;
}

/** Name → type; none: there is no such table. */
async function readColumns(
  connection: Connection,
  schema: string,
  table: string,
): Promise<ReadonlyMap<string, string>> {
  const rows = await connection.query(
    `SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
     WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`,
    [qualify(schema, table)],
  );
  return new Map(rows.map(({ name, type }) => [String(name), String(type)]));
}

/** What is in the keys is compared by its bytes, whatever the language of the database. */
function toDefinition({ name, type, nullable, path }: Column): string {
  const collation = type === "text" && path === undefined && !nullable ? ` COLLATE "C"` : "";
  return `${quoteName(name)} ${typeNames[type]}${collation}${nullable ? "" : " NOT NULL"}`;
}

function toCreate(table: Table, { schema, partition }: TableSettings, hasTimescale: boolean): readonly string[] {
  const name = qualify(schema, table.name);
  const isPartitioned = partition === "day" && !hasTimescale;
  const others = table.key.filter((column) => column !== "gateway" && column !== "offset");
  return [
    `CREATE TABLE ${name} (${table.columns.map(toDefinition).join(", ")}, PRIMARY KEY (${keyOf(table)}))${
      isPartitioned ? " PARTITION BY RANGE (received_at)" : ""
    }`,
    `CREATE INDEX ON ${name} (${toNames(["device", ...others, "time"])})`,
    ...(partition === "day" && hasTimescale
      ? [
          `SELECT create_hypertable(${toLiteral(name)}, 'received_at', chunk_time_interval => interval '1 day', create_default_indexes => false)`,
        ]
      : []),
  ];
}

interface Fitting extends Pick<SinkContext, "warn"> {
  readonly table: Table;
  readonly there: ReadonlyMap<string, string>;
  readonly schema: string;
}

async function fit(connection: Connection, { table, there, schema, warn }: Fitting): Promise<Table> {
  const { table: usable, missing, unusable } = toFitted(table, there, schema);
  const name = qualify(schema, table.name);
  if (missing.length > 0) {
    const added = missing.map((column) => `ADD COLUMN ${toDefinition(column)}`);
    await connection.query(`ALTER TABLE ${name} ${added.join(", ")}`);
  }
  if (unusable.length > 0) {
    const columns = unusable.map((column) => `${column.name} (${typeNames[column.type]})`).join(", ");
    warn(`table ${name} has no columns of these types: ${columns}; what belongs there is in its column rest`);
  }
  return usable;
}

function toFitted(table: Table, there: ReadonlyMap<string, string>, schema: string): ReturnType<typeof fitTable> {
  try {
    return fitTable(table, there, ({ type }) => typeNames[type]);
  } catch (cause) {
    const sentence = `schema ${schema}: ${toError(cause).message}. Give this sink a schema of its own, or rename the table.`;
    throw new SinkError("misconfigured", sentence, { cause });
  }
}

const DAY_MS = 24 * 60 * 60 * 1_000;

/**
 * The statements that make the partitions for these times, where they are missing; for one transaction. A partition is made as a
 * table of its own and attached then: so nobody who reads or writes the others is locked out.
 */
export function toPartitions(schema: string, table: string, times: readonly UnixMs[]): readonly string[] {
  const days = new Set(times.map((time) => Math.floor(time / DAY_MS)));
  return [...limits, LOCK, ...[...days].map((day) => toPartition(schema, table, day))];
}

function toPartition(schema: string, table: string, day: number): string {
  const [from, to] = [day, day + 1].map((one) => new Date(one * DAY_MS).toISOString());
  const [parent, name] = [table, `${table}_p${from?.slice(0, 10).replaceAll("-", "")}`].map((one) =>
    qualify(schema, one),
  ) as [string, string];
  const make = `CREATE TABLE ${name} (LIKE ${parent} INCLUDING ALL)`;
  const attach = `ALTER TABLE ${parent} ATTACH PARTITION ${name} FOR VALUES FROM ('${from}') TO ('${to}')`;
  return `DO ${toLiteral(`BEGIN IF to_regclass(${toLiteral(name)}) IS NULL THEN ${make}; ${attach}; END IF; END`)}`;
}
