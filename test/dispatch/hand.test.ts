import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { type Hand, type HandOptions, openHand } from "../../src/dispatch/hand.ts";
import { toOffset } from "../../src/reading.ts";
import { test } from "../fixtures.ts";

const at = toOffset;

function open(dir: string, options: Partial<HandOptions> = {}): Hand {
  const file = join(dir, "handlers", "alarm.hand");
  const hand = openHand({ file, gateway: "ab".repeat(16), places: 2, from: at(0), forgiven: false, ...options });
  onTestFinished(() => hand[Symbol.dispose]());
  return hand;
}

test("counts how often an entry was in hand at the end of a worker, until it is done", ({ dir }) => {
  const first = open(dir);
  first.take(at(0));
  first.take(at(1));
  first.release(at(0));
  const second = open(dir);
  expect([second.endings(at(0)), second.endings(at(1))]).toEqual([0, 1]);
  second.take(at(1));
  const third = open(dir);
  expect(third.endings(at(1))).toBe(2);
  third.take(at(1));
  third.release(at(1));
  expect(open(dir).endings(at(1))).toBe(0);
});

test("remembers those that have not been called again yet, beside as many as may be in hand", ({ dir }) => {
  const first = open(dir);
  first.take(at(3));
  first.take(at(5));
  const second = open(dir, { places: 1 });
  second.take(at(4));
  const third = open(dir);
  expect([3, 4, 5].map((offset) => third.endings(at(offset)))).toEqual([1, 1, 1]);
  third.take(at(3));
  third.take(at(6));
  third.take(at(7));
  expect(() => third.take(at(8))).toThrow("more than 2 entries");
});

test("blames nobody for an end that was wanted, but keeps what was counted before", ({ dir }) => {
  const first = open(dir);
  first.take(at(1));
  const second = open(dir);
  second.take(at(1));
  second.take(at(2));
  second.forgive();
  const third = open(dir);
  expect([third.endings(at(1)), third.endings(at(2))]).toEqual([1, 0]);
  third.take(at(1));
  third.take(at(3));
  third.forgive(at(3));
  third.take(at(4)); // in the place of none that is forgiven
  const fourth = open(dir);
  expect([fourth.endings(at(1)), fourth.endings(at(3))]).toEqual([1, 1]);
  expect(open(dir, { forgiven: true }).endings(at(1))).toBe(0);
});

test("says nothing of what is done, of another journal, and of what a power cut has left", ({ dir }) => {
  const first = open(dir);
  first.take(at(1));
  first.take(at(9));
  const file = join(dir, "handlers", "alarm.hand");
  const bytes = readFileSync(file);
  expect([1, 9].map((offset) => open(dir, { from: at(5) }).endings(at(offset)))).toEqual([0, 1]);
  writeFileSync(file, bytes);
  expect(open(dir, { gateway: "cd".repeat(16) }).endings(at(9))).toBe(0);
  writeFileSync(file, bytes.fill(0, 60));
  expect([1, 9].map((offset) => open(dir).endings(at(offset))).toSorted((a, b) => a - b)).toEqual([0, 1]);
  writeFileSync(file, "");
  expect(open(dir).endings(at(9))).toBe(0);
});
