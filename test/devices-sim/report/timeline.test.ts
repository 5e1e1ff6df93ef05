import { once } from "node:events";
import { Worker } from "node:worker_threads";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { nowMs, Timeline, type Point } from "../../../devices-sim/report/timeline.ts";
import { counters, latency } from "./fixtures.ts";

const total = (points: readonly Point[], pick: (point: Point) => number): number =>
  points.reduce((sum, point) => sum + pick(point), 0);

/** Of a run that starts at 0. */
function openTimeline(threads: number, mostPoints?: number): Timeline {
  const timeline = new Timeline(threads, mostPoints);
  timeline.start(0);
  return timeline;
}

/** A thread that sends `perSecond` and reports at these times. */
function send(timeline: Timeline, thread: number, perSecond: number, atMs: readonly number[]): void {
  for (const at of atMs) {
    timeline.take(thread, { atMs: at, counters: counters({ sent: (perSecond * at) / 1000 }), latency: latency() });
  }
  timeline.finish(thread);
}

test("a point a second, of all threads, whenever they report", () => {
  const timeline = openTimeline(2);
  send(timeline, 0, 100, [240, 500, 760, 1020, 1280, 1990, 2250, 3000]);
  send(timeline, 1, 200, [300, 900, 1500, 2700, 3000]);
  expect(timeline.data.points.map(({ atMs, ms, sent }) => [atMs, ms, sent])).toEqual([
    [1000, 1000, 300],
    [2000, 1000, 300],
    [3000, 1000, 300],
  ]);
});

test("what threads report and what happens before the start is not part of the run", () => {
  const timeline = new Timeline(1);
  const report = (atMs: number, sent: number): void =>
    timeline.take(0, { atMs, counters: counters({ sent }), latency: latency() });
  report(50_000, 0);
  timeline.mark(50_100, "loaded");
  report(52_400, 0);
  timeline.start(52_500);
  report(52_450, 0);
  report(53_500, 10);
  timeline.mark(53_600, "later");
  report(53_700, 12);
  timeline.finish(0);
  expect(timeline.data.points.map(({ atMs, sent }) => [atMs, sent])).toEqual([[1200, 12]]);
  expect(timeline.data.marks).toEqual([
    { atMs: 0, text: "loaded" },
    { atMs: 1100, text: "later" },
  ]);
});

test("a thread that had no time to report for seconds leaves no hole", () => {
  const timeline = openTimeline(1);
  send(timeline, 0, 1000, [250, 3250, 4000]);
  expect(timeline.data.points.map(({ sent }) => sent)).toEqual([1000, 1000, 1000, 1000]);
});

test("a second is told when all threads are past it, and a thread that is done holds up none", () => {
  const timeline = openTimeline(2);
  timeline.take(0, { atMs: 2500, counters: counters({ sent: 25 }), latency: latency() });
  expect(timeline.data.points).toEqual([]);
  timeline.take(1, { atMs: 1200, counters: counters({ sent: 12 }), latency: latency() });
  expect(timeline.data.points.map(({ sent }) => sent)).toEqual([20]);
  timeline.finish(1);
  expect(timeline.data.points.map(({ sent }) => sent)).toEqual([20, 12]);
});

/** A thread that sends a hundred a second until then. */
function runUntil(atMs: number): readonly Point[] {
  const timeline = openTimeline(1);
  send(timeline, 0, 100, [500, atMs]);
  return timeline.data.points;
}

test("what is left after the last full second is a point of its own, or part of it when it is short", () => {
  expect(runUntil(2700).map(({ ms, sent }) => [ms, sent])).toEqual([
    [1000, 100],
    [1000, 100],
    [700, 70],
  ]);
  expect(runUntil(2300).map(({ ms, sent }) => [ms, sent])).toEqual([
    [1000, 100],
    [1300, 130],
  ]);
});

