// Parquet in the layouts wide and narrow. What the columns are is tested with the layouts; here, that files have them.

import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { toOffset } from "../../src/reading.ts";
import { files } from "../../src/sinks/files/files.ts";
import type { Layout } from "../../src/sinks/layout/table.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { describeSink, makeEntry, openContext } from "../contract/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import { readClosed } from "./closed-files.ts";
import type { ClosedFile } from "./closed-files.ts";
import { fromNarrow, merge, toWritten } from "./layout/rows.ts";
import type { Row } from "./layout/rows.ts";

const never = new AbortController().signal;
const { sink: type } = files();
const openSink = (context: SinkContext, layout: Layout): Promise<Sink> =>
  type.open(type.settings.parse({ format: "parquet", layout, rotate: { bytes: 1 } }), context);

const readRows = async ({ dataDir }: SinkContext): Promise<ClosedFile["rows"]> =>
  (await readClosed(join(dataDir, "files"))).flatMap(({ rows }) => rows);

async function writeAndRead(layout: Layout, schema: z.ZodType, data: readonly unknown[]): Promise<ClosedFile["rows"]> {
  const context = { ...(await openContext()), streams: [{ name: "climate", schema }] };
  const entries = data.map((each, offset) => makeEntry(offset, each));
  {
    await using sink = await openSink(context, layout);
    await sink.write({ gateway: "gateway-1", entries, next: toOffset(data.length) }, never);
  }
  return await readRows(context);
}

const byKey = (one: WrittenRow, other: WrittenRow): number =>
  one.gateway.localeCompare(other.gateway) || one.offset - other.offset;

describeSink("files of parquet, layout wide,", {
  once: "exactly",
  open: (context) => openSink(context, "wide"),
  rows: async (context) =>
    (await readRows(context))
      .map((row) => {
        const columns = {
          ...(row["ts"] === null ? {} : { ts: Number(row["ts"]) }),
          ...(row["text"] === null ? {} : { text: row["text"] }),
        };
        return toWritten(row, merge(columns, JSON.parse((row["rest"] as string | null) ?? "{}")));
      })
      .toSorted(byKey),
});

describeSink("files of parquet, layout narrow,", {
  once: "exactly",
  open: (context) => openSink(context, "narrow"),
  rows: async (context) => {
    const readings = Map.groupBy(
      await readRows(context),
      ({ gateway, offset }) => `${String(gateway)} ${String(offset)}`,
    );
    return [...readings.values()]
      .map((rows) => toWritten(rows[0] ?? {}, fromNarrow(rows as readonly Row[])))
      .toSorted(byKey);
  },
});

describe("Parquet", () => {
  test("has a typed column for each field in the layout wide", async () => {
    const schema = z.object({
      n: z.number().nullish(),
      i: z.int().optional(),
      b: z.boolean().optional(),
      at: z.date().optional(),
      never: z.string().optional(),
      position: z.looseObject({ lat: z.number() }).optional(),
      "a.b": z.int().optional(),
      [`"; DROP`]: z.string().optional(),
    });
    const full = {
      n: 1.5,
      i: 2 ** 53 - 1,
      b: false,
      at: new Date(7),
      position: { lat: 1, fix: "3d" },
      "a.b": 3,
      [`"; DROP`]: "🌡",
    };
    const [first, second] = await writeAndRead("wide", schema, [full, { n: null }]);
    expect(first).toEqual({
      gateway: "gateway-1",
      offset: 0n,
      receivedAt: new Date(2_000),
      time: new Date(1_000),
      stream: "climate",
      device: "device-0",
      topic: "devices/device-0/telemetry",
      n: 1.5,
      i: 2n ** 53n - 1n,
      b: false,
      at: new Date(7),
      never: null,
      position_lat: 1,
      "a.b": 3n,
      [`"; DROP`]: "🌡",
      rest: `{"position":{"fix":"3d"}}`,
    });
    expect(second).toMatchObject({ n: null, i: null, b: null, at: null, rest: `{"n":null}` });
  });

  test("has a row for each value in the layout narrow", async () => {
    const rows = await writeAndRead("narrow", z.unknown(), [{ t: 1, on: true, name: "x", list: [1] }, {}]);
    expect(rows.map(({ offset, metric, value, text, rest }) => [offset, metric, value, text, rest])).toEqual([
      [0n, "t", 1, null, null],
      [0n, "on", 1, "true", null],
      [0n, "name", null, "x", null],
      [0n, "list", null, null, "[1]"],
      [1n, "", null, null, "{}"],
    ]);
  });

  test("alone has layouts", () => {
    const { success, error } = type.settings.safeParse({ layout: "wide" });
    expect([success, error?.issues]).toMatchObject([
      false,
      [{ path: ["layout"], message: "wide is a layout of parquet: expected document" }],
    ]);
  });
});
