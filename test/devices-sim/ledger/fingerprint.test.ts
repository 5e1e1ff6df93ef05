import { assert, jsonValue, property } from "fast-check";
import { expect, test } from "vitest";
import { fingerprintOfPayload, fingerprintOfValue } from "../../../devices-sim/ledger/fingerprint.ts";

test("order of fields, white space and the way a number is written make no difference", () => {
  const print = fingerprintOfPayload('{"a":1,"b":{"c":[21.5,-0],"d":"x"}}');
  expect(fingerprintOfPayload(' { "b": { "d": "\\u0078", "c": [2.150e1, 0] }, "a": 1.0 }\n')).toBe(print);
  expect(fingerprintOfPayload(Buffer.from('{"b":{"c":[21.5,0],"d":"x"},"a":1}'))).toBe(print);
});

test.each([
  ['{"a":1}', '{"a":2}'],
  ['{"a":1}', '{"a":"1"}'],
  ['{"a":null}', "{}"],
  ["[1,2]", "[2,1]"],
  ["[[1],2]", "[1,[2]]"],
  ['{"__proto__":1}', "{}"],
  ["", "null"],
  ["{", "{ "],
])("%s and %s are told apart", (one, other) => {
  expect(fingerprintOfPayload(one)).not.toBe(fingerprintOfPayload(other));
});

test("what is no JSON is known by its bytes, as text or not", () => {
  expect(fingerprintOfPayload('{"ts":1')).toBe(fingerprintOfPayload(Buffer.from('{"ts":1')));
  const deep = "[".repeat(100_000) + "]".repeat(100_000);
  expect(fingerprintOfPayload(deep)).toBe(fingerprintOfPayload(Buffer.from(deep)));
});

test("a value that went through JSON is the same, and every print is a whole number below 2^52", () => {
  assert(
    property(jsonValue(), (value) => {
      const print = fingerprintOfPayload(JSON.stringify(value));
      expect(print).toBe(fingerprintOfValue(JSON.parse(JSON.stringify(value, undefined, 2))));
      expect(Number.isInteger(print) && print >= 0 && print < 2 ** 52).toBe(true);
    }),
  );
});
