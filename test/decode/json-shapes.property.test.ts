import { Buffer } from "node:buffer";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Codec } from "../../src/decode/codec.ts";
import { json } from "../../src/decode/json.ts";
import { JsonShapes } from "../../src/decode/json-shapes.ts";

const createDecoder = (): Codec["decode"] => {
  const decoder = json.createDecoder?.();
  if (decoder === undefined) throw new Error("JSON has a decoder of its own for each stream");
  return decoder;
};

/** Shapes that have learned this text as one that many devices send. */
function learned(text: string): JsonShapes {
  const shapes = new JsonShapes();
  learn(shapes, text, 64);
  return shapes;
}

const key = fc.constantFrom("a", "b", "ts", "metrics", "0", "constructor", "x y", "-", "true", "1e5", "{}", ":");
const ascii = fc.string({ unit: fc.constantFrom(...Array.from("ab 01{}[]:,.-\u007F")), maxLength: 6 });
const leaf = fc.oneof(
  ascii,
  fc.boolean(),
  fc.constant(null),
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.integer({ min: -99_999, max: 99_999 }).map((value) => value / 1000),
);
const { tree } = fc.letrec((tie) => ({
  tree: fc.oneof(
    { depthSize: "small", maxDepth: 3 },
    leaf,
    fc.dictionary(key, tie("tree"), { maxKeys: 5 }),
    fc.array(tie("tree"), { maxLength: 3 }),
  ),
}));

/** The same tree with other leaves of any kind. */
function withOtherLeaves(value: unknown, next: () => unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => withOtherLeaves(item, next));
  if (typeof value !== "object" || value === null) return next();
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, withOtherLeaves(item, next)]));
}

/** toEqual does not tell -0 from 0 in a nested value, nor the order of keys. */
const exact = (value: unknown): string =>
  JSON.stringify(value, (_, item: unknown) => (Object.is(item, -0) ? "-0" : item));

const readText = (shapes: JsonShapes, text: string): unknown => shapes.read(Buffer.from(text));

function learn(shapes: JsonShapes, text: string, times: number): void {
  for (let seen = 0; seen < times; seen += 1) shapes.learn(Buffer.from(text));
}

describe("a learned shape", () => {
  test("reads texts of other values as JSON.parse does, or not at all", () => {
    let read = 0;
    fc.assert(
      fc.property(
        tree,
        fc.array(leaf, { minLength: 1, maxLength: 8 }),
        fc.constantFrom(0, 1),
        (sample, leaves, space) => {
          const shapes = learned(JSON.stringify(sample, undefined, space));
          let index = 0;
          const other = withOtherLeaves(sample, () => leaves[index++ % leaves.length]);
          const text = JSON.stringify(other, undefined, space);
          const value = shapes.read(Buffer.from(text));
          if (value === undefined) return;
          read += 1;
          expect(exact(value)).toBe(exact(JSON.parse(text)));
        },
      ),
      { numRuns: 3000 },
    );
    expect(read).toBeGreaterThan(1000);
  });

  test("reads damaged texts as a decoder does that has learned nothing", () => {
    const edit = fc.tuple(
      fc.nat(),
      fc.oneof(fc.nat({ max: 255 }), fc.constantFrom(...Buffer.from('"\\{}[]:,.-+eE 0123456789'))),
      fc.constantFrom("set", "insert", "remove"),
    );
    fc.assert(
      fc.property(tree, fc.array(edit, { minLength: 1, maxLength: 3 }), (sample, edits) => {
        const text = JSON.stringify(sample);
        const decode = createDecoder();
        for (let seen = 0; seen < 64; seen += 1) decode(Buffer.from(text));
        let bytes = [...Buffer.from(text)];
        for (const [place, byte, what] of edits) {
          const at = place % (bytes.length + 1);
          bytes = bytes.toSpliced(at, what === "insert" ? 0 : 1, ...(what === "remove" ? [] : [byte]));
        }
        const damaged = Buffer.from(bytes);
        const [{ shape: _, ...decoded }, expected] = [{ shape: undefined, ...decode(damaged) }, json.decode(damaged)];
        expect(decoded).toEqual(expected);
        expect(exact(decoded)).toBe(exact(expected));
      }),
      { numRuns: 3000 },
    );
  });

  test.each([
    ["-0", -0],
    ["0.1", 0.1],
    ["-273.15", -273.15],
    ["999999999999999", 999_999_999_999_999],
    ["0.00000000000001", 1e-14],
    ["123456.789012345", 123_456.789_012_345],
  ])("reads %s exactly", (number, value) => {
    expect(learned('{"a":1}').read(Buffer.from(`{"a":${number}}  \r\n`))).toEqual({ a: value });
  });

  test.each([
    "1e3",
    "01",
    "1.",
    ".5",
    "-",
    "1234567890123456",
    "0.1234567890123456",
    "+1",
    "1 2",
    "tru",
    "nul",
    '"\\n"',
    '"é"',
    '"',
    "{}",
    "",
  ])("leaves %j to the strict reader", (value) => {
    expect(learned('{"a":1}').read(Buffer.from(`{"a":${value}}`))).toBeUndefined();
  });

  test("is not made of a key that would change the object's prototype", () => {
    const decode = createDecoder();
    const bytes = Buffer.from('{"__proto__":{"polluted":1}}');
    for (let seen = 0; seen < 64; seen += 1) expect(decode(bytes).kind).toBe("undecodable");
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  });

  test("reads beyond no end: a text cut anywhere is not read", () => {
    const text = '{"ts":17,"ok":true,"name":"x","list":[1.5,null]}';
    const shapes = learned(text);
    expect(shapes.read(Buffer.from(text))).toEqual(JSON.parse(text));
    const behind = Buffer.concat([Buffer.from(text), Buffer.from(text)]);
    for (let end = 0; end < text.length; end += 1) expect(shapes.read(behind.subarray(0, end))).toBeUndefined();
  });
});

describe("the shapes of a stream", () => {
  test("are few, and one that is no longer sent gives way to one that is", () => {
    const shapes = new JsonShapes();
    for (let index = 0; index < 16; index += 1) learn(shapes, `{"k${index}":1}`, 64);
    learn(shapes, '{"late":1}', 64);
    expect(readText(shapes, '{"late":2}')).toBeUndefined();
    learn(shapes, '{"late":1}', 4096);
    expect(readText(shapes, '{"late":2}')).toEqual({ late: 2 });
    expect(readText(shapes, '{"k0":2}')).toEqual({ k0: 2 });
    expect(readText(shapes, '{"k15":2}')).toBeUndefined();
  });

  test("do not learn what comes once, nor long texts", () => {
    const shapes = new JsonShapes();
    for (let index = 0; index < 5000; index += 1) learn(shapes, `{"k${index}":1}`, 1);
    expect(readText(shapes, '{"k4999":1}')).toBeUndefined();
    const long = JSON.stringify({ text: "x".repeat(3000) });
    learn(shapes, long, 5000);
    expect(readText(shapes, long)).toBeUndefined();
  });
});
