// The tables of the sqlite sink: its layouts, what upgrades find, and several sinks in one file.

import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { toOffset } from "../../src/reading.ts";
import type { Batch } from "../../src/reading.ts";
import type { Layout } from "../../src/sinks/layout/table.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { sqlite } from "../../src/sinks/sqlite.ts";
import { describeSink, makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import { fromNarrow, merge, toWritten } from "./layout/rows.ts";
import type { Row } from "./layout/rows.ts";

const never = new AbortController().signal;
const fileOf = ({ dataDir }: SinkContext): string => join(dataDir, "telemetry.db");
const openSink = (context: SinkContext, layout: Layout = "document"): Promise<Sink> =>
  sqlite().sink.open({ path: undefined, layout, index: "device" }, context);

function openFile(context: SinkContext): DatabaseSync {
  const db = new DatabaseSync(fileOf(context), { timeout: 5_000 });
  onTestFinished(() => {
    if (db.isOpen) db.close();
  });
  return db;
}

/** Of data, and the one batch of it. */
const toBatch = (...data: readonly unknown[]): Batch => ({
  gateway: "gateway-1",
  entries: data.map((each, offset) => makeEntry(offset, each)),
  next: toOffset(data.length),
});

async function write(context: SinkContext, layout: Layout, batch: Batch): Promise<void> {
  await using sink = await openSink(context, layout);
  expect(await sink.write(batch, never)).toEqual({ kind: "all" });
}

const withSchema = async (schema: z.ZodType): Promise<SinkContext & { readonly warnings: readonly string[] }> => {
  const warnings: string[] = [];
  const streams = [{ name: "climate", schema }];
  return { ...(await openContext()), streams, warnings, warn: (text) => warnings.push(text) };
};

describeSink("sqlite with layout wide", {
  once: "exactly",
  open: (context) => openSink(context, "wide"),
  rows: (context) =>
    Promise.resolve(
      openFile(context)
        .prepare("SELECT gateway, offset, device, time, ts, text, rest FROM readings_climate ORDER BY gateway, offset")
        .all()
        .map(({ ts, text, rest, ...row }) => {
          const columns = Object.entries({ ts, text }).filter(([, cell]) => cell !== null);
          const data = merge(Object.fromEntries(columns), JSON.parse(String(rest ?? "{}")));
          return toWritten(row, data);
        }),
    ),
});

describeSink("sqlite with layout narrow", {
  once: "exactly",
  open: (context) => openSink(context, "narrow"),
  rows: (context) => {
    const rows = openFile(context).prepare("SELECT * FROM metrics ORDER BY gateway, offset").all() as readonly Row[];
    const readings = Map.groupBy(rows, ({ gateway, offset }) => `${gateway} ${offset}`);
    const written = [...readings.values()].map((metrics) => toWritten(metrics[0] ?? {}, fromNarrow(metrics)));
    return Promise.resolve(written);
  },
});

describe("the wide layout in SQLite", () => {
  test("has a table for each stream, with columns of declared types", async () => {
    const schema = z.object({ n: z.number(), i: z.int(), b: z.boolean(), s: z.string(), at: z.date() });
    const context = await openContext();
    const streams = [
      { name: "climate", schema },
      { name: "other-one", schema: z.number() },
    ];
    await write({ ...context, streams }, "wide", toBatch({ n: 5, i: 2 ** 53 - 1, b: true, s: "x", at: new Date(7) }));
    const db = openFile(context);
    const types = db.prepare("SELECT name, type FROM pragma_table_info('readings_climate') WHERE cid > 6").all();
    expect(types.map(({ name, type }) => `${String(name)} ${String(type)}`)).toEqual([
      "n REAL",
      "i INTEGER",
      "b BOOLEAN",
      "s TEXT",
      "at TIMESTAMP",
      "rest TEXT",
    ]);
    expect(db.prepare("SELECT n, i, b, s, at, rest FROM readings_climate").all()).toEqual([
      { n: 5, i: 2 ** 53 - 1, b: 1, s: "x", at: 7, rest: null },
    ]);
    expect(db.prepare(`SELECT count(*) AS n FROM "readings_other-one"`).get()).toEqual({ n: 0 });
  });

  test("takes names and values that mean harm", async () => {
    const drop = `x"; DROP TABLE readings_climate; --`;
    const names = [drop, "select", "order by", "'", "\u{1f600}", "%s", "?1", "rowid", "__proto"];
    const context = await withSchema(z.object(Object.fromEntries(names.map((name) => [name, z.string()]))));
    const data = Object.fromEntries(names.map((name) => [name, `'); ${name}`]));
    await write(context, "wide", toBatch(data, { ...data, [drop]: "nul\0 and \ud800" }));
    const rows = openFile(context).prepare("SELECT * FROM readings_climate").all();
    expect(rows[0]).toMatchObject({ ...data, rest: null });
    expect(JSON.parse(String(rows[1]?.["rest"]))).toEqual({ [drop]: "nul\0 and \ud800" });
  });

  test("keeps 10,000 fields, of which 400 have a column", async () => {
    const names = Array.from({ length: 10_000 }, (_, index) => `f${index}`);
    const context = await withSchema(z.object(Object.fromEntries(names.map((name) => [name, z.int()]))));
    const data = Object.fromEntries(names.map((name, index) => [name, index]));
    await write(context, "wide", toBatch(...Array.from({ length: 40 }, () => data)));
    const rows = openFile(context).prepare("SELECT f399, rest FROM readings_climate").all();
    expect(rows).toHaveLength(40);
    const { f399, rest } = rows[39] ?? {};
    expect([f399, Object.keys(JSON.parse(String(rest)) as object)]).toEqual([399, names.slice(400)]);
  });

  test("adds a column for a new field, and leaves one whose field is gone", async () => {
    const context = await withSchema(z.object({ old: z.int(), both: z.int() }));
    await write(context, "wide", toBatch({ old: 1, both: 2 }));
    const streams = [{ name: "climate", schema: z.object({ new: z.string(), both: z.int() }) }];
    const batch = toBatch({ both: 0 }, { new: "x", both: 3 });
    await write({ ...context, streams }, "wide", { ...batch, entries: batch.entries.slice(1) });
    expect(openFile(context).prepare("SELECT old, both, new, rest FROM readings_climate").all()).toEqual([
      { old: 1, both: 2, new: null, rest: null },
      { old: null, both: 3, new: "x", rest: null },
    ]);
    expect(context.warnings).toEqual([]);
  });

  test("keeps a field in rest whose type has changed, and says so once", async () => {
    const context = await withSchema(z.object({ a: z.int(), b: z.int() }));
    await write(context, "wide", toBatch({ a: 1, b: 1 }));
    const changed = { ...context, streams: [{ name: "climate", schema: z.object({ a: z.string(), b: z.int() }) }] };
    const batch = toBatch({}, { a: "one", b: 2 }, { a: "two", b: 3 });
    await write(changed, "wide", { ...batch, entries: batch.entries.slice(1) });
    expect(openFile(context).prepare("SELECT a, b, rest FROM readings_climate").all()).toEqual([
      { a: 1, b: 1, rest: null },
      { a: null, b: 2, rest: `{"a":"one"}` },
      { a: null, b: 3, rest: `{"a":"two"}` },
    ]);
    expect(context.warnings).toEqual([
      expect.stringMatching(/telemetry\.db: table readings_climate has other columns .*: "a" \(now text\)$/) as string,
    ]);
  });
});

describe("several sinks in one file", () => {
  test("have a position each, whatever their layouts", async () => {
    const context = await openContext();
    const names: readonly (readonly [string, Layout])[] = [
      ["one", "document"],
      ["two", "document"],
      ["three", "wide"],
      ["four", "narrow"],
    ];
    for (const [index, [name, layout]] of names.entries()) {
      await using sink = await openSink({ ...context, name }, layout);
      expect(await sink.position?.()).toBeUndefined();
      await sink.write(makeBatch([0, 1], 2 + index), never);
    }
    for (const [index, [name, layout]] of names.entries()) {
      await using sink = await openSink({ ...context, name }, layout);
      expect(await sink.position?.()).toBe(2 + index);
    }
    expect(openFile(context).prepare("SELECT count(*) AS n FROM readings").get()).toEqual({ n: 2 });
  });
});

describe("a replay into SQLite", () => {
  for (const layout of ["document", "wide", "narrow"] as const)
    test(`changes nothing with layout ${layout}, neither rows nor position`, async () => {
      const context = await openContext();
      await write(context, layout, makeBatch([0, 1, 2]));
      const table = { document: "readings", wide: "readings_climate", narrow: "metrics" }[layout];
      const before = openFile(context).prepare(`SELECT * FROM ${table}`).all();
      await using sink = await openSink({ ...context, name: "replay" }, layout);
      await sink.write({ ...makeBatch([0, 1, 2], 900), replay: true }, never);
      expect(openFile(context).prepare(`SELECT * FROM ${table}`).all()).toEqual(before);
      expect(openFile(context).prepare(`SELECT sink, "offset" FROM sluice_cursor`).all()).toEqual([
        { sink: "tested", offset: 3 },
      ]);
    });
});

/** As the sink made it until version 2. */
const VERSION_1 = `
  PRAGMA journal_mode = WAL;
  CREATE TABLE readings (
    gateway TEXT NOT NULL, "offset" INTEGER NOT NULL, received_at INTEGER NOT NULL, time INTEGER NOT NULL,
    stream TEXT NOT NULL, device TEXT NOT NULL, topic TEXT NOT NULL, data TEXT NOT NULL,
    PRIMARY KEY (gateway, "offset")) WITHOUT ROWID;
  CREATE INDEX readings_by_device ON readings (stream, device, time);
  CREATE TABLE sluice_cursor (gateway TEXT PRIMARY KEY, "offset" INTEGER NOT NULL) WITHOUT ROWID;
  INSERT INTO readings VALUES ('gateway-1', 4, 2004, 1004, 'climate', 'device-1', 't', '{"ts":1004}');
  INSERT INTO sluice_cursor VALUES ('gateway-1', 5), ('gateway-2', 7);
  PRAGMA user_version = 1;`;

describe("a file of version 1", () => {
  test("goes on where it was, with its rows", async () => {
    const context = await openContext();
    openFile(context).exec(VERSION_1);
    await using sink = await openSink(context);
    expect(await sink.position?.()).toBe(5);
    await sink.write(makeBatch([4, 5]), never);
    expect(await sink.position?.()).toBe(6);
    const db = openFile(context);
    expect(db.prepare("SELECT offset, data FROM readings").all()).toEqual([
      { offset: 4, data: `{"ts":1004}` },
      { offset: 5, data: JSON.stringify(makeEntry(5).reading.data) },
    ]);
    expect(db.prepare("SELECT * FROM sluice_cursor").all()).toEqual([
      { gateway: "gateway-1", sink: "tested", offset: 6 },
      { gateway: "gateway-2", sink: "", offset: 7 },
    ]);
    expect(db.prepare("PRAGMA user_version").get()).toEqual({ user_version: 2 });
  });

  test("gives its position to the first sink that asks, which is not a replay, and to no other one", async () => {
    const context = await openContext();
    openFile(context).exec(VERSION_1);
    {
      await using replay = await openSink({ ...context, name: "replay" });
      await replay.write({ ...makeBatch([4, 5]), replay: true }, never);
      await using live = await openSink(context);
      expect(await live.position?.()).toBe(5);
    }
    await using other = await openSink({ ...context, name: "other" });
    expect(await other.position?.()).toBeUndefined();
    await using again = await openSink(context);
    expect(await again.position?.()).toBe(5);
  });

  test("takes other layouts too", async () => {
    const context = await openContext();
    openFile(context).exec(VERSION_1);
    await write(context, "wide", makeBatch([5]));
    await write(context, "narrow", makeBatch([6]));
    const counts = ["readings", "readings_climate", "metrics"].map(
      (table) => openFile(context).prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"],
    );
    expect(counts).toEqual([1, 1, 2]);
  });
});
