import { Buffer } from "node:buffer";
import { describe, expect, test } from "vitest";
import type { Decoded } from "../../src/decode/codec.ts";
import { json } from "../../src/decode/json.ts";

const decode = (payload: string | readonly number[]): Decoded => json.decode(Buffer.from(payload as string, "utf8"));
const nest = (depth: number): string => "[".repeat(depth) + "]".repeat(depth);

describe("json decodes", () => {
  test.for<[string, string]>([
    ["a reading", '{"ts":1700000000000,"seq":1,"metrics":{"temperature":21.5,"humidity":40}}'],
    ["a bare number", "21.5"],
    ["a bare string", '"on"'],
    ["null", " null\r\n"],
    ["empty containers", '{"a":[],"b":{}}'],
    ["blanks everywhere", ' {\t"a" :\n[ 1 , 2 ] } '],
    ["braces and colons in strings", '{"a:{[":"}]:,","b":":"}'],
    ["every escape", String.raw`{"\"\\\/\b\f\n\r\t\u00e9":"\ud83d\ude00"}`],
    ["every kind of value, with an escape", String.raw`{"\u0061":[true,false,null,[],{},[0],{"a":-1.5e3}]}`],
    ["text outside ASCII", '{"größe":"😀"}'],
    ["U+0000 in a string", String.raw`"\u0000"`],
    ["the same key in different objects", '{"a":{"a":1},"b":[{"a":1},{"a":2}]}'],
    ["keys that look like numbers", '{"10":1,"2":2,"-1":3}'],
    ["names that objects inherit", '{"constructor":1,"toString":2,"hasOwnProperty":3}'],
    ["nesting of 64", nest(64)],
    ["numbers at the bounds of a double", "[1.7976931348623157e308,-0,5e-324,1e-999,0.1E+1]"],
    ["many digits", "1".repeat(300)],
  ])("%s as JSON.parse does", ([, payload]) => {
    expect(decode(payload)).toEqual({ kind: "decoded", value: JSON.parse(payload) as unknown });
  });

  test("a payload that is a view into a larger buffer, of any kind of byte array", () => {
    const around = Buffer.from('xx{"a":1}xx');
    expect(json.decode(around.subarray(2, 9))).toEqual({ kind: "decoded", value: { a: 1 } });
    const bytes = new Uint8Array(around).subarray(2, 9);
    expect(json.decode(bytes)).toEqual({ kind: "decoded", value: { a: 1 } });
  });

  test("into a value that does not change with the buffer", () => {
    const payload = Buffer.from('{"name":"a string that is long enough to be shared"}');
    const decoded = json.decode(payload);
    payload.fill(0x20);
    expect(decoded).toMatchObject({ value: { name: "a string that is long enough to be shared" } });
  });
});

describe("json refuses", () => {
  test.for<[string, string | readonly number[], string, RegExp]>([
    ["an empty payload", "", "", /the payload is empty/],
    ["blanks alone", "  ", "", /ends at character 2, where a value was expected/],
    ["a byte order mark", "\uFEFF{}", "", /byte order mark/],
    ["malformed UTF-8", [0x22, 0xc3, 0x28, 0x22], "", /UTF-8/],
    ["UTF-16", [0xff, 0xfe, 0x7b, 0, 0x7d, 0], "", /UTF-8/],
    ["an overlong form", [0x22, 0xc0, 0xaf, 0x22], "", /UTF-8/],
    ["text", "hello", "", /"h" at character 0/],
    ["a cut payload", '{"a":1', "", /ends at character 6, where a comma or } was expected/],
    ["a cut string", '{"a', "", /ends at character 3, where the end of a string/],
    ["a comma too many", '{"a":1,}', "", /"}" at character 7, where a key/],
    ["a comma too many in a list", "[1,]", "", /"]" at character 3/],
    ["a cut list", "[1", "", /ends at character 2, where a comma or ]/],
    ["a list without commas", "[1 2]", "", /"2" at character 3, where a comma or ]/],
    ["a key without quotes", "{a:1}", "", /"a" at character 1/],
    ["a missing colon", '{"a" 1}', "", /"1" at character 5, where a colon/],
    ["single quotes", "{'a':1}", "", /"'" at character 1/],
    ["two values", "1 2", "", /"2" at character 2, where nothing after the value/],
    ["a comment", "1 // one", "", /"\/" at character 2/],
    ["NaN", "NaN", "", /"N" at character 0/],
    ["a leading zero", "[01]", "", /"1" at character 2/],
    ["a bare decimal point", "[1.]", "", /"\." at character 2/],
    ["an unknown escape", String.raw`"\x41"`, "", /"\\\\" at character 1, where an escape/],
    ["a line end in a string", '"a\nb"', "", /"\\n" at character 2/],
    ["a half word", "[tru]", "", /"t" at character 1/],
    ["an astral character where none belongs", "😀", "", /"😀" at character 0/],
    ["a number that is too large", '{"a":[0,1e999]}', "a[1]", /number at character 8 is too large/],
    ["a number that is too large for a member", '{"a":1e999}', "a", /number at character 5 is too large/],
    ["a number that is too small", "-1e400", "", /too large/],
    ["a number with too many digits", "1".repeat(310), "", /too large/],
    ["a key given twice", '{"a":1,"b":2,"a":3}', "a", /the key "a" is given twice \(character 13\)/],
    ["a key given twice inside", '{"m":[{},{"t":1,"t":1}]}', "m[1].t", /"t" is given twice/],
    ["a key given twice, once escaped", String.raw`{"a":1,"\u0061":2}`, "a", /given twice/],
    ["a key given twice outside ASCII", '{"é b":1,"é b":2}', '["é b"]', /given twice/],
    ["the key __proto__", '{"a":{"__proto__":{"x":1}}}', "a.__proto__", /__proto__ is not allowed/],
    ["the key __proto__, escaped", String.raw`{"\u005f_proto__":1}`, "__proto__", /__proto__ is not allowed/],
    ["the key __proto__ in a list", '[[{"__proto__":1}]]', "[0][0].__proto__", /__proto__/],
    ["an unpaired surrogate", String.raw`{"a":"\ud800"}`, "a", /unpaired surrogate/],
    ["nesting of 65", nest(65), "", /nested deeper than 64 at character 64/],
    ["nesting that would exhaust the stack", "[".repeat(200_000), "", /nested deeper than 64/],
    ["nesting that hides behind a string", `["[",${nest(64)}]`, "", /nested deeper than 64/],
  ])("%s, and says where", ([, payload, path, message]) => {
    const decoded = decode(payload);
    expect(decoded).toEqual({
      kind: "undecodable",
      issues: [{ path, message: expect.stringMatching(message) as string }],
    });
  });
});
