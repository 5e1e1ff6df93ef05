// What it writes; the contract of a sink, and what its server does to it, is in postgres-trouble.test.ts.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { toOffset } from "../../src/reading.ts";
import type { Batch, Entry } from "../../src/reading.ts";
import { postgres } from "../../src/sinks/postgres/postgres.ts";
import type { SinkContext, SinkStream } from "../../src/sinks/sink.ts";
import { makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import { hasPostgres, startPostgres } from "../servers/postgres.ts";
import type { Server } from "../servers/server.ts";
import { createDatabases, type Databases } from "./postgres-database.ts";

const never = new AbortController().signal;
const DAY_MS = 86_400_000;
let server: Server;
let databases: Databases;

const batchOf = (entries: readonly Entry[]): Batch => ({
  gateway: "gateway-1",
  entries,
  next: toOffset((entries.at(-1)?.offset ?? 0) + 1),
});
const withReading = (entry: Entry, changed: Partial<Entry["reading"]>): Entry => ({
  ...entry,
  reading: { ...entry.reading, ...changed },
});

const received = (...days: readonly number[]): Batch =>
  batchOf(
    days.map((day, offset) => withReading(makeEntry(offset), { receivedAt: day * DAY_MS - (offset % 2), time: 0 })),
  );

const climate = (schema: z.ZodType): readonly SinkStream[] => [
  { name: "climate", schema },
  { name: "doors", schema: z.object({ open: z.boolean() }) },
];

describe.skipIf(!hasPostgres())("with PostgreSQL", () => {
  beforeAll(async () => {
    server = await startPostgres();
    databases = createDatabases(server);
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });

  describe("the postgres sink", () => {
    let context: SinkContext;
    const warned: string[] = [];
    const ask = (text: string): ReturnType<Databases["ask"]> => databases.ask(context, text);
    const open = (settings: object = {}, streams?: readonly SinkStream[]): ReturnType<Databases["openSink"]> =>
      databases.openSink({ ...context, ...(streams && { streams }) }, { ...settings });

    const partitions = async (): Promise<readonly unknown[]> => {
      const found = await ask(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'readings'::regclass ORDER BY 1",
      );
      return found.map(({ name }) => name);
    };

    beforeEach(async () => {
      warned.length = 0;
      context = { ...(await openContext()), warn: (text) => void warned.push(text) };
    });

    test("writes the table that its file describes, also over a Unix domain socket", async () => {
      await using sink = await open({ host: server.dir });
      await sink.write(makeBatch([7]), never);
      expect(await ask("SELECT *, data::text AS text FROM readings")).toEqual([
        {
          gateway: "gateway-1",
          offset: "7",
          received_at: new Date(2_007),
          time: new Date(1_007),
          stream: "climate",
          device: "device-1",
          topic: "devices/device-1/telemetry",
          data: { ts: 1_007, text: `ünï ' " 7` },
          text: String.raw`{"ts": 1007, "text": "ünï ' \" 7"}`,
        },
      ]);
      expect(await ask("SELECT * FROM sluice_cursor")).toEqual([{ gateway: "gateway-1", sink: "tested", offset: "8" }]);
    });

    test("writes into a schema of any name, and only there", async () => {
      const schema = `My "schema"; DROP SCHEMA public; --`;
      await ask(`CREATE SCHEMA "${schema.replaceAll('"', '""')}"`);
      await using sink = await open({ schema });
      await sink.write(makeBatch([0, 1]), never);
      const found = await ask("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE 'readings%'");
      expect(found).toEqual([{ schemaname: schema }]);
    });

    test("keeps text as it is, whatever it looks like", async () => {
      const hostile = String.raw`a'); DROP TABLE readings; -- \' \\u0000 \x00 ` + "\r\n\t\u0001\u{1f600}\\";
      const data = {
        text: hostile,
        [hostile]: String.raw`\u0000`,
        nan: Number.NaN,
        huge: Number.parseFloat("1e400"),
        large: Number.MAX_VALUE,
        small: Number.MIN_VALUE,
        big: 2 ** 53 + 2,
      };
      const entry = withReading(makeEntry(0, data), { deviceId: hostile, topic: hostile });
      const named = { ...context, gateway: hostile, name: hostile };
      await using sink = await databases.openSink(named);
      expect(await sink.write({ ...batchOf([entry]), gateway: hostile }, never)).toEqual({ kind: "all" });
      const [found] = await databases.readings(named);
      expect(found).toMatchObject({ gateway: hostile, device: hostile });
      expect(found?.data).toEqual({ ...data, nan: null, huge: null });
      await using again = await databases.openSink(named);
      expect(await again.position?.()).toBe(1);
    });

    test("writes 10,000 fields, empty data, a reading of megabytes and deep nesting", async () => {
      const fields = Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`field-${index}`, index]));
      const deep = Array.from({ length: 1_000 }).reduce<unknown>((inner) => [inner], 1);
      const data = [fields, {}, null, "ü".repeat(8 * 1024 * 1024), deep];
      await using sink = await open();
      expect(await sink.write(batchOf(data.map((one, offset) => makeEntry(offset, one))), never)).toEqual({
        kind: "all",
      });
      expect((await databases.readings(context)).map((row) => row.data)).toEqual(data);
    });

    test("keeps times to the millisecond, however far they are", async () => {
      const times = [-8e12, -1, 0, 1_763_700_000_123, 253_402_300_800_123, 8_640_000_000_000_000];
      await using sink = await open();
      await sink.write(batchOf(times.map((time, offset) => withReading(makeEntry(offset), { time }))), never);
      const found = await ask(`SELECT extract(epoch FROM time) * 1000 AS ms FROM readings ORDER BY "offset"`);
      expect(found.map(({ ms }) => Number(ms))).toEqual(times);
    });

    test.for([
      ["U+0000 in a text", { a: [{ b: "x\0" }] }, "data.a[0].b"],
      ["U+0000 in a name", { a: { "b\0": 1 } }, String.raw`data.a["b\u0000"]`],
      ["half of a surrogate pair", { a: "\udfff" }, "data.a"],
      ["U+0000 behind a backslash", { a: "\\\0" }, "data.a"],
      ["a BigInt", { a: 1n }, "BigInt"],
    ] as const)("refuses only the entries with %s, and leaves its position where it was", async ([, data, said]) => {
      await using sink = await open();
      const entries = [makeEntry(0), makeEntry(1, data), makeEntry(2)];
      const reason: unknown = expect.stringContaining(said);
      expect(await sink.write(batchOf(entries), never)).toEqual({ kind: "except", refused: [{ offset: 1, reason }] });
      expect([await sink.position?.(), await databases.offsets(context)]).toEqual([undefined, []]);
      expect(await sink.write(batchOf([makeEntry(0), makeEntry(2)]), never)).toEqual({ kind: "all" });
      expect([await sink.position?.(), await databases.offsets(context)]).toEqual([3, [0, 2]]);
    });

    test.for([
      ["a time before 4713 BC", withReading(makeEntry(1), { time: -8_640_000_000_000_000 }), /timestamp out of range/],
      ["a device that no index can hold", withReading(makeEntry(1), { deviceId: noise(9_000) }), /index row/],
      ["nesting beyond the stack", makeEntry(1, nest(200_000)), /stack depth|written as JSON/],
    ] as const)("refuses a batch with %s, and goes on without it", async ([, hostile, said]) => {
      await using sink = await open();
      const written = await sink.write(batchOf([makeEntry(0), hostile, makeEntry(2)]), never);
      expect(["refused", "except"]).toContain(written.kind);
      expect(JSON.stringify(written)).toMatch(said);
      expect(await sink.write(batchOf([makeEntry(0), makeEntry(2)]), never)).toEqual({ kind: "all" });
      expect(await databases.offsets(context)).toEqual([0, 2]);
    });

    test("refuses what breaks a constraint that somebody has added", async () => {
      await using sink = await open();
      await ask("ALTER TABLE readings ADD CONSTRAINT warm CHECK ((data->>'ts')::int <> 1001)");
      expect(await sink.write(makeBatch([0, 1, 2]), never)).toEqual({
        kind: "refused",
        reason: expect.stringContaining("warm") as string,
      });
      expect(await databases.offsets(context)).toEqual([]);
      expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "all" });
    });

    test("sends nothing more of a batch that the server has refused while it came, and goes on with the next", async () => {
      await using sink = await open();
      await ask("ALTER TABLE readings ADD CONSTRAINT warm CHECK ((data->>'ts')::int <> 1000)");
      const all = Array.from({ length: 20_000 }, (_, offset) => offset);
      expect(await sink.write(makeBatch(all), never)).toMatchObject({ kind: "refused" });
      expect(await sink.write(makeBatch(all.slice(1)), never)).toEqual({ kind: "all" });
      expect(await ask('SELECT count(*)::int, min("offset"), max("offset") FROM readings')).toEqual([
        { count: 19_999, min: "1", max: "19999" },
      ]);
    });

    test("names all readings of a large batch that it cannot store, and stores nothing of it", async () => {
      await using sink = await open();
      const entries = Array.from({ length: 5_000 }, (_, offset) =>
        makeEntry(offset, { text: offset % 2_000 === 1_999 ? "\0" : "x" }),
      );
      expect(await sink.write(batchOf(entries), never)).toMatchObject({
        kind: "except",
        refused: [{ offset: 1_999 }, { offset: 3_999 }],
      });
      expect(await ask("SELECT count(*)::int FROM readings")).toEqual([{ count: 0 }]);
      const others = entries.filter(({ offset }) => offset % 2_000 !== 1_999);
      expect(await sink.write(batchOf(others), never)).toEqual({ kind: "all" });
      expect(await ask("SELECT count(*)::int FROM readings")).toEqual([{ count: 4_998 }]);
    });

    test("adds of a replay what is not there, and leaves its position where it was", async () => {
      await using sink = await open();
      await sink.write(makeBatch([3, 4, 5]), never);
      const replay = { ...makeBatch([3, 4, 9]), replay: true };
      expect(await sink.write(replay, never)).toEqual({ kind: "all" });
      expect(await sink.write(replay, never)).toEqual({ kind: "all" });
      expect(await databases.offsets(context)).toEqual([3, 4, 5, 9]);
      await using again = await open();
      expect(await again.position?.()).toBe(6);
    });

    test("passes over what a replay has written ahead of it", async () => {
      await using sink = await open();
      await sink.write({ ...makeBatch([2, 3, 7]), replay: true }, never);
      expect(await sink.write(makeBatch([0, 1, 2, 3, 4]), never)).toEqual({ kind: "all" });
      expect(await sink.write(makeBatch([5, 6, 7, 8]), never)).toEqual({ kind: "all" });
      expect(await databases.offsets(context)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    });

    test("keeps the positions of two sinks of a gateway apart", async () => {
      await using one = await open();
      await using two = await databases.openSink({ ...context, name: "other" });
      await one.write(makeBatch([0, 1, 2]), never);
      expect(await two.position?.()).toBeUndefined();
      await two.write(makeBatch([1]), never);
      expect([await two.position?.(), await one.position?.()]).toEqual([2, 3]);
      expect(await databases.offsets(context)).toEqual([0, 1, 2]);
    });

    describe("and partitions", () => {
      test("makes one for each UTC day of arrival, also of a clock that is wrong", async () => {
        await using sink = await open();
        expect(await sink.write(received(0, 1, 20_000, 20_000, 20_001, 54_787), never)).toEqual({ kind: "all" });
        expect(await partitions()).toEqual([
          "readings_p19700101",
          "readings_p20241003",
          "readings_p20241004",
          "readings_p20241005",
          "readings_p21200101",
        ]);
        expect(await databases.offsets(context)).toEqual([0, 1, 2, 3, 4, 5]);
      });

      test("lets a reader go on meanwhile", async () => {
        await using sink = await open();
        await sink.write(received(1), never);
        const reader = await databases.connect(context);
        await reader.query("BEGIN; SELECT count(*) FROM readings");
        expect(await sink.write(makeBatch([5]), never)).toEqual({ kind: "all" });
        expect((await reader.query("SELECT count(*)::int AS n FROM readings")).rows).toEqual([{ n: 2 }]);
        await reader.end();
      });

      test("has each row once when three gateways write into the same new days at once", async () => {
        const gateways = ["gateway-1", "gateway-2", "gateway-3"];
        const days = Array.from({ length: 6 }, (_, index) => 20_000 + index);
        await Promise.all(
          gateways.map(async (gateway) => {
            await using sink = await databases.openSink({ ...context, gateway });
            for (const [index, day] of days.entries()) {
              const entry = withReading(makeEntry(index), { receivedAt: day * DAY_MS });
              await sink.write({ gateway, entries: [entry], next: toOffset(index + 1) }, never);
            }
          }),
        );
        expect(await databases.offsets(context)).toEqual(days.flatMap((_, index) => gateways.map(() => index)));
        expect(await partitions()).toHaveLength(days.length);
      });

      test("uses those that somebody else has made", async () => {
        await using sink = await open();
        await ask("CREATE TABLE old PARTITION OF readings FOR VALUES FROM (MINVALUE) TO ('2024-10-05')");
        await sink.write(received(1, 20_000), never);
        expect(await partitions()).toEqual(["old"]);
      });

      test("has none in plain tables, and replays there too", async () => {
        await using sink = await open({ partition: "none" });
        await sink.write(received(1, 20_000), never);
        await sink.write({ ...received(1, 20_000), replay: true }, never);
        expect([await partitions(), await databases.offsets(context)]).toEqual([[], [0, 1]]);
      });

      test("asks TimescaleDB for a hypertable, here a stand-in, and leaves partitions to it", async () => {
        await ask(`SET allow_system_table_mods = on;
          INSERT INTO pg_extension SELECT 99999, 'timescaledb', extowner, extnamespace, true, '2', null, null FROM pg_extension LIMIT 1;
          CREATE TABLE asked (relation text, "column" text, days interval, indexes boolean);
          CREATE FUNCTION create_hypertable(relation regclass, "column" name, chunk_time_interval interval, create_default_indexes boolean)
            RETURNS void LANGUAGE sql AS 'INSERT INTO asked VALUES ($1, $2, $3, $4)'`);
        await using sink = await open();
        await sink.write(received(1, 20_000), never);
        expect(await ask('SELECT relation, "column", days::text, indexes FROM asked')).toEqual([
          { relation: "readings", column: "received_at", days: "1 day", indexes: false },
        ]);
        expect([await partitions(), await databases.offsets(context)]).toEqual([[], [0, 1]]);
      });
    });

    describe("in other layouts", () => {
      const first = z.object({ temp: z.number(), site: z.string(), at: z.date().optional() });
      const door = withReading(makeEntry(1, { open: true }), { stream: "doors" });

      test("wide has a table for each stream and a column for each field", async () => {
        await using sink = await open({ layout: "wide" }, climate(first));
        const data = { temp: 21.5, site: "x", at: new Date(5), extra: [1] };
        expect(await sink.write(batchOf([makeEntry(0, data), door, makeEntry(2, { temp: "hot" })]), never)).toEqual({
          kind: "all",
        });
        expect(await ask(`SELECT "offset", temp, site, at, rest FROM readings_climate ORDER BY 1`)).toEqual([
          { offset: "0", temp: 21.5, site: "x", at: new Date(5), rest: { extra: [1] } },
          { offset: "2", temp: null, site: null, at: null, rest: { temp: "hot" } },
        ]);
        expect(await ask("SELECT open, rest FROM readings_doors")).toEqual([{ open: true, rest: null }]);
      });

      test("narrow has a row for each value, once", async () => {
        await using sink = await open({ layout: "narrow" }, climate(first));
        const batch = batchOf([makeEntry(0, { temp: -0.5, m: { a: 1, ok: true }, tags: ["x"] }), door]);
        await sink.write(batch, never);
        await sink.write({ ...batch, replay: true }, never);
        expect(await ask(`SELECT "offset", metric, value, text, rest FROM metrics ORDER BY 1, 2`)).toEqual([
          { offset: "0", metric: "m.a", value: 1, text: null, rest: null },
          { offset: "0", metric: "m.ok", value: 1, text: "true", rest: null },
          { offset: "0", metric: "tags", value: null, text: null, rest: ["x"] },
          { offset: "0", metric: "temp", value: -0.5, text: null, rest: null },
          { offset: "1", metric: "open", value: 1, text: "true", rest: null },
        ]);
      });

      test("wide gives a new field a column, and keeps in rest what has another type now", async () => {
        {
          await using sink = await open({ layout: "wide" }, climate(first));
          await sink.write(batchOf([makeEntry(0, { temp: 1, site: "x" })]), never);
        }
        const changed = z.object({ temp: z.string(), site: z.string(), [`new"; --`]: z.int() });
        await using sink = await open({ layout: "wide" }, climate(changed));
        expect(warned).toEqual([expect.stringContaining("temp (text)")]);
        await sink.write(batchOf([makeEntry(1, { temp: "warm", site: "y", [`new"; --`]: 7 })]), never);
        expect(
          await ask(`SELECT temp, site, "new""; --" AS new, rest FROM readings_climate ORDER BY "offset"`),
        ).toEqual([
          { temp: 1, site: "x", new: null, rest: null },
          { temp: null, site: "y", new: "7", rest: { temp: "warm" } },
        ]);
      });

      test("wide refuses a text that PostgreSQL cannot hold, and names its place", async () => {
        await using sink = await open({ layout: "wide" }, climate(first));
        const written = await sink.write(batchOf([makeEntry(0, { temp: 1, site: "\0" }), door]), never);
        const reason: unknown = expect.stringContaining("data.site");
        expect(written).toEqual({ kind: "except", refused: [{ offset: 0, reason }] });
      });
    });
  });
});

/** Of no two equal parts, so that it cannot be compressed. */
function noise(length: number): string {
  let state = 1;
  return Array.from({ length }, () => {
    state = (state * 48_271) % 2_147_483_647;
    return String.fromCodePoint(97 + (state % 26));
  }).join("");
}

function nest(depth: number): unknown {
  let value: unknown = 1;
  for (let level = 0; level < depth; level += 1) value = [value];
  return value;
}

describe("the settings of the postgres sink", () => {
  test.for([
    [{ url: "postgres://a:b@c/d" }, "url"],
    [{ schema: "a\0" }, "U+0000"],
    [{ layout: "tall" }, "document"],
    [{ port: 0 }, "port"],
  ])("do not take %j", ([given, said]) => {
    expect(postgres().sink.settings.safeParse(given).error?.message).toContain(said);
  });
});
