// How long acknowledgements take, as a histogram of microseconds.

import { createHistogram, type RecordableHistogram } from "node:perf_hooks";

const LONGEST_US = 3_600_000_000;

/**
 * From 1 µs to an hour, to 1 %: 25 kB. With Node's own range and three digits it is 360 kB, and as each thread makes four a
 * second, a process had 140 MiB more of them than anybody needed.
 */
export const createLatency = (): RecordableHistogram => createHistogram({ highest: LONGEST_US, figures: 2 });

export function recordLatency(latency: RecordableHistogram, afterMs: number): void {
  latency.record(Math.min(LONGEST_US, Math.max(1, Math.round(afterMs * 1000))));
}
