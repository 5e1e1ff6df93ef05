import * as fc from "fast-check";
import { expect, test } from "vitest";
import { KeyWindow, toDigest } from "../../src/intake/key-window.ts";
import { toOffset } from "../../src/reading.ts";

/** Every key with its offset, the latest last: what a memory without bounds would know. */
class Model {
  readonly #keys: string[] = [];

  remember(key: string): void {
    this.#keys.push(key);
  }

  offset(key: string): number {
    return this.#keys.lastIndexOf(key);
  }

  /** Whether it is among the last `count` that were remembered. */
  isAmong(key: string, count: number): boolean {
    return this.#keys.slice(-count).includes(key);
  }
}

test("knows the last keys, at least as many as asked for and at most twice as many, and nothing else", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 8 }), fc.array(fc.nat(30), { maxLength: 200 }), (window, ids) => {
      const keys = new KeyWindow(window);
      const model = new Model();
      for (const id of ids) {
        const key = `k${id}`;
        const found = keys.find(key);
        const known = model.isAmong(key, 2 * window) ? [model.offset(key)] : [];
        const unknown = model.isAmong(key, window) ? [] : [undefined];
        expect([...known, ...unknown]).toContain(found);
        if (found !== undefined) continue;
        model.remember(key);
        keys.remember(key, toOffset(model.offset(key)));
        const held = keys.generations().reduce((sum, { size }) => sum + size, 0);
        expect(held).toBeLessThanOrEqual(2 * window);
      }
    }),
  );
});

test("what it shows of itself stays as it was when more is remembered", () => {
  const keys = new KeyWindow(3);
  for (const key of ["a", "b", "c", "d"]) keys.remember(key, toOffset(1));
  const shown = keys.generations();
  for (const key of ["e", "f", "g", "h"]) keys.remember(key, toOffset(1));
  expect(shown.map(({ offsets, size }) => [...offsets.keys()].slice(0, size))).toEqual([["a", "b", "c"], ["d"]]);
});

test("a key takes the same room however long it is, and is that of one device", () => {
  const digests = [toDigest("a", "bc"), toDigest("ab", "c"), toDigest("a", "bc".repeat(10_000)), toDigest("a", "")];
  expect(digests.map((digest) => digest.length)).toEqual([32, 32, 32, 32]);
  expect(new Set(digests).size).toBe(4);
});
