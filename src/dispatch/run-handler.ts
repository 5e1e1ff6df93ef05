// Runs a handler: read, call, move the cursor behind the oldest entry that is not done, for ever.

import { setImmediate } from "node:timers/promises";
import { toError } from "../errors.ts";
import { toOffset } from "../reading.ts";
import { SinkHangs } from "./delivery.ts";
import { readChunk } from "./feed.ts";
import type { Chunk } from "./feed.ts";
import { createCalls } from "./handler-calls.ts";
import type { Calls, CallsOptions } from "./handler-calls.ts";
import { createLedger } from "./ledger.ts";
import type { Ledger } from "./ledger.ts";
import { createBackoff, toFailure } from "./retry.ts";
import { createRetrier } from "./retry-parked.ts";
import type { Retrier } from "./retry-parked.ts";
import { park, seek, wakeMs } from "./runner.ts";
import type { RunnerOptions } from "./runner.ts";

export interface HandlerRunnerOptions extends Omit<RunnerOptions, "gateway">, CallsOptions {
  readonly stream: string;
}

const chunkLimit = { records: 500, bytes: 1024 * 1024 };
/** Nothing more is read while so much is not done, or is done behind an entry that is not. */
const mostAhead = { records: 500, bytes: 4 * 1024 * 1024 };

/** Runs until `stopping`. For what the handler does it rejects only with SinkHangs: then its thread must end. */
export async function runHandler(options: HandlerRunnerOptions): Promise<void> {
  const { state, hand, stopping, abort, progress } = options;
  const backoff = createBackoff(options.backoff);
  // The thread is ended soon, and that is not the fault of what is in hand.
  abort.addEventListener("abort", () => hand.forgive());
  while (!stopping.aborted) {
    try {
      seek(state.position, options);
      await runOnce(options, () => backoff.reset());
    } catch (cause) {
      if (cause instanceof SinkHangs) throw cause;
      // Not the handler: the disk under the journal, under parked.db or under its state.
      progress.failed(cause);
      state.rollback();
      hand.forgive();
      await backoff.pause(stopping, toFailure(cause));
    }
  }
  hand.forgive();
}

/** One run: what it shares. */
interface Run {
  readonly options: HandlerRunnerOptions;
  /** Aborts when the gateway stops, and when something fails. */
  readonly ending: AbortSignal;
  readonly fail: (cause: unknown) => void;
  readonly ledger: Ledger;
  readonly calls: Calls;
}

/** Until `stopping`, or until something fails; nothing is in hand then. */
async function runOnce(options: HandlerRunnerOptions, onSaved: () => void): Promise<void> {
  const failed = new AbortController();
  const fail = (cause: unknown): void => failed.abort(toError(cause));
  const ending = AbortSignal.any([options.stopping, failed.signal]);
  const ledger = createLedger({ ...options, onSaved, onError: fail });
  const calls = createCalls(options, ending, fail);
  try {
    await feed({ options, ending, fail, ledger, calls }).catch(fail);
    await calls.drain();
    failed.signal.throwIfAborted();
    ledger.save();
  } finally {
    ledger.close();
  }
}

async function feed(run: Run): Promise<void> {
  const { options, ending, ledger, calls } = run;
  const { reader, registry, cursor, progress } = options;
  const only = new Set([options.stream]);
  const retrier = createHandlerRetrier(run, only);
  let readTo = cursor.position;
  while (!ending.aborted) {
    const retried = await retrier.turn();
    await calls.until(() => ledger.size < mostAhead.records && ledger.bytes < mostAhead.bytes);
    if (ending.aborted) return;
    const chunk = readChunk({ reader, registry, only, limit: chunkLimit });
    if (chunk !== undefined) await begin(chunk, run);
    if (ending.aborted) return;
    // Also when nothing was read: what was lost at the end is told, and not told again after a restart.
    const { position } = reader;
    if (position > readTo) {
      const passed = { parked: chunk?.refused.length ?? 0, passed: chunk?.passed ?? 0 };
      ledger.add({ offset: position, to: position, bytes: 0, receivedAt: undefined })(passed);
    }
    readTo = position;
    if (calls.size === 0) progress.running();
    await (chunk === undefined && !retried ? reader.wait(ending, wakeMs) : setImmediate());
  }
}

/** Resolves when all entries of the chunk run or wait for their turn. */
async function begin({ entries, records, refused }: Chunk, { options, ending, ledger, calls }: Run): Promise<void> {
  park(refused, options);
  let at = 0;
  for (const entry of entries) {
    if (ending.aborted) return;
    const { offset } = entry;
    while (at < records.length - 1 && records[at]?.offset !== offset) at += 1;
    const record = records[at];
    if (record === undefined) return;
    const { receivedAt, payload } = record.message;
    const finish = ledger.add({ offset, to: toOffset(offset + 1), bytes: payload.length, receivedAt });
    const isSuspect = options.hand.endings(offset) > 0;
    // Alone, so that no other is blamed for what it does.
    if (isSuspect) await calls.until(() => calls.size === 0);
    if (options.state.isDone(offset)) finish({ delivered: 1 });
    else calls.begin(entry, record, finish);
    if (isSuspect) await calls.until(() => calls.size === 0);
  }
}

function createHandlerRetrier({ options, ending, fail, ledger, calls }: Run, only: ReadonlySet<string>): Retrier {
  const { parking, registry, progress, hand } = options;
  return createRetrier({
    parking,
    registry,
    only,
    abort: ending,
    onError: (error) => progress.log("warn", `parked records cannot be tried again: ${error.message}`),
    async attempt({ entries }, refuse) {
      let hang: SinkHangs | undefined;
      for (const entry of entries) {
        if (hang !== undefined) {
          refuse(entry.offset, "it was not tried: a record before it did not end");
          continue;
        }
        try {
          const outcome = await calls.again(entry);
          if (outcome.kind === "stopped") throw new Error("the gateway is stopping");
          if (outcome.kind === "failed") refuse(entry.offset, outcome.error);
        } catch (cause) {
          if (!(cause instanceof SinkHangs)) throw cause;
          hang = cause;
          refuse(entry.offset, hang.message);
        }
      }
      ledger.save();
      if (hang !== undefined) {
        hand.forgive();
        fail(hang);
      }
      return "all";
    },
  });
}
