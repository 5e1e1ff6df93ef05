// The calls of a handler that are in hand: one at a time, or with `concurrency` one at a time for each device.

import { setImmediate } from "node:timers/promises";
import { toError } from "../errors.ts";
import type { JournalEntry } from "../journal/record.ts";
import type { Entry } from "../reading.ts";
import { callHandler } from "./call-handler.ts";
import type { CallOptions, Outcome } from "./call-handler.ts";
import { SinkHangs } from "./delivery.ts";
import type { Hand } from "./hand.ts";
import { createLanes } from "./lanes.ts";
import type { Finish } from "./ledger.ts";
import type { Parking } from "./parked.ts";
import { park } from "./runner.ts";
import type { CallState } from "./state.ts";

export interface CallsOptions extends CallOptions {
  readonly concurrency: number;
  readonly hand: Hand;
  readonly parking: Parking;
  /** How the last worker of the handler ended. */
  readonly lastEnd: string;
}

export interface Calls {
  /** Calls the handler when the turn of the entry has come, and parks it when that fails. */
  begin(entry: Entry, record: JournalEntry, finish: Finish): void;
  /** Of a parked entry. Rejects like `callHandler`. */
  again(entry: Entry): Promise<Outcome>;
  /** Running, or waiting for their turn. */
  readonly size: number;
  /** Resolves as soon as `isSo`, which is asked when a call has ended, or when `ending` aborts. One caller at a time. */
  until(isSo: () => boolean): Promise<void>;
  /** Resolves when no call runs any more. Rejects with SinkHangs when one does not end. */
  drain(): Promise<void>;
}

/** Handlers that work synchronously leave the event loop a turn at least this often, for the cursor's timer and a stop. */
const turnMs = 20;
/** An entry that has ended so many workers is parked. */
const maximumEndings = 3;

/** `ending`: no further call. `fail`: makes it abort, because of the disk, or of a call that does not end. */
export function createCalls(options: CallsOptions, ending: AbortSignal, fail: (cause: unknown) => void): Calls {
  const { concurrency, hand, state, progress, stopping } = options;
  const lanes = createLanes(concurrency);
  const laneOf = ({ reading }: Entry): string => (concurrency === 1 ? "" : reading.deviceId);
  let turnAtMs = performance.now();
  let wake: (() => void) | undefined;
  let hang: SinkHangs | undefined;
  ending.addEventListener("abort", () => wake?.());

  const inTurn = (entry: Entry, work: () => Promise<void>): Promise<void> =>
    lanes.run(laneOf(entry), async () => {
      if (performance.now() - turnAtMs > turnMs) {
        await setImmediate();
        turnAtMs = performance.now();
      }
      if (!ending.aborted) await work();
    });

  /** After a failure everything that is not durable is done again, also what comes to its end now. */
  function checkFailed(): void {
    if (ending.aborted && !stopping.aborted) throw toError(ending.reason);
  }

  async function call(entry: Entry, record: JournalEntry, finish: Finish): Promise<void> {
    const outcome = await callInHand(entry, options, (changes) => {
      checkFailed();
      finish({ delivered: 1 }, changes);
    });
    if (outcome.kind === "stopped") return;
    if (outcome.kind === "failed") {
      park([{ entry: record, error: outcome.error, attempts: outcome.attempts }], options);
      checkFailed();
      finish({ parked: 1 });
    }
    hand.release(entry.offset);
    progress.running();
  }

  async function until(isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      await promise;
    }
  }

  return {
    begin(entry, record, finish) {
      inTurn(entry, () => call(entry, record, finish))
        .catch((cause: unknown) => {
          if (cause instanceof SinkHangs) {
            hang = cause;
            hand.forgive(entry.offset);
          }
          fail(cause);
        })
        .finally(() => wake?.());
    },
    async again(entry) {
      let outcome: Outcome = { kind: "stopped" };
      await inTurn(entry, async () => {
        outcome = await callHandler(entry, options, (changes) => {
          checkFailed();
          state.apply(changes);
        });
      }).catch((cause: unknown) => {
        if (cause instanceof SinkHangs) hang = cause;
        throw cause;
      });
      return outcome;
    },
    get size() {
      return lanes.size;
    },
    until: (isSo) => until(() => ending.aborted || isSo()),
    async drain() {
      await until(() => lanes.size === 0 || hang !== undefined);
      if (hang !== undefined) throw hang;
    },
  };
}

async function callInHand(
  entry: Entry,
  options: CallsOptions,
  finish: (changes: CallState["changes"]) => void,
): Promise<Outcome> {
  const { hand, lastEnd } = options;
  const endings = hand.endings(entry.offset);
  if (endings >= maximumEndings) {
    const error = `its worker ended each of the ${endings} times that it was called, the last time: ${lastEnd}`;
    return { kind: "failed", error, attempts: endings };
  }
  hand.take(entry.offset);
  return callHandler(entry, options, finish);
}
