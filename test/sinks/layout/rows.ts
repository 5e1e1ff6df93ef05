// What the tests of the layouts share: an entry's rows as objects, and its data put together again from them.

import { createTables } from "../../../src/sinks/layout/layout.ts";
import type { Cell, Layout, LayoutStream, Table } from "../../../src/sinks/layout/table.ts";
import { makeEntry } from "../../contract/sink.ts";
import type { WrittenRow } from "../../contract/sink.ts";

export type Row = Readonly<Record<string, Cell>>;

export function tableOf(layout: Layout, schema: LayoutStream["schema"], stream = "climate"): Table {
  const table = createTables(layout, [{ name: stream, schema }]).get(stream);
  if (table === undefined) throw new Error("no table");
  return table;
}

export function toRows(table: Table, data: unknown): readonly Row[] {
  const rows = table.toRows("gateway-1", makeEntry(7, data));
  if (rows instanceof Error) throw rows;
  return rows.map((cells) => {
    if (cells.length !== table.columns.length) throw new Error("a row has another number of cells than columns");
    return Object.fromEntries(table.columns.map(({ name }, index) => [name, cells[index] ?? null]));
  });
}

/** The row without the common columns and without cells that are null. */
export function toOwn(row: Row | undefined): Row {
  const common = new Set(["gateway", "offset", "received_at", "time", "stream", "device", "topic"]);
  return Object.fromEntries(Object.entries(row ?? {}).filter(([name, cell]) => !common.has(name) && cell !== null));
}

/** As JSON has it: the form in which nothing may be lost. */
export const asJson = (data: unknown): unknown => JSON.parse(JSON.stringify(data) ?? "null");

export function merge(base: unknown, over: unknown): unknown {
  if (!isObject(base) || !isObject(over)) return over;
  const merged = new Map(Object.entries(base));
  for (const [name, value] of Object.entries(over))
    merged.set(name, merged.has(name) ? merge(merged.get(name), value) : value);
  return Object.fromEntries(merged);
}

const isObject = (value: unknown): value is object =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** `value` at `path` of nothing else. */
export const nest = (path: readonly string[], value: unknown): unknown =>
  path.toReversed().reduce<unknown>((inner, name) => Object.fromEntries([[name, inner]]), value);

/** The data of a reading in the layout narrow, by its metrics alone. */
export function fromNarrow(rows: readonly Row[]): unknown {
  let data: unknown;
  for (const { metric, value = null, text = null, rest } of rows) {
    const path = toPath(String(metric));
    const scalarOf = text === null ? value : value === null ? text : text === "true";
    const part: unknown = typeof rest === "string" ? JSON.parse(rest) : scalarOf;
    data = path.length === 0 ? merge(data, part) : merge(data ?? {}, nest(path, part));
  }
  return data;
}

const toPath = (metric: string): readonly string[] =>
  [...metric.matchAll(/\.?([\w$]+)|\[("(?:[^"\\]|\\.)*")\]/g)].map(([, plain, quoted]) =>
    quoted === undefined ? String(plain) : (JSON.parse(quoted) as string),
  );

/** As the contract of a sink asks for it, of any of a reading's rows. */
export function toWritten(row: Readonly<Record<string, unknown>>, data: unknown): WrittenRow {
  const { gateway, offset, device, time } = row;
  return { gateway: String(gateway), offset: Number(offset), device: String(device), time: Number(time), data };
}
