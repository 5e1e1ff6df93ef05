// Nothing is lost: whatever data a schema accepts, columns and rest put together are what JSON would have kept of it.

import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import type { Table } from "../../../src/sinks/layout/table.ts";
import { asJson, fromNarrow, merge, nest, tableOf, toRows } from "./rows.ts";
import type { Row } from "./rows.ts";

/** A schema, data that it accepts, and whether the data is an object. */
interface Case {
  readonly schema: z.ZodType;
  readonly data: unknown;
}

const name = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom("a", "b", "A", "a_b", "a.b", "time", "Rest", "data_time", "value", "constructor"),
  },
  fc.string({ unit: "binary", maxLength: 4 }).filter((text) => text !== "__proto__"),
);
const number = fc.double();
const finite = fc.double({ noNaN: true, noDefaultInfinity: true });

const scalar: fc.Arbitrary<Case> = fc.oneof(
  finite.map((data) => ({ schema: z.number(), data })),
  fc.maxSafeInteger().map((data) => ({ schema: z.int(), data })),
  fc.boolean().map((data) => ({ schema: z.boolean(), data })),
  fc.string({ unit: "binary" }).map((data) => ({ schema: z.string(), data })),
  fc.date({ noInvalidDate: true }).map((data) => ({ schema: z.date(), data })),
  fc.constant({ schema: z.number().nullable(), data: null }),
  number.map((data) => ({ schema: z.union([z.number(), z.nan(), z.literal([Infinity, -Infinity])]), data })),
  fc.jsonValue().map((data) => ({ schema: z.json(), data })),
  fc.dictionary(name, finite).map((data) => ({ schema: z.record(z.string(), z.number()), data })),
  fc.array(finite).map((data) => ({ schema: z.array(z.number()), data })),
  fc.string().map((data) => ({ schema: z.union([z.number(), z.string()]), data })),
);

const { tree } = fc.letrec<{ tree: Case; object: Case }>((tie) => ({
  tree: fc.oneof({ depthSize: "small", withCrossShrink: true }, scalar, tie("object")),
  object: fc
    .tuple(
      fc.dictionary(name, fc.tuple(tie("tree"), fc.constantFrom("required", "absent", "optional", "null")), {
        maxKeys: 6,
      }),
      fc.dictionary(name, fc.jsonValue(), { maxKeys: 2 }),
      fc.boolean(),
    )
    .map(([fields, extra, isNullable]) => {
      const shape = new Map<string, z.ZodType>();
      const data = new Map<string, unknown>();
      for (const [key, [field, presence]] of Object.entries(fields)) {
        shape.set(
          key,
          presence === "required"
            ? field.schema
            : presence === "null"
              ? field.schema.nullish()
              : field.schema.optional(),
        );
        if (presence !== "absent") data.set(key, presence === "null" ? null : field.data);
      }
      for (const [key, value] of Object.entries(extra)) if (!shape.has(key)) data.set(key, value);
      const schema = z.looseObject(Object.fromEntries(shape));
      return { schema: isNullable ? schema.nullable() : schema, data: Object.fromEntries(data) };
    }),
}));

/** By what the columns say of themselves; `always`: fields that may be null and are in every reading. */
function fromWide({ columns }: Table, row: Row, always: z.ZodType): unknown {
  let data: unknown;
  for (const { name: column, path, type } of columns) {
    const cell = row[column] ?? null;
    if (path === undefined || (cell === null && !isAlwaysNullable(always, path))) continue;
    const value = type === "timestamp" && typeof cell === "number" ? new Date(cell).toISOString() : cell;
    data = path.length === 0 ? value : merge(data ?? {}, nest(path, value));
  }
  const rest = row["rest"];
  return typeof rest === "string" ? merge(data, JSON.parse(rest) as unknown) : (data ?? null);
}

function isAlwaysNullable(schema: z.ZodType, path: readonly string[]): boolean {
  const [first, ...others] = path;
  if (first === undefined) return schema.safeParse(null).success;
  if (!(schema instanceof z.ZodObject)) return false;
  const field = new Map(Object.entries(schema.shape)).get(first);
  return field !== undefined && !field.safeParse(undefined).success && isAlwaysNullable(field, others);
}

describe("whatever a schema accepts", () => {
  test("comes back whole from wide", () => {
    const property = fc.property(tree, ({ schema, data }) => {
      // zod takes an optional field named constructor that is not there for the one that all objects have.
      fc.pre(schema.safeParse(data).success);
      const table = tableOf("wide", schema);
      const [row] = toRows(table, data);
      expect(row === undefined ? "no row" : fromWide(table, row, schema)).toEqual(asJson(data));
    });
    fc.assert(property, { numRuns: 2_000 });
  });

  test("comes back whole from wide without some of its columns, and after the schema has changed", () => {
    const property = fc.property(tree, tree, fc.integer({ min: 1, max: 3 }), ({ schema }, { data }, every) => {
      // Only the schema that the data satisfies tells null from nothing, and every reading satisfies its stream's.
      const satisfies = schema.safeParse(data).success;
      fc.pre(satisfies || !JSON.stringify(asJson(data)).includes("null"));
      const whole = tableOf("wide", schema);
      const names = whole.columns.filter(({ path }, index) => path !== undefined && index % every === 0);
      const table = whole.without?.(new Set(names.map((column) => column.name))) ?? whole;
      const [row] = toRows(table, data);
      const always = satisfies ? schema : z.never();
      expect(row === undefined ? "no row" : fromWide(table, row, always)).toEqual(asJson(data));
    });
    fc.assert(property, { numRuns: 1_000 });
  });

  test("comes back whole from narrow, and no two rows have the same metric", () => {
    const property = fc.property(tree, ({ schema, data }) => {
      const rows = toRows(tableOf("narrow", schema), data);
      expect(new Set(rows.map(({ metric }) => metric)).size).toBe(rows.length);
      expect(fromNarrow(rows)).toEqual(asJson(data));
    });
    fc.assert(property, { numRuns: 2_000 });
  });
});
