// How long acknowledgements take, as a histogram of microseconds.

import { createHistogram, type RecordableHistogram } from "node:perf_hooks";

const LONGEST_US = 3_600_000_000;

/**
 * From 1 µs to an hour, to 1 %: 25 kB. With Node's own range and three digits it is 360 kB that the garbage collection does not
 * count: 3,000 of them, one after the other, left 140 MiB more behind. A thread makes four a second.
 */
export const createLatency = (): RecordableHistogram => createHistogram({ highest: LONGEST_US, figures: 2 });

export function recordLatency(latency: RecordableHistogram, afterMs: number): void {
  latency.record(Math.min(LONGEST_US, Math.max(1, Math.round(afterMs * 1000))));
}
