import type { RecordableHistogram } from "node:perf_hooks";
import { createLatency, recordLatency } from "../../../devices-sim/latency.ts";
import type { RunReport } from "../../../devices-sim/report/page.ts";
import { toSummary } from "../../../devices-sim/report/summary.ts";
import type { Point } from "../../../devices-sim/report/timeline.ts";
import { Tally, type Counters } from "../../../devices-sim/tally.ts";
import { options } from "../fixtures.ts";

/** What a fleet that has done nothing has counted, but for these. */
export const counters = (changes: Partial<Counters> = {}): Counters => ({ ...new Tally().counters(), ...changes });

/** Of acknowledgements after so many milliseconds. */
export function latency(...afterMs: readonly number[]): RecordableHistogram {
  const histogram = createLatency();
  for (const ms of afterMs) recordLatency(histogram, ms);
  return histogram;
}

/** A second of a fleet that sends a hundred messages a second, but for these. */
export const point = (changes: Partial<Point> = {}): Point => ({
  atMs: 1000,
  ms: 1000,
  connected: 10,
  inFlight: 0,
  sent: 100,
  acknowledged: 100,
  refused: 0,
  skipped: 0,
  faults: {},
  errors: {},
  pubackMs: { p50: 1, p90: 2, p99: 3, max: 4 },
  ...changes,
});

/** What a run was asked for whose page is looked at. */
export const sim = options(1883, "--devices", "10", "--username", "{device}", "--password", "open sesame");

/** Three seconds of ten devices, but for these. */
export function runReport(changes: Partial<RunReport> = {}): RunReport {
  const summary = toSummary({
    options: sim,
    counters: counters({ sent: 300, acknowledged: 300 }),
    latency: latency(1, 2, 3),
    startedAt: Date.UTC(2026, 10, 29, 9),
    durationMs: 3000,
    workerCpuSeconds: 1,
    peakRssBytes: 2 ** 27,
  });
  const points = [1000, 2000, 3000].map((atMs) => point({ atMs }));
  return {
    options: sim,
    summary,
    timeline: { stepMs: 1000, points, marks: [{ atMs: 1500, text: "all devices are connected" }] },
    machine: { cpu: "C", cores: 2, memoryGiB: 8, system: "Linux 6", node: "v24", version: "1.0.0" },
    ...changes,
  };
}
