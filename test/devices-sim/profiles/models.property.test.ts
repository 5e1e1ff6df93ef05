import { array, assert, integer, oneof, property } from "fast-check";
import { describe, expect, test } from "vitest";
import { createSensor, profileNames, profiles } from "../../../devices-sim/profiles/built-in.ts";
import type { Metrics, Profile } from "../../../devices-sim/profiles/profile.ts";

const HOUR_MS = 3_600_000;
const START_MS = Date.UTC(2026, 5, 1, 6);

interface Reading {
  readonly atMs: number;
  readonly metrics: Metrics;
}

/** Readings of one device, so many milliseconds after each other. */
function readings(profile: Profile, seed: number, gapsMs: readonly number[]): readonly Reading[] {
  const sensor = createSensor(profile, seed, 0);
  let atMs = START_MS;
  return [0, ...gapsMs].map((gapMs) => {
    atMs += gapMs;
    const metrics = sensor.read(atMs);
    sensor.waitMs?.();
    return { atMs, metrics };
  });
}

const seed = integer({ min: 0, max: 2 ** 32 - 1 });
/** From the usual second to an outage of hours, and now and then a clock that steps back. */
const gap = oneof(
  { weight: 20, arbitrary: integer({ min: 1, max: 20_000 }) },
  { weight: 3, arbitrary: integer({ min: 20_000, max: 4 * HOUR_MS }) },
  { weight: 1, arbitrary: integer({ min: -60_000, max: 0 }) },
);
const gaps = array(gap, { minLength: 1, maxLength: 300, size: "max" });

const value = ({ metrics }: Reading, name: string): number => metrics[name] ?? Number.NaN;

const mean = (rows: readonly Reading[], name: string): number =>
  rows.reduce((sum, row) => sum + value(row, name), 0) / rows.length;

/** What must hold for each pair of readings that follow each other. */
function holds(
  profile: Profile,
  check: (before: Reading, after: Reading, seconds: number) => void,
  numRuns = 60,
): void {
  assert(
    property(seed, gaps, (one, times) => {
      const rows = readings(profile, one, times);
      for (const [at, after] of rows.entries()) {
        const before = rows[at - 1];
        if (before !== undefined) check(before, after, Math.max(0, after.atMs - before.atMs) / 1000);
      }
    }),
    { numRuns },
  );
}

/** Names of metrics and the least and greatest value that they may have. */
const bounds: Readonly<Record<keyof typeof profiles, Readonly<Record<string, readonly [number, number]>>>> = {
  climate: { temperature: [0, 45], humidity: [5, 99], battery: [0, 100] },
  power: {
    voltage_l1: [205, 245],
    voltage_l2: [205, 245],
    voltage_l3: [205, 245],
    power_factor_l1: [0.5, 1],
    power_l1: [0, 12_000],
    current_l1: [0, 60],
    frequency: [49.8, 50.2],
  },
  vehicle: { speed: [0, 90.01], heading: [0, 360], fuel: [0, 100], acceleration: [-3.01, 2.21] },
  machine: {
    running: [0, 1],
    rpm: [0, 6000],
    vibration_rms: [0, 40],
    kurtosis: [1.5, 20],
    temperature: [10, 70],
  },
  door: { open: [0, 1], motion: [0, 1], illuminance: [0, 2000], battery: [0, 100] },
  battery: { voltage: [14 * 2.6, 14 * 4.4], soc: [0, 100], soh: [50, 100], temperature: [-10, 75], charging: [0, 1] },
};

/** Counters: they never fall, whatever happens to clock and connection. */
const counters: Readonly<Record<keyof typeof profiles, readonly string[]>> = {
  climate: [],
  power: ["energy_l1", "energy_l2", "energy_l3", "energy"],
  vehicle: ["odometer"],
  machine: ["running_hours"],
  door: ["openings"],
  battery: ["cycles"],
};

