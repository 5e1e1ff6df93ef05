import { describe, expect, test } from "vitest";
import { z } from "zod";
import { createTables, fitTable } from "../../../src/sinks/layout/layout.ts";
import { quoteName } from "../../../src/sinks/layout/table.ts";
import type { Column, Table } from "../../../src/sinks/layout/table.ts";
import { tableOf, toOwn, toRows } from "./rows.ts";

const toType = ({ type }: Column): string => type;
const typesOf = ({ columns }: Table): ReadonlyMap<string, string> =>
  new Map(columns.map((column) => [column.name, toType(column)]));
const namesOf = (columns: readonly Column[]): readonly string[] => columns.map(({ name }) => name);

test("streams share a table, but of the wide layout each has its own", () => {
  const streams = ["a", "b"].map((name) => ({ name, schema: z.unknown() }));
  const tables = (["document", "narrow", "wide"] as const).map((layout) =>
    [...createTables(layout, streams)].map(([stream, { name }]) => `${stream} ${name}`),
  );
  expect(tables).toEqual([
    ["a readings", "b readings"],
    ["a metrics", "b metrics"],
    ["a readings_a", "b readings_b"],
  ]);
});

test("a name is quoted so that it stays one", () => {
  expect(quoteName(`a"; DROP TABLE readings; --`)).toBe(`"a""; DROP TABLE readings; --"`);
});

describe("a table that an earlier version has made", () => {
  const before = typesOf(tableOf("wide", z.object({ a: z.int(), b: z.string(), gone: z.int() })));

  test("is used as it is when it has every column", () => {
    const table = tableOf("wide", z.object({ b: z.string() }));
    expect(fitTable(table, before, toType)).toEqual({ table, missing: [], unusable: [] });
  });

  test("lacks columns for new fields", () => {
    const table = tableOf("wide", z.object({ a: z.int(), new: z.boolean(), b: z.string() }));
    const fitted = fitTable(table, before, toType);
    expect([fitted.table, namesOf(fitted.missing), fitted.unusable]).toEqual([table, ["new"], []]);
  });

  test("keeps a field in rest whose type has changed, or whose name differs in case only", () => {
    const table = tableOf("wide", z.object({ a: z.string(), B: z.string(), b: z.string() }));
    const fitted = fitTable(table, before, toType);
    expect([namesOf(fitted.missing), namesOf(fitted.unusable)]).toEqual([[], ["a", "B"]]);
    expect(toOwn(toRows(fitted.table, { a: "x", B: "y", b: "z" })[0])).toEqual({ rest: `{"a":"x","B":"y","b":"z"}` });
  });

  test("gets no more columns than 1,000", () => {
    const full = new Map([
      ...before,
      ...Array.from({ length: 1_000 - before.size - 1 }, (_, i) => [`f${i}`, "text"] as const),
    ]);
    const table = tableOf("wide", z.object({ new: z.int(), newer: z.int() }));
    const fitted = fitTable(table, full, toType);
    expect([namesOf(fitted.missing), namesOf(fitted.unusable)]).toEqual([["new"], ["newer"]]);
  });

  test("cannot be used when a column is not there that every reading needs", () => {
    const other = new Map([...before].filter(([name]) => name !== "device"));
    expect(() => fitTable(tableOf("wide", z.object({})), other, toType)).toThrow("device");
    expect(() => fitTable(tableOf("narrow", z.object({})), before, toType)).toThrow(
      "table metrics there has no column metric that fits",
    );
  });
});
