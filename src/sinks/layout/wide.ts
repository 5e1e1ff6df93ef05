// The wide layout: a table for each stream, with a column for each field that its schema names.
//
//   readings_<stream>   the common columns, then those of the fields, then rest json; key (gateway, offset)
//
// A field in an object is `object_field`. A name that a common column or a database has for itself begins with data_. A field
// has a column when its schema has one scalar type for it: number, whole number, boolean, string, Date. Of fields that want
// the same name, whatever the case, the least deep gets it, then the first; and there are bounds.
//
// What has no column, and a value that is not of its column's type, is in `rest`, at its place in the object. So nothing is
// lost: columns and rest, merged, are the data. NULL in a column means that the reading has no such field; but of a field that
// the schema says is always there and may be null, NULL is null.

import { createHash } from "node:crypto";
import { unreachable } from "../../errors.ts";
import { toJson } from "../document.ts";
import { toShape } from "./shape.ts";
import type { ScalarType, Shape } from "./shape.ts";
import { commonColumns, isFields, isText, restColumn, toCommonCells, toUnwritable, withoutSign } from "./table.ts";
import type { Cell, Column, LayoutStream, Table } from "./table.ts";

/**
 * Columns of fields. A row of PostgreSQL must fit into a page of 8 kB, and the least that a text takes there is 18 bytes when it is
 * stored elsewhere: with more, a reading whose fields are all long texts would be refused.
 */
const MOST_COLUMNS = 400;
/** PostgreSQL cuts longer ones off. */
const LONGEST_NAME_BYTES = 63;
const LONGEST_TABLE_BYTES = 48;

/** Beside the common columns: what the files sink calls `received_at`, and what PostgreSQL has in every table. */
const reserved: ReadonlySet<string> = new Set([
  ...commonColumns.map(({ name }) => name),
  restColumn.name,
  "receivedat",
  "data",
  "tableoid",
  "xmin",
  "cmin",
  "xmax",
  "cmax",
  "ctid",
]);

/** What is done with a field that has columns. */
type Place =
  | { readonly kind: "cell"; readonly index: number; readonly type: ScalarType; readonly nullIsKept: boolean }
  | { readonly kind: "fields"; readonly places: Places };
type Places = Map<string, Place>;

interface Plan {
  readonly columns: readonly Column[];
  /** Of the whole data. */
  readonly place: Place;
}

export function createWideTable({ name, schema }: LayoutStream): Table {
  const shape = toShape(schema);
  return create(toTableName(name), shape, new Set());
}

function create(name: string, shape: Shape, left: ReadonlySet<string>): Table {
  const { columns, place } = toPlan(shape, left);
  return {
    layout: "wide",
    name,
    columns: [...commonColumns, ...columns, restColumn],
    key: ["gateway", "offset"],
    toRows(gateway, entry) {
      const cells: Cell[] = [...toCommonCells(gateway, entry)];
      const first = cells.length;
      for (let count = columns.length; count > 0; count -= 1) cells.push(null);
      const rest = take(entry.reading.data, place, cells, first);
      const json = rest === undefined ? null : toJson(rest);
      if (json instanceof Error) return toUnwritable(json);
      cells.push(json);
      return [cells];
    },
    without(names) {
      const needed = [...commonColumns, restColumn].find((column) => names.has(column.name));
      if (needed !== undefined) throw new Error(`table ${name} cannot do without its column ${needed.name}`);
      return create(name, shape, new Set([...left, ...names]));
    },
  };
}

/** Names of streams are longer than a name may be that has something before and behind it. */
function toTableName(stream: string): string {
  const name = `readings_${stream}`;
  if (name.length <= LONGEST_TABLE_BYTES) return name;
  const hash = createHash("sha256").update(stream).digest("hex").slice(0, 8);
  return `${name.slice(0, LONGEST_TABLE_BYTES - 9)}_${hash}`;
}

interface Waiting {
  readonly shape: Shape;
  readonly path: readonly string[];
  /** Every reading has it. */
  readonly always: boolean;
  readonly put: (place: Place) => void;
}

/** Goes through the fields by depth. Columns in `left` are claimed, but not made. */
function toPlan(whole: Shape, left: ReadonlySet<string>): Plan {
  const columns: Column[] = [];
  const claimed = new Set<string>();
  let place: Place = { kind: "fields", places: new Map() };
  const waiting: Waiting[] = [{ shape: whole, path: [], always: true, put: (of) => (place = of) }];
  for (const { shape, path, always, put } of waiting) {
    if (shape.kind === "scalar") {
      const name = toColumnName(path);
      if (name === undefined || claimed.has(name.toLowerCase()) || claimed.size === MOST_COLUMNS) continue;
      claimed.add(name.toLowerCase());
      if (left.has(name)) continue;
      const { type, nullable } = shape;
      put({ kind: "cell", index: columns.length, type, nullIsKept: nullable && always });
      columns.push({ name, type, nullable: true, path });
    } else if (shape.kind === "object") {
      const places: Places = new Map();
      put({ kind: "fields", places });
      for (const [name, field] of shape.fields) {
        const isAlways = always && field.required && !shape.nullable;
        const set = (of: Place): unknown => places.set(name, of);
        waiting.push({ shape: field.shape, path: [...path, name], always: isAlways, put: set });
      }
    }
  }
  return { columns, place };
}

/** undefined: a database could not have a column of this name. Data that is a single value is `value`. */
function toColumnName(path: readonly string[]): string | undefined {
  const joined = path.length === 0 ? "value" : path.join("_");
  const name = reserved.has(joined.toLowerCase()) ? `data_${joined}` : joined;
  const isPossible = name !== "" && !name.includes("\0") && name.isWellFormed();
  return isPossible && Buffer.byteLength(name) <= LONGEST_NAME_BYTES ? name : undefined;
}

/** Sets the cells of a value; returns what of it is in none. */
function take(value: unknown, place: Place, cells: Cell[], first: number): unknown {
  if (place.kind === "cell") {
    if (value === null && place.nullIsKept) return undefined;
    const cell = toCell(value, place.type);
    if (cell === undefined) return value;
    cells[first + place.index] = cell;
    return undefined;
  }
  if (!isFields(value)) return value;
  return takeFields(value, place.places, cells, first);
}

/** An object without fields has no cells either: it is left as it is. */
function takeFields(fields: object, places: Places, cells: Cell[], first: number): object | undefined {
  let rest: Record<string, unknown> | undefined;
  let isEmpty = true;
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    isEmpty = false;
    const place = places.get(name);
    const left: unknown = place === undefined ? value : take(value, place, cells, first);
    if (left === undefined) continue;
    // Without a prototype __proto__ is a name like any other.
    rest ??= Object.create(null) as Record<string, unknown>;
    rest[name] = left;
  }
  return isEmpty ? {} : rest;
}

/** undefined: it is not of this type. */
function toCell(value: unknown, type: ScalarType): Cell | undefined {
  switch (type) {
    case "bigint":
      return Number.isSafeInteger(value) ? withoutSign(value as number) : undefined;
    case "double":
      return Number.isFinite(value) ? withoutSign(value as number) : undefined;
    case "boolean":
      return typeof value === "boolean" ? value : undefined;
    case "text":
      return isText(value) ? value : undefined;
    case "timestamp":
      return value instanceof Date && !Number.isNaN(value.getTime()) ? value.getTime() : undefined;
    default:
      return unreachable(type);
  }
}