describe.each(profileNames)("the profile %s", (name) => {
  const profile: Profile = profiles[name];

  test("gives the same values for the same seed and times, and others for another device", () => {
    assert(
      property(seed, gaps, (one, times) => {
        expect(JSON.stringify(readings(profile, one, times))).toBe(JSON.stringify(readings(profile, one, times)));
      }),
      { numRuns: 20 },
    );
    const first = createSensor(profile, 1, 0).read(START_MS);
    expect(createSensor(profile, 1, 1).read(START_MS)).not.toEqual(first);
  });

  test("has in each reading the metrics that it names, in their order, each a finite number", () => {
    holds(profile, (_before, after) => {
      expect(Object.keys(after.metrics)).toEqual(Object.keys(profile.metrics));
      for (const each of Object.values(after.metrics)) expect(Number.isFinite(each)).toBe(true);
    });
  });

  test("stays within what is physically possible", () => {
    holds(profile, (_before, after) => {
      for (const [metric, [low, high]] of Object.entries(bounds[name])) {
        expect(value(after, metric), metric).toBeGreaterThanOrEqual(low);
        expect(value(after, metric), metric).toBeLessThanOrEqual(high);
      }
    });
  });

  test.runIf(counters[name].length > 0)("has counters that never fall", () => {
    holds(profile, (before, after) => {
      for (const metric of counters[name]) {
        expect(value(after, metric), metric).toBeGreaterThanOrEqual(value(before, metric));
      }
    });
  });
});

test("a meter counts the energy that it shows as power, also over an outage", () => {
  holds(profiles.power, (before, after, seconds) => {
    const watts = (value(before, "power") + value(after, "power")) / 2;
    expect(value(after, "energy") - value(before, "energy")).toBeCloseTo((watts / 1000) * (seconds / 3600), 2);
    for (const phase of ["l1", "l2", "l3"]) {
      const apparent = value(after, `voltage_${phase}`) * value(after, `current_${phase}`);
      expect((apparent * value(after, `power_factor_${phase}`)) / value(after, `power_${phase}`)).toBeCloseTo(1, 2);
    }
  });
});

test("a vehicle is where its speed and odometer take it", () => {
  holds(profiles.vehicle, (before, after, seconds) => {
    const driven = (value(after, "odometer") - value(before, "odometer")) * 1000;
    expect(driven).toBeLessThanOrEqual((90 / 3.6) * seconds + 1);
    expect(distance(before, after)).toBeLessThanOrEqual(driven + 1.5);
    if (seconds > 1) return;
    const faster = (value(after, "speed") - value(before, "speed")) / 3.6;
    expect(faster).toBeLessThanOrEqual(2.2 * seconds + 0.03);
    expect(faster).toBeGreaterThanOrEqual(-3 * seconds - 0.03);
    const speed = (value(after, "speed") + value(before, "speed")) / 2 / 3.6;
    expect(Math.abs(driven - speed * seconds)).toBeLessThan(1.5);
  });
});

test("a vehicle drives about a town for days: it moves, it stops, it turns, and it does not get lost", () => {
  const rows = readings(
    profiles.vehicle,
    5,
    Array.from({ length: 20_000 }, () => 5000),
  );
  const [start] = rows;
  if (start === undefined) throw new Error("no readings");
  const speeds = rows.map((row) => value(row, "speed"));
  const still = speeds.filter((speed) => speed === 0).length / rows.length;
  expect(still).toBeGreaterThan(0.02);
  expect(still).toBeLessThan(0.7);
  expect(Math.max(...speeds)).toBeGreaterThan(45);
  expect(Math.max(...rows.map((row) => distance(start, row)))).toBeLessThan(25_000);
  expect(Math.min(...rows.map((row) => value(row, "fuel")))).toBeGreaterThan(0);
  expect(new Set(rows.map((row) => Math.floor(value(row, "heading") / 45))).size).toBe(8);
});

test("the peaks of a machine are above its RMS, and at rest it hardly vibrates", () => {
  holds(profiles.machine, (_before, after) => {
    expect(value(after, "vibration_peak")).toBeGreaterThan(value(after, "vibration_rms") * 2);
    expect(value(after, "vibration_rms")).toBeLessThan(value(after, "rpm") === 0 ? 0.1 : 40);
  });
});