test("faults and errors have the second in which they happened", () => {
  const timeline = openTimeline(1);
  const { invalid } = counters();
  const lost = { "connection lost": { count: 3, last: "" } };
  timeline.take(0, { atMs: 1000, counters: counters(), latency: latency() });
  timeline.take(0, {
    atMs: 2000,
    counters: counters({ invalid: { ...invalid, empty: 2 }, errors: lost }),
    latency: latency(),
  });
  timeline.take(0, {
    atMs: 3000,
    counters: counters({ invalid: { ...invalid, empty: 2 }, errors: lost }),
    latency: latency(),
  });
  expect(timeline.data.points.map(({ faults, errors }) => ({ ...faults, ...errors }))).toEqual([
    {},
    { empty: 2, "connection lost": 3 },
    {},
  ]);
});

test("percentiles are those of all threads in a second; a second without an acknowledgement has none", () => {
  const timeline = openTimeline(2);
  for (const [thread, ms] of [2, 40].entries()) {
    timeline.take(thread, { atMs: 1000, counters: counters(), latency: latency(ms, ms, ms) });
    timeline.take(thread, { atMs: 2000, counters: counters(), latency: latency() });
    timeline.finish(thread);
  }
  const [first, second] = timeline.data.points;
  expect(first?.pubackMs?.p50).toBeCloseTo(2, 1);
  expect(first?.pubackMs?.max).toBeCloseTo(40, 0);
  expect(second?.pubackMs).toBeNull();
});

test("a long run has fewer points a minute: nothing is lost, and an interval has the percentiles of its worst second", () => {
  const timeline = openTimeline(1, 100);
  for (let second = 1; second <= 1000; second += 1) {
    const ms = second === 321 ? 900 : 5;
    timeline.take(0, { atMs: 1000 * second, counters: counters({ sent: 7 * second }), latency: latency(ms) });
  }
  timeline.finish(0);
  const { points, stepMs } = timeline.data;
  expect(stepMs).toBe(16_000);
  expect(points.length).toBeLessThanOrEqual(100);
  expect(total(points, ({ sent }) => sent)).toBe(7000);
  expect(total(points, ({ ms }) => ms)).toBe(1_000_000);
  const worst = points.filter(({ pubackMs }) => (pubackMs?.p50 ?? 0) > 100);
  expect(worst).toHaveLength(1);
  expect(worst[0]?.atMs).toBeGreaterThanOrEqual(321_000);
  expect(worst[0]?.atMs).toBeLessThan(321_000 + stepMs);
});

test("whenever threads report, the points follow each other without a gap and add up to what was counted", () => {
  const samples = fc.array(fc.record({ afterMs: fc.integer({ min: 1, max: 3000 }), sent: fc.nat(500) }), {
    minLength: 1,
  });
  fc.assert(
    fc.property(
      fc.array(samples, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 2, max: 8 }),
      (threads, mostPoints) => {
        const timeline = openTimeline(threads.length, mostPoints);
        let sent = 0;
        for (const [thread, reports] of threads.entries()) {
          let counted = 0;
          let atMs = 0;
          for (const report of reports) {
            counted += report.sent;
            atMs += report.afterMs;
            timeline.take(thread, { atMs, counters: counters({ sent: counted }), latency: latency() });
          }
          sent += counted;
        }
        for (const thread of threads.keys()) timeline.finish(thread);
        const { points } = timeline.data;
        expect(points.length).toBeLessThanOrEqual(mostPoints);
        expect(total(points, (point) => point.sent)).toBe(sent);
        let endMs = 0;
        for (const point of points) {
          endMs += point.ms;
          expect(point.atMs).toBe(endMs);
          expect(point.sent).toBeGreaterThanOrEqual(0);
        }
      },
    ),
  );
});

test("marks are bounded", () => {
  const timeline = openTimeline(1);
  for (let at = 0; at < 1000; at += 1) timeline.mark(at, "again");
  expect(timeline.data.marks).toHaveLength(200);
});

test("threads agree on the time", async () => {
  const path = JSON.stringify(new URL("../../../devices-sim/report/timeline.ts", import.meta.url).href);
  const code = `const { parentPort } = require("node:worker_threads");
    import(${path}).then(({ nowMs }) => parentPort.postMessage(nowMs()));`;
  const beforeMs = nowMs();
  const [theirsMs] = (await once(new Worker(code, { eval: true }), "message")) as [number];
  expect(theirsMs).toBeGreaterThan(beforeMs);
  expect(theirsMs).toBeLessThan(nowMs() + 1);
});
