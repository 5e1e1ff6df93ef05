import { expect, test } from "vitest";
import { createRandom } from "../../devices-sim/random.ts";
import { Rhythm } from "../../devices-sim/rhythm.ts";

const clockMs = 1_780_000_000_000;

const open = (jitter: number, waitMs?: () => number): Rhythm =>
  new Rhythm({
    options: { jitter, clockMs },
    sensor: { read: () => ({}), ...(waitMs !== undefined && { waitMs }) },
    intervalMs: 100,
    pace: 2,
    startsAtMs: 1000,
    random: createRandom(1),
  });

test("an interval varies by its jitter, and a phase makes it shorter", () => {
  const rhythm = open(0.5);
  const waits = Array.from({ length: 1000 }, () => rhythm.next(0, 1).waitMs);
  expect(Math.min(...waits)).toBeGreaterThanOrEqual(50);
  expect(Math.max(...waits)).toBeLessThanOrEqual(150);
  expect(Math.max(...waits) - Math.min(...waits)).toBeGreaterThan(90);
  expect(open(0).next(0, 4)).toEqual({ waitMs: 25, missed: 0 });
});

test("events come when the sensor says, at the device's pace", () => {
  expect(open(0.5, () => 70).next(0, 1)).toEqual({ waitMs: 140, missed: 0 });
});

test("a second late is caught up with, more is left out", () => {
  expect(open(0).next(1100, 1)).toEqual({ waitMs: 100, missed: 0 });
  expect(open(0).next(1250, 1)).toEqual({ waitMs: 1300, missed: 12 });
});

test("the device's own clock shows when a reading was due, also after those that were left out", () => {
  const rhythm = open(0);
  const first = rhythm.firstMs();
  expect(rhythm.now()).toBe(clockMs + 1000 + Math.round(first));
  rhythm.next(0, 1);
  rhythm.next(1250, 1);
  expect(rhythm.now()).toBe(clockMs + 1000 + Math.round(first + 100 + 1300));
});