test("a bearing fails: kurtosis first, the RMS later, and kurtosis falls as the damage spreads", () => {
  const rows = readings(
    profiles.machine,
    3,
    Array.from({ length: 30_000 }, () => 30_000),
  ).filter((row) => value(row, "rpm") > 2000);
  const tenths = Array.from({ length: 10 }, (_, at) =>
    rows.slice((rows.length * at) / 10, (rows.length * (at + 1)) / 10),
  );
  const kurtosis = tenths.map((part) => mean(part, "kurtosis"));
  const rms = tenths.map((part) => mean(part, "vibration_rms"));
  const worst = Math.max(...kurtosis);
  expect(kurtosis[0]).toBeLessThan(4.5);
  expect(worst).toBeGreaterThan(8);
  expect(kurtosis.at(-1)).toBeLessThan(worst / 2);
  expect(rms.at(-1)).toBeGreaterThan((rms[0] ?? 0) * 3);
});

test("a door opens only after it was closed, counts each opening, and sends as often as it says on average", () => {
  const sensor = createSensor(profiles.door, 9, 0);
  let [atMs, waits, open, longest, wrong] = [START_MS, 0, 0, 0, 0];
  let openings = sensor.read(START_MS)["openings"] ?? 0;
  const count = 60_000;
  for (let at = 0; at < count; at += 1) {
    const metrics = sensor.read(atMs);
    const opened = metrics["open"] === 1 && open === 0;
    openings += opened ? 1 : 0;
    if (metrics["openings"] !== openings || (opened && metrics["motion"] !== 1)) wrong += 1;
    open = metrics["open"] ?? 0;
    const waitMs = sensor.waitMs?.() ?? Number.NaN;
    expect(waitMs).toBeGreaterThan(0);
    [atMs, waits, longest] = [atMs + waitMs, waits + waitMs, Math.max(longest, waitMs)];
  }
  expect(waits / count / profiles.door.intervalMs).toBeCloseTo(1, 1);
  expect(longest).toBe(300_000);
  expect(wrong).toBe(0);
});

test("a battery lives: it is discharged and charged, each charge is a cycle, and the voltage sags under load", () => {
  const rows = readings(
    profiles.battery,
    4,
    Array.from({ length: 20_000 }, () => 60_000),
  );
  const [first, last] = [rows[0], rows.at(-1)];
  if (first === undefined || last === undefined) throw new Error("no readings");
  const cycles = value(last, "cycles") - value(first, "cycles");
  expect(cycles).toBeGreaterThan(20);
  expect(value(last, "soh")).toBeLessThan(value(first, "soh"));
  expect(Math.min(...rows.map((row) => value(row, "soc")))).toBeGreaterThan(5);
  for (const [at, row] of rows.entries()) {
    expect(Math.sign(value(row, "current"))).toBe(value(row, "charging") === 1 ? 1 : -1);
    const before = rows[at - 1];
    if (before === undefined || value(before, "charging") !== value(row, "charging")) continue;
    const rise = value(row, "soc") - value(before, "soc");
    expect(Math.sign(Math.round(rise * 100)) * value(row, "current")).toBeGreaterThanOrEqual(0);
  }
  const halfFull = rows.filter((row) => Math.abs(value(row, "soc") - 50) < 2);
  const voltage = (charging: number): number => {
    const part = halfFull.filter((row) => value(row, "charging") === charging);
    return mean(part, "voltage");
  };
  expect(voltage(1)).toBeGreaterThan(voltage(0) + 1);
});

/** Metres between two positions that are near each other. */
function distance(from: Reading, to: Reading): number {
  const north = (value(to, "latitude") - value(from, "latitude")) * 111_320;
  const shrink = Math.cos((value(from, "latitude") * Math.PI) / 180);
  return Math.hypot(north, (value(to, "longitude") - value(from, "longitude")) * 111_320 * shrink);
}
