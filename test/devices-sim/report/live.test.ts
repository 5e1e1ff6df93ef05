import { PassThrough } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { openLive, toProgressLine, toScreen, type Progress } from "../../../devices-sim/report/live.ts";
import { options } from "../fixtures.ts";
import { counters, latency, point } from "./fixtures.ts";

const progress = (changes: Partial<Progress> = {}): Progress => ({
  elapsedMs: 30_000,
  devices: 10,
  counters: counters({ connected: 9, sent: 12_345, acknowledged: 12_340, inFlight: 5 }),
  sentPerSecond: 99.6,
  acknowledgedPerSecond: 98.2,
  latency: latency(1, 2, 3),
  points: [50, 100, 0, 100].map((sent) => point({ sent, acknowledged: sent })),
  ...changes,
});

const screen = (changes?: Partial<Progress>, ...args: string[]): Readonly<Record<string, string>> =>
  Object.fromEntries(toScreen(progress(changes), options(1883, ...args)).map(({ label, text }) => [label, text]));

test("the screen has devices, rates with their last seconds, and percentiles", () => {
  expect(screen({}, "--duration", "1m")).toEqual({
    time: "0:30 of 1:00  ████████████░░░░░░░░░░░░",
    devices: "9 of 10 connected",
    sent: "100/s       12,345 in all       ▅█▁█",
    answered: "98/s        12,340 in all       ▅█▁█",
    "in flight": "5",
    PUBACK: "p50 2.0 ms  p90 3.0 ms  p99 3.0 ms  max 3.0 ms",
  });
});

test("faults and errors are named; of errors the most frequent", () => {
  const errors = Object.fromEntries([1, 9, 3, 4, 5, 6].map((count) => [`E${count}`, { count, last: "so" }]));
  const { invalid } = counters();
  const lines = toScreen(
    progress({ counters: counters({ invalid: { ...invalid, empty: 2, "wrong-type": 1 }, skipped: 7, errors }) }),
    options(1883),
  ).map(({ label, text }) => `${label} ${text}`);
  expect(lines.slice(-7)).toEqual([
    "skipped 7 readings",
    "faults 3  (wrong-type 1, empty 2)",
    "error 9 × E9: so",
    "error 6 × E6: so",
    "error 5 × E5: so",
    "error 4 × E4: so",
    "error and 2 other kinds",
  ]);
});

test("a scenario shows the phase that the run is in, also when it has begun again", () => {
  const phases = ["calm", "storm"].map((name) => ({ name, durationMs: 20_000, rate: 1, faults: [] }));
  const phaseAt = (elapsedMs: number): string | undefined =>
    toScreen(progress({ elapsedMs }), { ...options(1883), phases }).find(({ label }) => label === "phase")?.text;
  expect([0, 19_999, 20_000, 40_000, 60_000].map(phaseAt)).toEqual(["calm", "calm", "storm", "calm", "storm"]);
  expect(screen()["phase"]).toBeUndefined();
});

test("what a broker says cannot move the cursor", () => {
  const errors = { odd: { count: 1, last: "\u001B[2Jgone\r\n" } };
  expect(screen({ counters: counters({ errors }) })["error"]).toBe("1 × odd:  [2Jgone  ");
});

test("without a duration there is no bar, and at QoS 0 nothing is answered", () => {
  const lines = screen({ latency: latency() }, "--count", "1000", "--qos", "0");
  expect(lines).toMatchObject({ time: "0:30  until each device has sent 1,000" });
  expect(Object.keys(lines)).toEqual(["time", "devices", "sent"]);
});

test("the plain line has no control characters and no line end", () => {
  expect(toProgressLine(progress())).toBe(
    "  30 s   9/10 connected   100 sent/s   98 acked/s   PUBACK p50 2.0 ms p99 3.0 ms",
  );
});

/** What was written, and a terminal of this size or, without one, a pipe. */
function output(size?: { readonly columns: number; readonly rows: number }) {
  const stream = Object.assign(new PassThrough({ encoding: "utf8" }), { isTTY: size !== undefined, ...size });
  return { out: stream as unknown as NodeJS.WriteStream, written: () => String(stream.read() ?? "") };
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test("elsewhere than on a terminal it is a plain line a second", () => {
  const { out, written } = output();
  {
    using _live = openLive(progress, options(1883), out);
    vi.advanceTimersByTime(2000);
  }
  expect(written()).toBe(`${toProgressLine(progress())}\n`.repeat(2));
});

test("on a terminal it is drawn in place, no line is wider, none is left of the one before, and in the end it is gone", () => {
  const { out, written } = output({ columns: 30, rows: 24 });
  const errors = { odd: { count: 1, last: "x".repeat(100) } };
  const states = [progress({ counters: counters({ errors }) }), progress({ counters: counters() })];
  {
    using _live = openLive(() => states.shift() ?? progress(), options(1883), out);
    vi.advanceTimersByTime(1000);
    const first = written();
    const lines = stripVTControlCharacters(first).split("\n");
    expect(Math.max(...lines.map((line) => line.length))).toBe(29);
    expect(lines).toHaveLength(7);
    vi.advanceTimersByTime(1000);
    const second = written();
    expect(second.startsWith("\u001B[6A\r")).toBe(true);
    expect(second.endsWith("\n\u001B[J")).toBe(true);
  }
  expect(written()).toBe("\u001B[5A\r\u001B[J");
});

test("it never draws more lines than the terminal has", () => {
  const { out, written } = output({ columns: 80, rows: 4 });
  using _live = openLive(progress, options(1883), out);
  vi.advanceTimersByTime(2000);
  expect(written().match(/\n/g)).toHaveLength(6);
});
