// When a row can be of a run: device ids are the same in every run, and a sink has the rows of all of them.

import type { Ledger } from "../ledger/reader.ts";

/** How far the clocks of gateway and simulator may be apart before rows are taken for those of an earlier run. */
const SKEW_MS = 60_000;
/** The same for what is not in the ledger: it is blamed on the run only when it was received in the middle of it. */
const MARGIN_MS = 1000;

export interface RunTime {
  /** Received before the run, by any clock. */
  isBefore(receivedAt: number): boolean;
  /** Received while the ledger was complete: what is not in it was never sent. */
  isWithin(receivedAt: number): boolean;
}

export function createRunTime({ run, completeUntil }: Pick<Ledger, "run" | "completeUntil">): RunTime {
  const { startedAt } = run;
  const last = run.endedAt === undefined ? completeUntil - MARGIN_MS : run.endedAt + MARGIN_MS;
  return {
    isBefore: (receivedAt) => receivedAt < startedAt - SKEW_MS,
    isWithin: (receivedAt) => receivedAt >= startedAt - MARGIN_MS && receivedAt <= last,
  };
}
