import type { Metrics } from "./profiles/profile.ts";

/** One reading of a device: `ts` in Unix milliseconds, `seq` from 1, one number per metric. */
export interface Telemetry {
  readonly ts: number;
  readonly seq: number;
  readonly metrics: Metrics;
}
