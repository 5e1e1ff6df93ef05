import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { Batch } from "../../src/reading.ts";
import { flatten } from "../../src/sinks/flatten.ts";
import { influx } from "../../src/sinks/influx.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { deliverAll, makeBatch, makeEntry, never, openContext, toBatch } from "../contract/entries.ts";
import { describeSink } from "../contract/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import { queryInflux, startInflux } from "../servers/influx.ts";
import { isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";

const { sink: type } = influx({ url: "", database: "" });
let server: Server;
/** A database of its own for each test: the destination must be new. */
const databases = new Map<string, string>();

async function databaseOf({ dataDir }: SinkContext): Promise<string> {
  const found = databases.get(dataDir);
  if (found !== undefined) return found;
  const database = `db${databases.size}`;
  databases.set(dataDir, database);
  await queryInflux(server, `CREATE DATABASE ${database}`);
  return database;
}

async function openSink(context: SinkContext, settings: object = {}): Promise<Sink> {
  const given = { url: `http://127.0.0.1:${server.port}`, api: "v1", database: await databaseOf(context), ...settings };
  return type.open(type.settings.parse(given), context);
}

const read = async (context: SinkContext, from = "climate"): Promise<readonly Readonly<Record<string, unknown>>[]> =>
  queryInflux(server, `SELECT * FROM "${from}"`, { database: await databaseOf(context) });

const decode = (text: string): string => text.replaceAll(/(?:%[0-9A-F]{2})+/g, decodeURIComponent);

/** With the fields of a reading as its data. */
async function rows(context: SinkContext): Promise<readonly WrittenRow[]> {
  const found = (await read(context)).map(({ gateway, offset, device, time, ...others }) => ({
    gateway: String(gateway),
    offset: Number(offset),
    device: decode(String(device)),
    time: Number(time),
    data: Object.fromEntries(
      Object.entries(others)
        .filter(([name, value]) => value !== null && name !== "received_at")
        .map(([name, value]) => [decode(name), value]),
    ),
  }));
  return found.toSorted((a, b) => a.gateway.localeCompare(b.gateway) || a.offset - b.offset);
}

/** What `rows` has of data: flat, in UTF-8, and with an underscore behind names of the sink's own. */
function keeps(data: unknown): unknown {
  const fields = flatten(data, "_");
  if (fields instanceof Error) return fields;
  const own = /^(?:gateway|offset|time|device|received_at)$/;
  return Object.fromEntries(
    Array.from(fields, ([name, value]) => [
      name.replace(own, "$&_").toWellFormed(),
      typeof value === "string" ? value.toWellFormed() : value,
    ]),
  );
}

const batchOf = (...data: readonly unknown[]): Batch => toBatch(data.map((one, offset) => makeEntry(offset, one)));

describe.skipIf(!isInstalled("influxd"))("with InfluxDB", () => {
  beforeAll(async () => {
    server = await startInflux({ data: ["max-values-per-tag = 1000"] });
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });

  describeSink("influx", {
    open: openSink,
    rows,
    once: "by key",
    refuses: { ts: 1, text: "", a_b: 1, a: { b: 2 } },
    keeps,
    parks: ["names that differ in case, and an empty one"],
    server: () => server,
    openAt: (context, { port }) => openSink(context, { url: `http://127.0.0.1:${port}` }),
    survives: "SIGKILL",
  });

  describe("the influx sink", () => {
    let context: SinkContext;
    beforeEach(async () => {
      context = await openContext();
    });

    test("writes what its file describes", async () => {
      await using sink = await openSink(context);
      const data = { temp: 21, gps: { lat: 1.5, fix: true }, list: [7, null, "x"], nan: Number.NaN, none: null };
      await sink.write(toBatch([makeEntry(7, data)]), never);
      expect(await read(context)).toEqual([
        {
          time: 1007,
          device: "device-1",
          gateway: "gateway-1",
          offset: 7,
          received_at: 2007,
          temp: 21,
          gps_lat: 1.5,
          gps_fix: true,
          list_0: 7,
          list_2: "x",
        },
      ]);
    });

    test("writes only its data when it is told to, and names as they are wanted", async () => {
      await using sink = await openSink(context, {
        origin: false,
        deviceTag: "sensor",
        measurement: "{stream} of {device}",
        separator: ".",
        tags: ["site.room"],
      });
      await sink.write(batchOf({ site: { room: "a b,c=d" }, offset: 3 }), never);
      expect(await read(context, "climate of device-0")).toEqual([
        { time: 1000, sensor: "device-0", "site.room": "a b,c=d", offset: 3 },
      ]);
    });

    test("writes fields with a name that is taken beside its own", async () => {
      await using sink = await openSink(context, { tags: ["gateway"] });
      const data = { time: 1, offset: 2, offset_: 3, device: "d", gateway: 5, received_at: 6, ok: 7 };
      await sink.write(batchOf(data), never);
      expect(await read(context)).toEqual([
        {
          time: 1000,
          time_: 1,
          offset: 0,
          offset_: 2,
          offset__: 3,
          device: "device-0",
          device_: "d",
          gateway: "gateway-1",
          gateway_: "5",
          received_at: 2000,
          received_at_: 6,
          ok: 7,
        },
      ]);
    });

    test("takes a whole number and a fraction for the same field", async () => {
      await using sink = await openSink(context);
      const numbers = [21, 21.5, -7, 1e21, 5e-324, Number.MAX_VALUE, 2 ** 53 + 2];
      expect(await deliverAll(sink, batchOf(...numbers))).toEqual([]);
      expect((await read(context)).map(({ value }) => value)).toEqual(numbers);
    });

    test("keeps hostile text in fields, tags and names", async () => {
      const hostile = `a\0b\n\r\t, =\\"'\u{1f600};DROP DATABASE x--%0A%\\`;
      const entry = makeEntry(0, { [`k${hostile}`]: hostile, tag: hostile });
      await using sink = await openSink(context, { measurement: "{device}", tags: ["tag"] });
      const reading = { ...entry.reading, deviceId: `#${hostile}` };
      expect(await deliverAll(sink, { ...toBatch([{ ...entry, reading }]), gateway: hostile })).toEqual([]);
      const named = `a%00b%0A%0D%09, =%5C"'\u{1f600};DROP DATABASE x--%250A%%5C`;
      const [found] = await queryInflux(server, "SELECT * FROM /.*/", { database: await databaseOf(context) });
      expect(found).toEqual({
        time: 1000,
        device: `#${named}`,
        gateway: named,
        tag: named,
        [`k${named}`]: hostile,
        offset: 0,
        received_at: 2000,
      });
      expect(await queryInflux(server, "SHOW MEASUREMENTS", { database: await databaseOf(context) })).toEqual([
        { name: `%23${named}` },
      ]);
    });

    test("leaves out a tag without a value", async () => {
      await using sink = await openSink(context, { tags: ["room", "site"] });
      const entry = makeEntry(0, { room: "", value: 1 });
      await sink.write(toBatch([{ ...entry, reading: { ...entry.reading, deviceId: "" } }]), never);
      expect(await read(context)).toEqual([
        { time: 1000, gateway: "gateway-1", value: 1, offset: 0, received_at: 2000 },
      ]);
    });

    test("makes one point of two readings for which their device says the same millisecond, unless it is told not to", async () => {
      const one = makeEntry(1, { a: 1, both: 1 });
      const two = { offset: toOffset(2), reading: { ...one.reading, data: { b: 2, both: 2 } } };
      await using sink = await openSink(context);
      await sink.write(toBatch([one, two]), never);
      expect(await read(context)).toMatchObject([{ time: 1001, a: 1, b: 2, both: 2, offset: 2 }]);
      await using distinct = await openSink(context, { measurement: "distinct", distinct: true });
      for (let times = 0; times < 2; times += 1) await distinct.write(toBatch([one, two]), never);
      expect(await read(context, "distinct")).toMatchObject([
        { time: 1001, a: 1, both: 1, offset: 1 },
        { time: 1001, b: 2, both: 2, offset: 2 },
      ]);
    });

    test("keeps all readings of a device that says no time, once each", async () => {
      const entries = Array.from({ length: 500 }, (_, index) => {
        const entry = makeEntry(999_800 + index);
        return { ...entry, reading: { ...entry.reading, deviceId: "d", time: 2_000, receivedAt: 2_000 } };
      });
      await using sink = await openSink(context);
      for (let times = 0; times < 2; times += 1) await sink.write(toBatch(entries), never);
      const offsets = (await rows(context)).map(({ offset, time }) => [offset, time]);
      expect(offsets).toEqual(entries.map(({ offset }) => [offset, 2_000]));
    });

    test("parks what cannot be a point, with the reason, and writes the others", async () => {
      await using sink = await openSink(context);
      const circle: Record<string, unknown> = {};
      circle["again"] = circle;
      const parked = await deliverAll(
        sink,
        batchOf(
          { ok: 1 },
          { a_b: 1, a: { b: 2 } },
          circle,
          { "": 1 },
          Array.from({ length: 20_001 }, () => 1),
          { ok: 2 },
        ),
      );
      expect(parked.map(({ offset, reason }) => [offset, reason.replace("its data cannot be a point: ", "")])).toEqual([
        [1, "two of its fields would be called a_b"],
        [2, "it is deeper than 128 levels"],
        [3, "a field has an empty name"],
        [4, "it has more than 20000 values"],
      ]);
      expect((await read(context)).map(({ ok }) => ok)).toEqual([1, 2]);
    });

    test("writes a reading without any value by where it comes from, or parks it when that is not wanted", async () => {
      await using sink = await openSink(context);
      expect(await deliverAll(sink, batchOf({}))).toEqual([]);
      await using bare = await openSink(context, { origin: false });
      expect(await deliverAll(bare, batchOf({ none: null }))).toMatchObject([{ offset: 0, reason: /no field/ }]);
    });

    test("parks the readings whose field has another type, at once, and the others are there", async () => {
      await using sink = await openSink(context);
      await sink.write(batchOf({ x: 1 }), never);
      const batch = toBatch(
        [2, 3, 4, 5, 6].map((offset) => makeEntry(offset, { x: offset % 2 === 0 ? offset : "text" })),
      );
      const written = await sink.write(batch, never);
      const reason = expect.stringMatching(/refuses it: 400 Bad Request: partial write: field type conflict/) as string;
      expect(written).toEqual({
        kind: "except",
        refused: [3, 5].map((offset) => ({ offset, reason })),
      });
      expect((await read(context)).map(({ x }) => x)).toEqual([1, 2, 4, 6]);
    });

    test("finds by smaller batches what the server refuses for several reasons", async () => {
      await using sink = await openSink(context, { tags: ["tag"] });
      await sink.write(batchOf({ x: 1, y: 1 }), never);
      const bad = new Map<number, unknown>([
        [7, { x: "text" }],
        [8, { y: true }],
        [20, { tag: "x".repeat(70_000), x: 1 }],
      ]);
      const entries = Array.from({ length: 30 }, (_, index) =>
        makeEntry(index + 1, bad.get(index + 1) ?? { x: index }),
      );
      const parked = await deliverAll(sink, toBatch(entries));
      expect(parked.map(({ offset }) => offset)).toEqual([...bad.keys()]);
      expect((await read(context)).length).toBe(1 + 30 - bad.size);
    });

    test("parks all of a batch beyond the retention policy with one request", async () => {
      const database = await databaseOf(context);
      await queryInflux(server, `CREATE RETENTION POLICY week ON ${database} DURATION 7d REPLICATION 1`);
      await using sink = await openSink(context, { retentionPolicy: "week" });
      const written = await sink.write(makeBatch([0, 1, 2]), never);
      expect(written).toMatchObject({ kind: "except", refused: [{ offset: 0 }, { offset: 1 }, { offset: 2 }] });
      expect(written).toMatchObject({ refused: [{ reason: /beyond retention policy/ }, {}, {}] });
    });

    test("parks a time that InfluxDB does not have, and a tag of too many values", async () => {
      await using sink = await openSink(context, { tags: ["tag"] });
      const late = makeEntry(0);
      const reading = { ...late.reading, time: 9_300_000_000_000 };
      expect(await deliverAll(sink, toBatch([{ ...late, reading }, makeEntry(1)]))).toMatchObject([
        { offset: 0, reason: /time outside range/ },
      ]);
      const many = Array.from({ length: 1_010 }, (_, index) => makeEntry(index + 2, { tag: `t${index}`, v: 1 }));
      expect(await deliverAll(sink, toBatch(many.slice(0, 1_000)))).toEqual([]);
      expect(await deliverAll(sink, toBatch(many.slice(1_000)))).toMatchObject(
        Array.from({ length: 10 }, () => ({ reason: /max-values-per-tag/ })),
      );
    });

    test("divides a batch that is too large when it is flattened", async () => {
      await using sink = await openSink(context);
      const name = "n".repeat(10_000);
      const entries = Array.from({ length: 8 }, (_, offset) =>
        makeEntry(offset, { [name]: Array.from({ length: 200 }, () => 1) }),
      );
      expect(await sink.write(toBatch(entries), never)).toMatchObject({ kind: "refused", reason: /too large/ });
      expect(await deliverAll(sink, toBatch(entries))).toEqual([]);
      expect(
        (await queryInflux(server, 'SELECT COUNT("offset") FROM climate', { database: await databaseOf(context) }))[0],
      ).toMatchObject({ count: 8 });
    });
  });
});
