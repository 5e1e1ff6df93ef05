import { afterEach, expect, test, vi } from "vitest";
import { toInvalidPlans, type FaultName } from "../../../devices-sim/faults/built-in.ts";
import { DeviceFaults } from "../../../devices-sim/faults/device-faults.ts";
import type { FaultPlan, Link } from "../../../devices-sim/faults/fault.ts";
import type { Phase } from "../../../devices-sim/scenarios/scenario.ts";
import { Schedule } from "../../../devices-sim/schedule.ts";

afterEach(() => {
  vi.useRealTimers();
});

const phaseOf = (...faults: readonly FaultPlan<FaultName>[]): Phase => ({
  name: "",
  durationMs: Infinity,
  rate: 1,
  faults,
});

const none = (): undefined => undefined;

interface Trial {
  readonly faults: DeviceFaults;
  readonly schedule: Schedule;
  /** What was done to the link, with the time in seconds. */
  readonly done: readonly string[];
  readonly link: Link;
}

/** A device whose connection does nothing. Before it: `vi.useFakeTimers()`, when time matters. */
function open(index = 0, seed = 42): Trial {
  const schedule = new Schedule();
  const startMs = schedule.now();
  const done: string[] = [];
  const note = (what: string) => (): void => {
    done.push(`${what} ${((schedule.now() - startMs) / 1000).toFixed(1)}`);
  };
  const link = { leave: note("leave"), comeBack: note("back"), reset: note("reset") } as unknown as Link;
  const faults = new DeviceFaults({ seed, index, schedule, onFault: () => {} });
  return { faults, schedule, done, link };
}

test("the share of spoilt messages is what was asked for, every kind about as often", () => {
  const { faults } = open();
  faults.enter(phaseOf(...toInvalidPlans(0.1)), 0, 0, none);
  const counts = new Map<string, number>();
  for (let i = 0; i < 50_000; i += 1) {
    const name = faults.drawMessage()?.name;
    if (name !== undefined) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  expect([...counts.keys()].sort()).toEqual(
    toInvalidPlans(1)
      .map(({ name }) => name)
      .sort(),
  );
  for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
});

test("without faults nothing is spoilt, with a share of 1 everything", () => {
  const [never, always] = [open().faults, open().faults];
  never.enter(phaseOf(), 0, 0, none);
  always.enter(phaseOf({ name: "empty", share: 0.4 }, { name: "duplicate", share: 0.6 }), 0, 0, none);
  for (let i = 0; i < 1000; i += 1) {
    expect(never.drawMessage()).toBeUndefined();
    expect(always.drawMessage()).toBeDefined();
  }
});

test("a clock fault concerns its share of the devices, each in its own way, and ends with its phase", () => {
  const offsets = Array.from({ length: 200 }, (_, index) => {
    const { faults } = open(index);
    faults.enter(phaseOf({ name: "clock-skew", share: 0.25 }), 0, 0, none);
    const offset = faults.toDeviceTime(1e12) - 1e12;
    expect(faults.toDeviceTime(2e12) - 2e12).toBe(offset);
    faults.enter(phaseOf(), 1, 0, none);
    expect(faults.toDeviceTime(1e12)).toBe(1e12);
    return offset;
  });
  const wrong = offsets.filter((offset) => offset !== 0);
  expect(Math.abs(wrong.length - 50)).toBeLessThan(20);
  expect(new Set(wrong).size).toBe(wrong.length);
});

test("a clock drifts more and more", () => {
  const { faults } = open();
  faults.enter(phaseOf({ name: "clock-drift", share: 1 }), 0, 0, none);
  expect(faults.toDeviceTime(1e12)).toBe(1e12);
  const afterHour = faults.toDeviceTime(1e12 + 3_600_000) - 1e12 - 3_600_000;
  expect(Math.abs(afterHour)).toBeGreaterThan(0);
  expect(faults.toDeviceTime(1e12 + 7_200_000) - 1e12 - 7_200_000).toBeCloseTo(2 * afterHour, -1);
});

test("faults of connections come and go at times that the seed repeats, one at a time", async () => {
  vi.useFakeTimers();
  const plans = phaseOf(
    { name: "offline", share: 1, everyMs: 10_000, forMs: 5_000 },
    { name: "reset", share: 1, everyMs: 4_000 },
  );
  const runs = await Promise.all(
    [42, 42, 43].map(async (seed) => {
      const { faults, schedule, done, link } = open(0, seed);
      faults.enter(plans, 0, schedule.now(), () => link);
      await vi.advanceTimersByTimeAsync(120_000);
      return done;
    }),
  );
  const [first = [], second, other] = runs;
  expect(second).toEqual(first);
  expect(other).not.toEqual(first);
  // Nothing happens to a device that is away, but that it comes back.
  const whats = first.map((what) => what.replace(/ .*/, ""));
  expect(whats.filter((what, at) => what !== "back" && whats[at - 1] === "leave")).toEqual([]);
  expect(first.filter((what) => what.startsWith("leave")).length).toBeGreaterThan(4);
  expect(first.filter((what) => what.startsWith("reset")).length).toBeGreaterThan(8);
});

test("a storm comes to all devices at the same instants", async () => {
  vi.useFakeTimers();
  const trials = [0, 1, 2].map((index) => open(index));
  const startMs = performance.now();
  for (const { faults, link } of trials) {
    faults.enter(phaseOf({ name: "reconnect-storm", share: 1, everyMs: 10_000 }), 0, startMs, () => link);
  }
  await vi.advanceTimersByTimeAsync(31_000);
  for (const { done } of trials) {
    expect(done).toEqual(["leave 10.0", "back 10.0", "leave 20.0", "back 20.0", "leave 30.0", "back 30.0"]);
  }
});

test("the end of a phase ends what lasts, and nothing of it comes later", async () => {
  vi.useFakeTimers();
  const { faults, schedule, done, link } = open();
  faults.enter(phaseOf({ name: "offline", share: 1, everyMs: 1_000, forMs: 60_000 }), 0, schedule.now(), () => link);
  await vi.advanceTimersByTimeAsync(5_000);
  faults.enter(phaseOf(), 1, schedule.now(), () => link);
  await vi.advanceTimersByTimeAsync(200_000);
  expect(done).toEqual([expect.stringMatching(/^leave /), "back 5.0"]);
});
