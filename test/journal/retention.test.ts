import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  countDeletable,
  type RetentionRules,
  type StoredSegment,
  type StoreState,
} from "../../src/journal/retention.ts";
import { toOffset } from "../../src/reading.ts";

/** Segments of 100 B and 10 records, the oldest written at 1,000 ms and each next 1,000 ms later. */
const segments = (count: number): StoredSegment[] =>
  Array.from({ length: count }, (_, index) => ({
    end: toOffset((index + 1) * 10),
    bytes: 100,
    endedMs: (index + 1) * 1000,
  }));

const rules = (given: Partial<RetentionRules> = {}): RetentionRules => ({
  maxBytes: 10_000,
  whenFull: "hold",
  retain: {},
  ...given,
});

const state = (released: number, given: Partial<StoreState> = {}): StoreState => ({
  otherBytes: 0,
  released: toOffset(released),
  keepFrom: Infinity,
  nowMs: 10_000,
  lackingBytes: 0,
  ...given,
});

describe("what has been read", () => {
  test("goes at once, a whole segment at a time", () => {
    expect(countDeletable(segments(5), state(29), rules())).toBe(2);
    expect(countDeletable(segments(5), state(30), rules())).toBe(3);
    expect(countDeletable(segments(5), state(0), rules())).toBe(0);
  });

  test("stays for replay while it is young enough", () => {
    expect(countDeletable(segments(5), state(50), rules({ retain: { time: 7_500 } }))).toBe(2);
  });

  test("stays for replay while it is little enough, the youngest first", () => {
    expect(countDeletable(segments(5), state(40), rules({ retain: { bytes: 250 } }))).toBe(2);
    expect(countDeletable(segments(5), state(40), rules({ retain: { bytes: 99 } }))).toBe(4);
  });

  test("must be young and little enough when both are asked for", () => {
    const retain = { time: 7_500, bytes: 350 };
    expect(countDeletable(segments(5), state(50), rules({ retain }))).toBe(2);
    expect(countDeletable(segments(5), state(50), rules({ retain: { ...retain, bytes: 150 } }))).toBe(4);
  });

  test("stays from where the next start wants it, until its room is needed", () => {
    expect(countDeletable(segments(5), state(50, { keepFrom: 30 }), rules())).toBe(3);
    expect(countDeletable(segments(5), state(50, { keepFrom: 29 }), rules())).toBe(2);
    expect(countDeletable(segments(5), state(20, { keepFrom: 30 }), rules())).toBe(2);
    expect(countDeletable(segments(5), state(50, { keepFrom: 0 }), rules({ maxBytes: 400 }))).toBe(2);
  });

  test("does not stay when its room is needed, in the journal or on the disk", () => {
    const retain = { time: 1_000_000 };
    expect(countDeletable(segments(5), state(50), rules({ retain, maxBytes: 400 }))).toBe(2);
    expect(countDeletable(segments(5), state(50, { lackingBytes: 101 }), rules({ retain }))).toBe(2);
  });
});

describe("what has not been read", () => {
  test("stays, however full it is, when the journal is to hold", () => {
    const full = state(10, { otherBytes: 9_999, lackingBytes: 9_999 });
    expect(countDeletable(segments(5), full, rules({ maxBytes: 1000 }))).toBe(1);
  });

  test("goes as far as room is needed, when the journal is to expire", () => {
    const expire = rules({ whenFull: "expire", maxBytes: 400 });
    expect(countDeletable(segments(5), state(0), expire)).toBe(2);
    expect(countDeletable(segments(3), state(0), expire)).toBe(0);
    expect(countDeletable(segments(5), state(0, { lackingBytes: 350 }), rules({ whenFull: "expire" }))).toBe(4);
  });
});

test("nothing goes that could stay, for any state", () => {
  const arbitrary = fc.record({
    count: fc.integer({ min: 0, max: 12 }),
    released: fc.integer({ min: 0, max: 130 }),
    otherBytes: fc.integer({ min: 0, max: 500 }),
    lackingBytes: fc.integer({ min: 0, max: 500 }),
    maxBytes: fc.integer({ min: 100, max: 2000 }),
    whenFull: fc.constantFrom("hold" as const, "expire" as const),
    time: fc.option(fc.integer({ min: 0, max: 12_000 }), { nil: undefined }),
    bytes: fc.option(fc.integer({ min: 0, max: 1500 }), { nil: undefined }),
  });
  fc.assert(
    fc.property(arbitrary, ({ count, released, otherBytes, lackingBytes, maxBytes, whenFull, time, bytes }) => {
      const all = segments(count);
      const given = rules({ maxBytes, whenFull, retain: { time, bytes } });
      const deleted = countDeletable(all, state(released, { otherBytes, lackingBytes }), given);
      const isRead = ({ end }: StoredSegment): boolean => end <= released;
      const mayAllGo = whenFull === "expire" || all.slice(0, deleted).every(isRead);
      // Without the last that went, something would be left undone.
      const last = all[deleted - 1];
      const left = otherBytes + (count - deleted + 1) * 100;
      const roomNeeded = left > (7 / 8) * maxBytes || lackingBytes > (deleted - 1) * 100;
      const readBytes = all.slice(Math.max(0, deleted - 1)).filter(isRead).length * 100;
      const tooOld = time !== undefined && last !== undefined && 10_000 - last.endedMs >= time;
      const tooMuch = bytes !== undefined && readBytes > bytes;
      const retained = !((time === undefined && bytes === undefined) || tooOld || tooMuch);
      const needed = last === undefined || roomNeeded || (isRead(last) && !retained);
      expect([mayAllGo, needed]).toEqual([true, true]);
    }),
  );
});
