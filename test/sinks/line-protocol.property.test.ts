// Lines against a parser that reads them as the specification says, and no more cleverly.

import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Field } from "../../src/sinks/flatten.ts";
import { toLine } from "../../src/sinks/line-protocol.ts";
import type { Point } from "../../src/sinks/line-protocol.ts";

interface PlainPoint extends Point {
  readonly tags: ReadonlyMap<string, string>;
  readonly fields: ReadonlyMap<string, Field>;
}

/** Reads up to one of `ends` that has no backslash before it, and takes the backslash from before each of `escapable`. */
function readToken(
  line: string,
  from: number,
  { ends, escapable }: { readonly ends: string; readonly escapable: string },
): { readonly text: string; readonly end: number } {
  let text = "";
  for (let at = from; at < line.length; at += 1) {
    const [character, next] = [line.charAt(at), line.charAt(at + 1)];
    if (character === "\\" && escapable.includes(next) && next !== "") {
      text += next;
      at += 1;
    } else if (ends.includes(character)) return { text, end: at };
    else text += character;
  }
  return { text, end: line.length };
}

function readText(line: string, from: number): { readonly text: string; readonly end: number } {
  const { text, end } = readToken(line, from, { ends: '"', escapable: '"\\' });
  return { text, end: end + 1 };
}

const inNames = { ends: ",= ", escapable: ",= " };

function parseLine(line: string): PlainPoint {
  const name = readToken(line, 0, { ends: ", ", escapable: ", " });
  if (name.text.startsWith("#")) throw new Error("a comment");
  let at = name.end;
  const tags = new Map<string, string>();
  while (line[at] === ",") {
    const key = readToken(line, at + 1, inNames);
    expect(line[key.end]).toBe("=");
    const value = readToken(line, key.end + 1, inNames);
    tags.set(key.text, value.text);
    at = value.end;
  }
  const fields = new Map<string, Field>();
  do {
    const key = readToken(line, at + 1, inNames);
    expect(line[key.end]).toBe("=");
    if (line[key.end + 1] === '"') {
      const value = readText(line, key.end + 2);
      fields.set(key.text, value.text);
      at = value.end;
    } else {
      const value = readToken(line, key.end + 1, { ends: ", ", escapable: "" });
      fields.set(key.text, value.text === "true" || (value.text === "false" ? false : Number(value.text)));
      at = value.end;
    }
  } while (line[at] === ",");
  expect(line[at]).toBe(" ");
  expect(line.slice(at + 1)).toMatch(/^-?\d+$/);
  return { measurement: name.text, tags, fields, time: BigInt(line.slice(at + 1)) };
}

const decode = (text: string): string => text.replaceAll(/(?:%[0-9A-F]{2})+/g, decodeURIComponent);
const decodeAll = <Value>(
  map: ReadonlyMap<string, Value>,
  value: (given: Value) => Value,
): ReadonlyMap<string, Value> => new Map([...map].map(([key, one]) => [decode(key), value(one)]));

const hostile = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        "\\",
        ",",
        "=",
        " ",
        '"',
        "\n",
        "\r",
        "\t",
        "\0",
        "%",
        "%2",
        "%5C",
        "%0a",
        "#",
        "\u0085",
        "é",
        "\u{1f600}",
      ),
      fc.string({ unit: "grapheme", maxLength: 3 }),
    ),
    { maxLength: 8 },
  )
  .map((parts) => parts.join(""));
const name = hostile.filter((text) => text !== "");
const field = fc.oneof(
  hostile,
  fc.boolean(),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
  fc.integer(),
);
const maps = <Value>(value: fc.Arbitrary<Value>, minLength = 0): fc.Arbitrary<ReadonlyMap<string, Value>> =>
  fc
    .uniqueArray(fc.tuple(name, value), { selector: ([key]) => key, minLength, maxLength: 5 })
    .map((all) => new Map(all));
const point: fc.Arbitrary<PlainPoint> = fc.record({
  measurement: name,
  tags: maps(hostile),
  fields: maps(field, 1),
  time: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
});

describe("a line", () => {
  test("says the point, whatever its names and texts are", () => {
    fc.assert(
      fc.property(point, (given) => {
        const found = parseLine(toLine(given));
        expect({
          ...found,
          measurement: decode(found.measurement),
          tags: decodeAll(found.tags, decode),
          fields: decodeAll(found.fields, (value) => value),
        }).toEqual({ ...given, tags: new Map([...given.tags].filter(([, value]) => value !== "")) });
      }),
      { numRuns: 3_000 },
    );
  });

  test("has no line break, control character or backslash outside of its texts", () => {
    fc.assert(
      fc.property(point, (given) => {
        const fields = new Map([...given.fields].map(([key]) => [key, 1] as const));
        const line = toLine({ ...given, fields }).replaceAll(/\\[,= ]/g, "");
        expect(line).not.toMatch(/[\p{Cc}\\]/u);
      }),
    );
  });

  test.for([
    ["a b,c=d", String.raw`a\ b\,c=d,t=v f=1 0`],
    ["#a", "%23a,t=v f=1 0"],
    ["50%", "50%,t=v f=1 0"],
    ["a%0Ab", "a%250Ab,t=v f=1 0"],
    ["a\nb\\", "a%0Ab%5C,t=v f=1 0"],
  ] as const)("writes the measurement %j", ([measurement, line]) => {
    expect(toLine({ measurement, tags: new Map([["t", "v"]]), fields: new Map([["f", 1]]), time: 0n })).toBe(line);
  });
});
