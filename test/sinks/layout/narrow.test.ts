import { describe, expect, test } from "vitest";
import { z } from "zod";
import { makeEntry } from "../../contract/sink.ts";
import { tableOf, toOwn, toRows } from "./rows.ts";

const table = tableOf("narrow", z.unknown());
const narrow = (data: unknown): readonly unknown[] => toRows(table, data).map(toOwn);

describe("the narrow layout", () => {
  test("is one table for all streams, with a row for each value", () => {
    expect(table).toMatchObject({ name: "metrics", key: ["gateway", "offset", "metric"] });
    expect(toRows(table, { metrics: { temp: 21.5 } })).toEqual([
      {
        gateway: "gateway-1",
        offset: 7,
        metric: "metrics.temp",
        received_at: 2_007,
        time: 1_007,
        stream: "climate",
        device: "device-1",
        topic: "devices/device-1/telemetry",
        value: 21.5,
        text: null,
        rest: null,
      },
    ]);
  });

  test("tells numbers, booleans, strings and all else", () => {
    const data = {
      n: 1,
      yes: true,
      no: false,
      s: "5",
      list: [1, "a"],
      nothing: null,
      empty: {},
      at: new Date(0),
      nan: NaN,
    };
    expect(narrow(data)).toEqual([
      { metric: "n", value: 1 },
      { metric: "yes", value: 1, text: "true" },
      { metric: "no", value: 0, text: "false" },
      { metric: "s", text: "5" },
      { metric: "list", rest: `[1,"a"]` },
      { metric: "nothing", rest: "null" },
      { metric: "empty", rest: "{}" },
      { metric: "at", rest: `"1970-01-01T00:00:00.000Z"` },
      { metric: "nan", rest: "null" },
    ]);
  });

  test("has a row for data that is no object or an empty one", () => {
    expect(narrow(5)).toEqual([{ metric: "", value: 5 }]);
    expect(narrow({})).toEqual([{ metric: "", rest: "{}" }]);
    expect(narrow(null)).toEqual([{ metric: "", rest: "null" }]);
    expect(narrow({ gone: undefined })).toEqual([{ metric: "", rest: "{}" }]);
  });

  test("never gives two fields the same metric", () => {
    const data = { a: { b: 1 }, "a.b": 2, 'a["b"]': 3, "": 4, "x y": { z: 5 }, "nul\0": 6 };
    expect(narrow(data)).toEqual([
      { metric: "a.b", value: 1 },
      { metric: `["a.b"]`, value: 2 },
      { metric: `["a[\\"b\\"]"]`, value: 3 },
      { metric: `[""]`, value: 4 },
      { metric: `["x y"].z`, value: 5 },
      { metric: `["nul\\u0000"]`, value: 6 },
    ]);
  });

  test("keeps what would be the 1,001st row together, and so a field whose place is too long", () => {
    const many = Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`f${index}`, index]));
    const rows = narrow({ many });
    expect(rows).toHaveLength(1_001);
    expect(rows[999]).toEqual({ metric: "many.f999", value: 999 });
    const { metric, rest } = rows[1_000] as { metric: string; rest: string };
    expect([metric, JSON.parse(rest)]).toEqual(["many", Object.fromEntries(Object.entries(many).slice(1_000))]);

    const long = "n".repeat(254);
    expect(narrow({ a: { [long]: 1, b: 2 }, [`${long}n`]: 3 })).toEqual([
      { metric: "a.b", value: 2 },
      { metric: "a", rest: `{"${long}":1}` },
      { metric: `${long}n`, value: 3 },
    ]);
  });

  test("says why an entry can never be written, also one that goes round in a circle", () => {
    const circle: Record<string, unknown> = {};
    circle["self"] = circle;
    for (const data of [{ a: 1, big: 1n }, circle])
      expect(table.toRows("g", makeEntry(1, data))).toMatchObject({
        message: expect.stringMatching(/^its data cannot be written as JSON: /) as unknown,
      });
  });
});
