// How sinks with tables arrange readings: which tables there are, and what of a reading is in which column.

import { z } from "zod";
import { unreachable } from "../../errors.ts";
import type { Batch, Offset } from "../../reading.ts";
import type { RefusedEntry, Written } from "../sink.ts";
import { createNarrowTable } from "./narrow.ts";
import { createDocumentTable } from "./table.ts";
import type { Cells, Column, Layout, LayoutStream, Table } from "./table.ts";
import { createWideTable } from "./wide.ts";

export const layoutSetting = z
  .enum(["document", "wide", "narrow"])
  .default("document")
  .describe(
    "document: a row for each reading, with its data as JSON. wide: a table for each stream, with a column for each field that its schema names. narrow: a row for each value of a reading.",
  );

/** The table of each stream; several streams may have the same one. */
export function createTables(layout: Layout, streams: readonly LayoutStream[]): ReadonlyMap<string, Table> {
  const createTable = creatorOf(layout);
  return new Map(streams.map((stream) => [stream.name, createTable(stream)]));
}

function creatorOf(layout: Layout): (stream: LayoutStream) => Table {
  switch (layout) {
    case "document":
    case "narrow": {
      const table = layout === "document" ? createDocumentTable() : createNarrowTable();
      return () => table;
    }
    case "wide":
      return createWideTable;
    default:
      return unreachable(layout);
  }
}

/** The rows of an entry, and where they go. */
interface EntryRows {
  readonly offset: Offset;
  readonly table: Table;
  readonly rows: readonly Cells[];
}

export type BatchRows =
  /** In the order of the batch; none is left out. */
  { readonly kind: "rows"; readonly entries: readonly EntryRows[] } | (Written & { readonly kind: "except" });

/** The rows of a batch, or which of its entries can never be written. */
export function toRows(tables: ReadonlyMap<string, Table>, { gateway, entries }: Batch): BatchRows {
  const made: EntryRows[] = [];
  const refused: RefusedEntry[] = [];
  for (const entry of entries) {
    const { offset, reading } = entry;
    const table = tables.get(reading.stream);
    if (table === undefined) throw new Error(`stream ${reading.stream} is none of those that the sink was told of`);
    const rows = table.toRows(gateway, entry);
    if (rows instanceof Error) refused.push({ offset, reason: rows.message });
    else made.push({ offset, table, rows });
  }
  const [first, ...others] = refused;
  return first === undefined ? { kind: "rows", entries: made } : { kind: "except", refused: [first, ...others] };
}

/** Columns of a table in a database, however many upgrades have added some. Those that would be more stay in `rest`. */
const MOST_COLUMNS = 1_000;

export interface Fitted {
  /** Has only columns that are there or in `missing`. */
  readonly table: Table;
  /** To be added. */
  readonly missing: readonly Column[];
  /** Are of another type there, or there is no room for them: what they would hold is in `rest`. For a warning. */
  readonly unusable: readonly Column[];
}

/**
 * A table as it can be used when an earlier version of the schema has made it. `existing`: its columns there, and the type of
 * each as the database names it; `toType`: the name that a column's type has there. Throws when it lacks what it needs.
 */
export function fitTable(
  table: Table,
  existing: ReadonlyMap<string, string>,
  toType: (column: Column) => string,
): Fitted {
  const there = new Map([...existing].map(([name, type]) => [name.toLowerCase(), { name, type }]));
  const missing: Column[] = [];
  const unusable: Column[] = [];
  for (const column of table.columns) {
    const same = there.get(column.name.toLowerCase());
    if (same?.name === column.name && same.type === toType(column)) continue;
    if (same === undefined && column.path !== undefined && existing.size + missing.length < MOST_COLUMNS)
      missing.push(column);
    else unusable.push(column);
  }
  const [first] = unusable;
  if (first === undefined) return { table, missing, unusable };
  if (table.without === undefined) throw new Error(`table ${table.name} there has no column ${first.name} that fits`);
  return { table: table.without(new Set(unusable.map(({ name }) => name))), missing, unusable };
}
