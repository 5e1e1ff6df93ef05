// What every layout has in common: a table with its columns, and an entry as rows of it. Each layout begins with
//
//   gateway text, offset bigint, received_at timestamp, time timestamp, stream text, device text, topic text

import type { Entry } from "../../reading.ts";
import { toJson } from "../document.ts";
import type { SinkStream } from "../sink.ts";

/**
 * What the cells of a column are beside null. text: string, well-formed and without U+0000. bigint: number, a safe integer. double: number, finite; neither is -0.
 * boolean: boolean. timestamp: number, milliseconds since 1970. json: string, JSON.
 */
export type ColumnType = "text" | "bigint" | "double" | "boolean" | "timestamp" | "json";
export type Cell = string | number | boolean | null;
/** A row: a cell for each column. */
export type Cells = readonly Cell[];

export interface Column {
  /** At most 63 bytes, and no other one of the table differs in case only. May be any text otherwise: quote it. */
  readonly name: string;
  readonly type: ColumnType;
  readonly nullable: boolean;
  /** Of a column for a field: the field's place in the data. */
  readonly path?: readonly string[];
}

export interface Table {
  readonly layout: Layout;
  /** At most 48 bytes of lower-case letters, digits, _ and -. */
  readonly name: string;
  readonly columns: readonly Column[];
  /** The columns that identify a row. */
  readonly key: readonly string[];
  /** The rows of an entry; an Error says why it can never be written. */
  toRows(gateway: string, entry: Entry): readonly Cells[] | Error;
  /**
   * Of a table that can do without some of its columns: the same without those. What they would hold is in `rest` then.
   * Throws for a column that it needs.
   */
  without?(names: ReadonlySet<string>): Table;
}

export type Layout = "document" | "wide" | "narrow";

export const commonColumns: readonly Column[] = [
  { name: "gateway", type: "text", nullable: false },
  { name: "offset", type: "bigint", nullable: false },
  { name: "received_at", type: "timestamp", nullable: false },
  { name: "time", type: "timestamp", nullable: false },
  { name: "stream", type: "text", nullable: false },
  { name: "device", type: "text", nullable: false },
  { name: "topic", type: "text", nullable: false },
];

export function toCommonCells(gateway: string, { offset, reading }: Entry): Cells {
  const { stream, deviceId, topic, time, receivedAt } = reading;
  return [gateway, offset, receivedAt, time, stream, deviceId, topic];
}

/** What has no column of its own, as JSON. */
export const restColumn: Column = { name: "rest", type: "json", nullable: true };

export const toUnwritable = (cause: Error): Error =>
  new Error(`its data cannot be written as JSON: ${cause.message}`, { cause });

/** `readings`: a row for each reading, with its data as JSON in the column `data`. */
export function createDocumentTable(): Table {
  return {
    layout: "document",
    name: "readings",
    columns: [...commonColumns, { name: "data", type: "json", nullable: false }],
    key: ["gateway", "offset"],
    toRows(gateway, entry) {
      const data = toJson(entry.reading.data);
      return typeof data === "string" ? [[...toCommonCells(gateway, entry), data]] : toUnwritable(data);
    },
  };
}

/** An object that JSON writes field by field. */
export const isFields = (value: unknown): value is object =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  typeof (value as { readonly toJSON?: unknown }).toJSON !== "function";

/** A string that every database takes and gives back as it was: UTF-8 has no lone surrogates, PostgreSQL no U+0000. */
export const isText = (value: unknown): value is string =>
  typeof value === "string" && value.isWellFormed() && !value.includes("\0");

/** JSON writes -0 as 0. */
export const withoutSign = (value: number): number => value + 0;

/** Of any name. Both SQLite and PostgreSQL take names that are quoted so, which have no U+0000. */
export const quoteName = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** What a layout needs to know of a stream. */
export type LayoutStream = Pick<SinkStream, "name" | "schema">;
