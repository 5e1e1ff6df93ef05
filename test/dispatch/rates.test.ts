import { expect, test } from "vitest";
import { createRateMeter, toEtaSeconds } from "../../src/dispatch/rates.ts";

test("a rate comes near to a steady one within half a minute, and down again", () => {
  const meter = createRateMeter();
  meter.sample(500, 0);
  expect(meter.perSecond).toBe(0);
  for (let second = 1; second <= 30; second += 1) meter.sample(500 + second * 1_000, second * 1_000);
  expect(meter.perSecond).toBeGreaterThan(940);
  expect(meter.perSecond).toBeLessThan(1_000);
  for (let second = 31; second <= 90; second += 1) meter.sample(30_500, second * 1_000);
  expect(meter.perSecond).toBeLessThan(3);
});

test("a position that goes back, as after another journal, and two samples at once are no rate", () => {
  const meter = createRateMeter();
  meter.sample(1_000, 0);
  meter.sample(10, 1_000);
  meter.sample(20, 1_000);
  expect(meter.perSecond).toBe(0);
});

test("a lag has an end only when more goes out than comes in", () => {
  expect(toEtaSeconds(0, 0, 100)).toBe(0);
  expect(toEtaSeconds(1_000, 300, 100)).toBe(5);
  expect(toEtaSeconds(1_000, 100, 100)).toBeUndefined();
});
