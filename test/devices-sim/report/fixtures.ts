import { createHistogram, type RecordableHistogram } from "node:perf_hooks";
import type { Point } from "../../../devices-sim/report/timeline.ts";
import { Tally, type Counters } from "../../../devices-sim/tally.ts";

/** What a fleet that has done nothing has counted, but for these. */
export const counters = (changes: Partial<Counters> = {}): Counters => ({ ...new Tally().counters(), ...changes });

/** Of acknowledgements after so many milliseconds. */
export function latency(...afterMs: readonly number[]): RecordableHistogram {
  const histogram = createHistogram();
  for (const ms of afterMs) histogram.record(1000 * ms);
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
