// Values that a stream may let pass and a destination may stumble over.

import { isDeepStrictEqual } from "node:util";
import { expect, test } from "vitest";
import { deliverAll, makeEntry, openContext, range, toBatch } from "./entries.ts";
import { readOnce, type SinkUnderTest } from "./sink-under-test.ts";

const SQL = `'; DROP TABLE readings; --`;

/** Beside `ts` and `text`, by name. */
const values: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  NUL: { text: "a\0b\0", "a\0b": 1 },
  "other control characters": { text: "\u0001\u001f\u007f\u0085\u2028\u2029\r\n\t" },
  "UTF-8 of four bytes": { text: "\u{1f600}\u{10ffff}", "\u{1f600}": "\u{10000}" },
  "a byte order mark and non-characters": { text: "\ufeffa\uffff\u{1ffff}" },
  "lone surrogates": { text: "\ud800a", "\udc00": "\udc00\ud800" },
  NaN: { value: Number.NaN },
  "1e400": { value: Number.parseFloat("1e400"), negative: Number.parseFloat("-1e400") },
  "-0": { value: -0 },
  "the largest and smallest numbers": { values: [Number.MAX_VALUE, Number.MIN_VALUE, -Number.MAX_VALUE, 2 ** 53 + 2] },
  "10,000 fields": Object.fromEntries(range(0, 10_000).map((index) => [`field-${index}`, index])),
  "SQL in names and text": { [SQL]: 1, [`a" = 1 OR "1" = "1`]: 2, $1: "$1", "a.b": "{a}", text: SQL },
  "quotes and backslashes": { [`"'\`\\`]: `"'\`\\`, text: `\\N\\.\\x00\\u0000 %s ? :a` },
  "names of Object.prototype": JSON.parse(
    `{"__proto__":{"polluted":true},"constructor":1,"toString":2}`,
  ) as object as never,
  "names of its own columns": { gateway: 1, offset: "a", time: null, device: {}, data: [], received_at: 0.5 },
  "names that differ in case, and an empty one": { name: 1, NAME: 2, "": 3, " ": 4 },
  "a text of a million characters": { text: "ü".repeat(1_000_000) },
  "nothing in it": { empty: {}, list: [], text: "", none: null },
  "a depth of 100": { deep: JSON.parse("[".repeat(100) + "]".repeat(100)) as unknown },
};

const devices = [
  SQL,
  `a"b\\c`,
  "ünï \u{1f600}",
  "a,b c=d",
  "a/b",
  "a\nb\tc",
  "{stream}",
  "__proto__",
  "x".repeat(1_000),
];

export function describeHostile(tested: SinkUnderTest): void {
  test("that writes or parks hostile values, each for itself, and all that is between them", async () => {
    const { keeps = (data) => data, parks = [], open } = tested;
    const context = await openContext();
    const names = Object.keys(values);
    const entries = names.flatMap((name, index) => [
      makeEntry(2 * index),
      makeEntry(2 * index + 1, { ts: 1, text: "", ...values[name] }),
    ]);
    await using sink = await open(context);
    const refused = await deliverAll(sink, toBatch(entries));
    const nameOf = (offset: number): string => names[(offset - 1) / 2] ?? `what is harmless, at offset ${offset}`;
    expect(refused.map(({ offset }) => nameOf(offset))).toEqual(parks);
    const found = new Map((await readOnce(tested, context)).map(({ offset, data }) => [offset, data]));
    const parked = new Set<number>(refused.map(({ offset }) => offset));
    expect([...found.keys()]).toEqual(entries.map(({ offset }) => offset).filter((offset) => !parked.has(offset)));
    const differing = entries.filter(({ offset, reading }) => {
      const kept = keeps(JSON.parse(JSON.stringify(reading.data)));
      return !parked.has(offset) && !isDeepStrictEqual(found.get(offset), kept);
    });
    expect(differing.map(({ offset }) => nameOf(offset))).toEqual([]);
  });

  test("that writes hostile device ids and topics", async () => {
    const context = await openContext();
    const entries = devices.map((deviceId, offset) => {
      const entry = makeEntry(offset);
      return { ...entry, reading: { ...entry.reading, deviceId, topic: `devices/'"\\;--\u{1f600}/telemetry` } };
    });
    await using sink = await tested.open(context);
    expect(await deliverAll(sink, toBatch(entries))).toEqual([]);
    expect((await readOnce(tested, context)).map(({ device }) => device)).toEqual(devices);
  });
}
