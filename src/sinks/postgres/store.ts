// Writes entries as one transaction: the position, and rows into the table of each stream.

import { setImmediate } from "node:timers/promises";
import type { Entry, Offset } from "../../reading.ts";
import type { Table } from "../layout/table.ts";
import type { RefusedEntry, Written } from "../sink.ts";
import { toServerError } from "./connection.ts";
import type { Connection, ServerError } from "./connection.ts";
import { createCopyRows, isText } from "./copy.ts";
import type { CopyRows } from "./copy.ts";
import { CURSORS, cursorsIn, keyOf, limits, qualify, toLiteral, toNames, toPartitions } from "./tables.ts";

interface StoreOptions {
  readonly connection: Connection;
  /** By the names of streams. */
  readonly tables: ReadonlyMap<string, Table>;
  readonly settings: { readonly schema: string };
  /** The sink's name. */
  readonly sink: string;
}

interface Stored {
  readonly gateway: string;
  readonly entries: readonly Entry[];
  /** The position is moved if it is at `from`; undefined: it is left alone, and rows that are there are passed over. */
  readonly move?: { readonly from: Offset | undefined; readonly to: Offset };
}

/** Sent as soon as there is so much of it: the server reads it while the next is encoded. */
const CHUNK_BYTES = 96 * 1024;

/** Entries that PostgreSQL can never store. */
class Unwritable extends Error {
  override readonly name = "Unwritable";
  readonly refused: readonly [RefusedEntry, ...RefusedEntry[]];

  constructor(refused: readonly [RefusedEntry, ...RefusedEntry[]]) {
    super("entries cannot be stored");
    this.refused = refused;
  }
}

/** Rejects with what the server says, or with a SinkError. */
export function createStore({
  connection,
  tables,
  settings: { schema },
  sink,
}: StoreOptions): (stored: Stored) => Promise<Written> {
  /** Only what is not there yet when `ifNew`: slower. */
  function run({ gateway, move }: Stored, used: ReadonlyMap<Table, readonly Entry[]>, ifNew: boolean): Promise<void> {
    return connection.run(
      [
        ...limits,
        ...(move === undefined ? [] : [toMove(cursorsIn(schema), [gateway, sink], move)]),
        ...[...used.keys()].flatMap((table, index) => (ifNew ? toAdd(schema, table, index) : [toCopy(schema, table)])),
      ],
      [...used].map(([table, entries]) => encode(gateway, table, entries)),
    );
  }

  async function makePartitions(used: ReadonlyMap<Table, readonly Entry[]>): Promise<void> {
    for (const [table, entries] of used) {
      const times = entries.map(({ reading }) => reading.receivedAt);
      await connection.run(toPartitions(schema, table.name, times));
    }
  }

  return async (stored) => {
    const used = Map.groupBy(stored.entries, ({ reading }) => {
      const table = tables.get(reading.stream);
      if (table === undefined) throw new Error(`stream ${reading.stream} is none of those that the sink was told of`);
      return table;
    });
    let ifNew = stored.move === undefined;
    for (let attempt = 1; ; attempt += 1) {
      try {
        await run(stored, used, ifNew);
        return { kind: "all" };
      } catch (cause) {
        if (cause instanceof Unwritable) return { kind: "except", refused: cause.refused };
        const error = toServerError(cause);
        if (error === undefined) throw cause;
        // Not before they are needed: whoever reads the server's partitions would have to guess which readings come.
        if (lacksPartition(error) && attempt === 1) await makePartitions(used);
        // A replay was here before.
        else if (error.code === "23505" && !ifNew) ifNew = true;
        else return toRefused(error);
      }
    }
  };
}

/** The rows of the entries. Throws Unwritable, with all of them that are. */
async function* encode(gateway: string, table: Table, entries: readonly Entry[]): AsyncGenerator<Buffer> {
  const rows = createCopyRows(table.columns);
  const refused: RefusedEntry[] = [];
  for (const entry of entries) {
    const reason = addEntry(gateway, entry, table, rows);
    if (reason !== undefined) refused.push({ offset: entry.offset, reason });
    if (rows.bytes < CHUNK_BYTES) continue;
    const chunk = rows.take(false);
    if (refused.length > 0) continue;
    yield chunk;
    await setImmediate();
  }
  const [first, ...others] = refused;
  if (first !== undefined) throw new Unwritable([first, ...others]);
  yield rows.take(true);
}

const lacksPartition = ({ code, constraint }: ServerError): boolean => code === "23514" && constraint === undefined;

/** Errors of what is written, and of no other cause: data exceptions, broken constraints, a value beyond a limit. */
function toRefused(error: ServerError): Written {
  const hasMoved = error.code === "23502" && error.table === CURSORS;
  if (!/^(?:22|23|54)/.test(error.code) || hasMoved || lacksPartition(error)) throw error;
  return { kind: "refused", reason: `PostgreSQL refuses it: ${error.message}` };
}

function addEntry(gateway: string, entry: Entry, table: Table, copy: CopyRows): string | undefined {
  const rows = table.toRows(gateway, entry);
  if (rows instanceof Error) return rows.message;
  for (const cells of rows) {
    const column = copy.add(cells);
    if (column === undefined) continue;
    const where = findUnwritable(entry.reading.data, "data") ?? column;
    return `the text at ${where} has U+0000 or half of a surrogate pair, which PostgreSQL cannot store`;
  }
  return undefined;
}

/** The place of a text that PostgreSQL cannot hold, or of a field with such a name. */
function findUnwritable(value: unknown, path: string): string | undefined {
  if (typeof value === "string") return isText(value) ? undefined : path;
  if (typeof value !== "object" || value === null) return undefined;
  for (const [name, inner] of Object.entries(value)) {
    if (!isText(name)) return `${path}[${JSON.stringify(name)}]`;
    const found = findUnwritable(inner, Array.isArray(value) ? `${path}[${name}]` : `${path}.${name}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

/**
 * Moves the position; when it is not where it was left, it would become NULL, which fails the transaction. Its row is locked
 * until then, so that of two writers one waits for the other, and fails.
 */
function toMove(
  cursors: string,
  [gateway, sink]: readonly [gateway: string, sink: string],
  { from, to }: NonNullable<Stored["move"]>,
): string {
  const moved = from === undefined ? "NULL" : `CASE WHEN kept."offset" = ${from} THEN excluded."offset" END`;
  return `INSERT INTO ${cursors} AS kept (gateway, sink, "offset") VALUES (${toLiteral(gateway)}, ${toLiteral(sink)}, ${to})
    ON CONFLICT (gateway, sink) DO UPDATE SET "offset" = ${moved}`;
}

const columnsOf = ({ columns }: Table): string => toNames(columns.map(({ name }) => name));

const toCopy = (schema: string, table: Table): string =>
  `COPY ${qualify(schema, table.name)} (${columnsOf(table)}) FROM STDIN (FORMAT binary)`;

function toAdd(schema: string, table: Table, index: number): readonly string[] {
  const [name, incoming, columns] = [qualify(schema, table.name), `sluice_incoming_${index}`, columnsOf(table)];
  return [
    `CREATE TEMPORARY TABLE ${incoming} ON COMMIT DROP AS SELECT ${columns} FROM ${name} WITH NO DATA`,
    `COPY ${incoming} FROM STDIN (FORMAT binary)`,
    `INSERT INTO ${name} (${columns}) SELECT ${columns} FROM ${incoming} ON CONFLICT (${keyOf(table)}) DO NOTHING`,
  ];
}
