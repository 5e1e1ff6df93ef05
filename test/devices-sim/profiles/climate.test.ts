import { expect, test } from "vitest";
import { createSensor } from "../../../devices-sim/profiles/built-in.ts";
import { climate } from "../../../devices-sim/profiles/climate.ts";
import type { Metrics } from "../../../devices-sim/profiles/profile.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const NOON_MS = Date.UTC(2026, 5, 1, 12);

/** A day of readings, one a minute. */
function day(seed: number, index = 0): readonly Metrics[] {
  const sensor = createSensor(climate, seed, index);
  return Array.from({ length: 24 * 60 }, (_, minute) => sensor.read(NOON_MS + minute * MINUTE_MS));
}

const column = (rows: readonly Metrics[], name: string): number[] => rows.map((row) => row[name] ?? Number.NaN);
const steps = (values: readonly number[]): number[] =>
  values.slice(1).map((value, at) => Math.abs(value - (values[at] ?? 0)));
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

test("the same seed gives the same values, another seed or device gives others", () => {
  expect(day(7)).toEqual(day(7));
  expect(day(8)).not.toEqual(day(7));
  expect(day(7, 1)).not.toEqual(day(7, 0));
});

test.each([1, 2, 3, 4, 5])("a climate sensor moves like one (seed %i): small steps, plausible values", (seed) => {
  const rows = day(seed);
  const temperature = column(rows, "temperature");
  const humidity = column(rows, "humidity");
  expect(Math.max(...steps(temperature))).toBeLessThan(1);
  expect(mean(steps(temperature))).toBeGreaterThan(0.01);
  expect(Math.max(...steps(column(rows, "pressure")))).toBeLessThan(2.5);
  expect(Math.min(...temperature)).toBeGreaterThan(5);
  expect(Math.max(...temperature)).toBeLessThan(40);
  expect(Math.min(...humidity)).toBeGreaterThanOrEqual(5);
  expect(Math.max(...humidity)).toBeLessThanOrEqual(99);
  for (const row of rows) expect(row["dew_point"]).toBeLessThan(row["temperature"] ?? 0);
});

test("the afternoon is warmer than the night", () => {
  const nights = [1, 2, 3, 4, 5, 6, 7, 8].map((seed) => {
    const temperature = column(day(seed), "temperature");
    const afternoon = mean(temperature.slice(2 * 60, 4 * 60));
    const night = mean(temperature.slice(14 * 60, 16 * 60));
    return afternoon - night;
  });
  expect(mean(nights)).toBeGreaterThan(3);
});

test("the battery declines and never recovers", () => {
  const battery = column(day(3), "battery");
  expect(battery.at(-1)).toBeLessThan((battery[0] ?? 0) - 5);
  for (const [at, value] of battery.slice(1).entries()) expect(value).toBeLessThanOrEqual(battery[at] ?? 0);
});

test("a clock that steps back gives numbers all the same", () => {
  const sensor = createSensor(climate, 1, 1);
  sensor.read(NOON_MS);
  for (const value of Object.values(sensor.read(NOON_MS - HOUR_MS))) expect(value).not.toBeNaN();
});

test("a message is about 150 bytes", () => {
  const metrics = createSensor(climate, 1, 1).read(NOON_MS);
  const bytes = JSON.stringify({ ts: NOON_MS, seq: 12_345, metrics }).length;
  expect(bytes).toBeGreaterThan(130);
  expect(bytes).toBeLessThan(170);
});
