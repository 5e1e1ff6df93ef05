import { Buffer } from "node:buffer";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { json } from "../../src/decode/json.ts";
import { findJsonIssue } from "../../src/decode/json-strict.ts";

const key = fc.oneof(fc.constantFrom("a", "b", "ts", "é", 'q"', "\\"), fc.string({ unit: "binary", maxLength: 5 }));
const value = fc.jsonValue({ maxDepth: 6, depthSize: "medium" });

/** A character of JSON's alphabet, or any. */
const character = fc.oneof(
  fc.constantFrom(...Array.from('{}[]:,"\\0123456789.eE+- \n\ttrufalsn')),
  fc.string({ unit: "binary", minLength: 1, maxLength: 1 }),
);

/** JSON.parse's answer; undefined when it throws. */
function parse(text: string): { readonly value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch {
    return undefined;
  }
}

/** What a reader that drops nothing would find doubtful: JSON.parse with a look at every key and value. */
function isPlain(input: unknown): boolean {
  if (typeof input === "number") return Number.isFinite(input);
  if (typeof input === "string") return input.isWellFormed();
  if (typeof input !== "object" || input === null) return true;
  if (Array.isArray(input)) return input.every(isPlain);
  return Object.entries(input).every(([name, item]) => name !== "__proto__" && name.isWellFormed() && isPlain(item));
}

test("what JSON.stringify writes is decoded to the same value", () => {
  fc.assert(
    fc.property(value, fc.constantFrom(0, 1, "\t"), (input, space) => {
      const text = JSON.stringify(input, undefined, space);
      fc.pre(isPlain(parse(text)?.value));
      expect(json.decode(Buffer.from(text))).toEqual({ kind: "decoded", value: parse(text)?.value });
    }),
    { numRuns: 500 },
  );
});

test("damaged JSON is decoded exactly when JSON.parse reads it and nothing in it is doubtful", () => {
  let decodable = 0;
  fc.assert(
    fc.property(
      value,
      fc.array(fc.tuple(fc.nat(), character, fc.nat({ max: 2 })), { maxLength: 3 }),
      (input, edits) => {
        let text = JSON.stringify(input);
        for (const [place, inserted, removed] of edits) {
          const at = place % (text.length + 1);
          text = (text.slice(0, at) + inserted + text.slice(at + removed)).toWellFormed();
        }
        const decoded = json.decode(Buffer.from(text));
        const parsed = parse(text);
        if (decoded.kind === "decoded") decodable++;
        const message = decoded.kind === "decoded" ? "" : (decoded.issues[0]?.message ?? "");
        // Twice the same key is the one doubt that the value of JSON.parse does not show.
        const expected = parsed !== undefined && isPlain(parsed.value) && !message.includes("given twice");
        expect(decoded.kind === "decoded", `${text}: ${message}`).toBe(expected);
        expect(decoded.kind === "decoded" ? decoded.value : undefined).toEqual(expected ? parsed?.value : undefined);
      },
    ),
    { numRuns: 2000 },
  );
  expect(decodable).toBeGreaterThan(50);
});

test("a key given twice is found wherever it is, and by its name", () => {
  fc.assert(
    fc.property(fc.uniqueArray(key, { minLength: 1, maxLength: 6 }), fc.nat(), value, (keys, pick, item) => {
      const names = keys.map((name) => name.toWellFormed()).filter((name) => name !== "__proto__");
      fc.pre(names.length > 0 && new Set(names).size === names.length && isPlain(item));
      const twice = names[pick % names.length] as string;
      const members = [...names, twice].map((name) => `${JSON.stringify(name)}:${JSON.stringify(item)}`);
      const decoded = json.decode(Buffer.from(`[0,{"x":{${members.join(",")}}}]`));
      expect(decoded).toMatchObject({
        kind: "undecodable",
        issues: [{ message: expect.stringContaining(JSON.stringify(twice)) as string }],
      });
    }),
  );
});

test("the fast way and the exact one agree on arbitrary bytes", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 30 }),
        fc.array(character, { maxLength: 30 }).map((list) => Buffer.from(list.join(""))),
      ),
      (bytes) => {
        const decoded = json.decode(bytes);
        const text = Buffer.from(bytes).toString("utf8");
        const issue = Buffer.from(text).equals(bytes)
          ? findJsonIssue(text)
          : { path: "", message: "is not well-formed UTF-8" };
        expect(decoded).toEqual(
          issue === undefined
            ? { kind: "decoded", value: JSON.parse(text) as unknown }
            : { kind: "undecodable", issues: [issue] },
        );
      },
    ),
    { numRuns: 2000 },
  );
});
