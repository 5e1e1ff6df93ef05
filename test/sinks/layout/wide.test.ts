import { describe, expect, test } from "vitest";
import { z } from "zod";
import { makeEntry } from "../../contract/sink.ts";
import { tableOf, toOwn, toRows } from "./rows.ts";

const namesOf = (schema: z.ZodType): readonly string[] =>
  tableOf("wide", schema)
    .columns.filter(({ path }) => path !== undefined)
    .map(({ name }) => name);
const typesOf = (schema: z.ZodType): Readonly<Record<string, string>> =>
  Object.fromEntries(
    tableOf("wide", schema)
      .columns.filter(({ path }) => path !== undefined)
      .map(({ name, type }) => [name, type]),
  );
const wide = (schema: z.ZodType, data: unknown): unknown => toOwn(toRows(tableOf("wide", schema), data)[0]);

describe("the wide layout", () => {
  test("is a table for each stream, with the common columns first and rest last", () => {
    const table = tableOf("wide", z.object({ ts: z.int() }), "climate");
    expect(table).toMatchObject({ name: "readings_climate", key: ["gateway", "offset"] });
    expect(toRows(table, { ts: 5 })).toEqual([
      {
        gateway: "gateway-1",
        offset: 7,
        received_at: 2_007,
        time: 1_007,
        stream: "climate",
        device: "device-1",
        topic: "devices/device-1/telemetry",
        ts: 5,
        rest: null,
      },
    ]);
  });

  test("cuts the name of a stream that is long, and keeps it different from others", () => {
    const names = ["x", "y"].map((end) => tableOf("wide", z.object({}), `${"s".repeat(62)}${end}`).name);
    expect(new Set(names.map((name) => name.slice(0, 39)))).toEqual(new Set([`readings_${"s".repeat(30)}`]));
    expect(new Set(names).size).toBe(2);
    expect(names.map((name) => name.length)).toEqual([48, 48]);
  });

  test("takes the types of columns from the schema's output", () => {
    const schema = z.object({
      whole: z.int(),
      number: z.number().min(0),
      either: z.union([z.int(), z.number()]),
      flag: z.boolean().default(false),
      name: z.string().optional(),
      mode: z.enum(["on", "off"]),
      literal: z.literal(["a", "b"]),
      code: z.literal(5),
      null: z.number().nullable(),
      nullish: z.string().nullish(),
      at: z.date(),
      coded: z.codec(z.iso.datetime(), z.date(), {
        decode: (text) => new Date(text),
        encode: (date) => date.toISOString(),
      }),
      stamp: z.iso.datetime(),
      piped: z.string().transform(Number).pipe(z.number()),
      caught: z.number().catch(0).readonly(),
    });
    expect(typesOf(schema)).toEqual({
      whole: "bigint",
      number: "double",
      either: "double",
      flag: "boolean",
      name: "text",
      mode: "text",
      literal: "text",
      code: "double",
      null: "double",
      nullish: "text",
      at: "timestamp",
      coded: "timestamp",
      stamp: "text",
      piped: "double",
      caught: "double",
    });
  });

  test("has no column for what is no scalar of one type", () => {
    const tree = z.object({
      get kids() {
        return z.array(tree);
      },
      get only() {
        return tree.optional();
      },
    });
    const schema = z.object({
      list: z.array(z.number()),
      pair: z.tuple([z.number(), z.string()]),
      metrics: z.record(z.string(), z.number()),
      mixed: z.union([z.string(), z.number()]),
      odd: z.literal(["a", 1]),
      any: z.any(),
      unknown: z.unknown(),
      json: z.json(),
      transformed: z.string().transform(Number),
      custom: z.custom<number>(() => true),
      thing: z.instanceof(URL),
      map: z.map(z.string(), z.number()),
      big: z.bigint(),
      nan: z.nan(),
      null: z.null(),
      never: z.never().optional(),
      tree,
    });
    expect(namesOf(schema)).toEqual([]);
    expect(namesOf(z.array(z.number()))).toEqual([]);
  });

  test("takes schemas that share an id", () => {
    const a = z.object({ x: z.number() }).meta({ id: "point" });
    const b = z.object({ y: z.number() }).meta({ id: "point" });
    expect(namesOf(z.object({ a, b }))).toEqual(["a_x", "b_y"]);
  });

  test("has the fields of every kind of a discriminated union, and of an intersection", () => {
    const schema = z.discriminatedUnion("kind", [
      z.object({ kind: z.literal("a"), value: z.number(), x: z.int() }),
      z.object({ kind: z.literal("b"), value: z.string(), x: z.number() }),
    ]);
    expect(typesOf(schema)).toEqual({ kind: "text", x: "double" });
    expect(wide(schema, { kind: "b", value: "high", x: 1.5 })).toEqual({ kind: "b", x: 1.5, rest: `{"value":"high"}` });
    expect(namesOf(z.intersection(z.object({ a: z.number() }), z.object({ b: z.number() })))).toEqual(["a", "b"]);
  });

  test("calls data that is a single value `value`", () => {
    expect(wide(z.number(), 21.5)).toEqual({ value: 21.5 });
    expect(wide(z.number().nullable(), null)).toEqual({});
  });

  test("has columns for the fields of objects, and keeps everything else at its place", () => {
    const schema = z.looseObject({
      position: z.looseObject({ lat: z.number(), lon: z.number() }).optional(),
      metrics: z.record(z.string(), z.number()),
    });
    const data = { position: { lat: 1, lon: 2, fix: "3d" }, metrics: { temp: 3 }, list: [1], extra: null };
    expect(wide(schema, data)).toEqual({
      position_lat: 1,
      position_lon: 2,
      rest: `{"position":{"fix":"3d"},"metrics":{"temp":3},"list":[1],"extra":null}`,
    });
    expect(wide(schema, { metrics: {}, position: {} })).toEqual({ rest: `{"metrics":{},"position":{}}` });
  });

  test("keeps a value that is not of its column's type in rest", () => {
    const schema = z.object({
      n: z.number(),
      i: z.int(),
      b: z.boolean(),
      s: z.string(),
      d: z.date(),
      o: z.object({ x: z.int() }),
    });
    const odd = { n: "1", i: 1.5, b: 1, s: 5, d: "2026-11-29", o: [1] };
    expect(wide(schema, odd)).toEqual({ rest: JSON.stringify(odd) });
    const none = { n: NaN, i: Infinity, b: null, s: undefined, d: new Date(NaN), o: null };
    expect(wide(schema, none)).toEqual({ rest: `{"n":null,"i":null,"b":null,"d":null,"o":null}` });
    expect(wide(schema, "text")).toEqual({ rest: `"text"` });
    expect(wide(schema, null)).toEqual({ rest: "null" });
  });

  test("tells null from a field that is not there", () => {
    const schema = z.object({
      always: z.number().nullable(),
      maybe: z.number().nullish(),
      in: z.object({ x: z.number().nullable() }).optional(),
    });
    expect(wide(schema, { always: null, maybe: null, in: { x: null } })).toEqual({
      rest: `{"maybe":null,"in":{"x":null}}`,
    });
    expect(wide(schema, { always: null })).toEqual({});
  });

  test("gives a name that is taken a prefix, and of two fields that want the same to the less deep and first one", () => {
    const schema = z.object({
      time: z.int(),
      Offset: z.int(),
      rest: z.string(),
      xmin: z.int(),
      receivedAt: z.int(),
      a: z.object({ b: z.int() }),
      a_b: z.int(),
      A_B: z.int(),
    });
    expect(namesOf(schema)).toEqual(["data_time", "data_Offset", "data_rest", "data_xmin", "data_receivedAt", "a_b"]);
    expect(wide(schema, { a: { b: 1 }, a_b: 2, A_B: 3 })).toEqual({ a_b: 2, rest: `{"a":{"b":1},"A_B":3}` });
  });

  test("has no column whose name a database could not have", () => {
    const names = ["", "nul\0", "\ud800", "n".repeat(64), "ü".repeat(32)];
    const schema = z.object(Object.fromEntries(names.map((name) => [name, z.int()])));
    expect(namesOf(schema)).toEqual([]);
    expect(namesOf(z.object({ ["ü".repeat(31)]: z.int() }))).toEqual(["ü".repeat(31)]);
    expect(namesOf(z.object({ [`"; DROP TABLE readings; --`]: z.int() }))).toEqual([`"; DROP TABLE readings; --`]);
  });

  test("takes names that objects have of themselves", () => {
    const schema = z.object({
      constructor: z.int().optional(),
      toString: z.int().optional(),
      hasOwnProperty: z.int().optional(),
    });
    expect(wide(schema, {})).toEqual({ rest: "{}" });
    expect(wide(schema, { constructor: 1, toString: 2 })).toEqual({ constructor: 1, toString: 2 });
    expect(wide(z.looseObject({}), JSON.parse(`{"__proto__":{"x":1}}`))).toEqual({ rest: `{"__proto__":{"x":1}}` });
  });

  test("has columns for the first 400 of 10,000 fields, the less deep ones first", () => {
    const many = Array.from({ length: 10_000 }, (_, index) => `f${index}`);
    const schema = z.object({
      deep: z.object(Object.fromEntries(many.map((name) => [name, z.int()]))),
      ...Object.fromEntries(many.slice(0, 300).map((name) => [name, z.int()])),
    });
    expect(namesOf(schema)).toEqual([...many.slice(0, 300), ...many.slice(0, 100).map((name) => `deep_${name}`)]);
    const deep = Object.fromEntries(many.map((name, index) => [name, index]));
    const { rest } = toRows(tableOf("wide", schema), { deep })[0] ?? {};
    expect(JSON.parse(String(rest))).toEqual({ deep: Object.fromEntries(Object.entries(deep).slice(100)) });
  });

  test("says why an entry can never be written", () => {
    const table = tableOf("wide", z.looseObject({ n: z.number() }));
    expect(table.toRows("g", makeEntry(1, { n: 1, big: 1n }))).toMatchObject({
      message: expect.stringMatching(/^its data cannot be written as JSON: .*BigInt/) as unknown,
    });
  });

  test("can do without columns: what they would hold stays in rest, and no other field gets the name", () => {
    const table = tableOf("wide", z.object({ a: z.object({ b: z.int() }), a_b: z.int(), c: z.int() }));
    const without = table.without?.(new Set(["a_b"]));
    if (without === undefined) throw new Error("cannot");
    expect(without.columns.map(({ name }) => name)).not.toContain("a_b");
    const data = { a: { b: 1 }, a_b: 2, c: 3 };
    expect(toOwn(toRows(without, data)[0])).toEqual({ c: 3, rest: `{"a":{"b":1},"a_b":2}` });
    const neither = without.without?.(new Set(["c"]));
    expect(neither === undefined || toOwn(toRows(neither, data)[0])).toEqual({ rest: JSON.stringify(data) });
    expect(() => table.without?.(new Set(["device"]))).toThrow("cannot do without its column device");
  });
});
