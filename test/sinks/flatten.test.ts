import { describe, expect, test } from "vitest";
import { flatten } from "../../src/sinks/flatten.ts";

const toFields = (data: unknown, separator = "_"): readonly (readonly [string, unknown])[] | string => {
  const fields = flatten(data, separator);
  return fields instanceof Error ? fields.message : [...fields];
};

function nest(depth: number): unknown {
  let data: unknown = 1;
  for (let level = 0; level < depth; level += 1) data = { a: data };
  return data;
}

describe("the fields of data", () => {
  test.for<[unknown, readonly (readonly [string, unknown])[]]>([
    [
      { temp: 21.5, ok: true, text: "" },
      [
        ["temp", 21.5],
        ["ok", true],
        ["text", ""],
      ],
    ],
    [
      { gps: { lat: 1, at: [2, [3]] } },
      [
        ["gps_lat", 1],
        ["gps_at_0", 2],
        ["gps_at_1_0", 3],
      ],
    ],
    [21.5, [["value", 21.5]]],
    ["text", [["value", "text"]]],
    [
      [1, 2],
      [
        ["0", 1],
        ["1", 2],
      ],
    ],
    [
      { big: 12n, at: new Date(0) },
      [
        ["big", 12],
        ["at", "1970-01-01T00:00:00.000Z"],
      ],
    ],
    [JSON.parse(`{"__proto__": {"constructor": 1}}`), [["__proto___constructor", 1]]],
  ])("of %o are in its order", ([data, fields]) => {
    expect(toFields(data)).toEqual(fields);
  });

  test.for<[unknown]>([
    [null],
    [undefined],
    [Number.NaN],
    [{}],
    [[]],
    [{ a: null, b: undefined, c: [Infinity] }],
    [() => 1],
  ])("are none when it has no value: %o", ([data]) => {
    expect(toFields(data)).toEqual([]);
  });

  test("have the separator between the parts of their names", () => {
    expect(toFields({ a: { b: [1] } }, "->")).toEqual([["a->b->0", 1]]);
  });

  test.for<[string, unknown, string]>([
    ["two of one name", { a_b: 1, a: { b: 2 } }, "two of its fields would be called a_b"],
    ["an empty name", { "": 1 }, "a field has an empty name"],
    ["more than 128 levels", nest(129), "it is deeper than 128 levels"],
    ["more than 20,000 values", Array.from({ length: 20_000 }, () => null), "it has more than 20000 values"],
    [
      "a long name many times",
      { ["n".repeat(100_000)]: Array.from({ length: 1_000 }, () => 1) },
      "its fields have more than 4194304 characters",
    ],
    ["a long text", "x".repeat(4_194_300), "its fields have more than 4194304 characters"],
    ["a toJSON that throws", { at: new Date(Number.NaN), toJSON: () => void JSON.parse("{") }, "JSON"],
  ])("are refused for %s", ([, data, reason]) => {
    expect(toFields(data)).toContain(reason);
  });

  test("are refused for a list that holds itself many times, before the stack or the memory ends", () => {
    let list: unknown[] = [];
    for (let level = 0; level < 60; level += 1) list = [list, list];
    expect(toFields(list)).toBe("it has more than 20000 values");
    const circle: unknown[] = [];
    circle.push(circle, circle);
    expect(toFields(circle)).toBe("it is deeper than 128 levels");
  });

  test("may be 19,999, or in 128 levels", () => {
    expect(toFields(Array.from({ length: 19_999 }, (_, index) => index))).toHaveLength(19_999);
    expect(toFields(nest(128))).toEqual([[Array.from({ length: 128 }, () => "a").join("_"), 1]]);
  });
});
