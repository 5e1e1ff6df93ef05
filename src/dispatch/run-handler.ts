// Runs a handler: one reading at a time, its cursor moves on after the handler has resolved.

import { setImmediate } from "node:timers/promises";
import { toError } from "../errors.ts";
import type { Entry, Offset } from "../reading.ts";
import { toOffset } from "../reading.ts";
import { readChunk } from "./feed.ts";
import type { Handler, HandlerContext, HandlerPublish } from "./handler.ts";
import { createBackoff, toFailure } from "./retry.ts";
import { createRetrier } from "./retry-parked.ts";
import type { Retrier } from "./retry-parked.ts";
import { park, pass, seek, wakeMs } from "./runner.ts";
import type { RunnerOptions } from "./runner.ts";

export interface HandlerRunnerOptions extends Omit<RunnerOptions, "gateway"> {
  readonly stream: string;
  readonly handler: Handler;
  readonly publish: HandlerPublish;
}

/** Calls before an entry is parked. */
const maximumAttempts = 6;
const standardLimit = { records: 500, bytes: 1024 * 1024 };
/** Handlers that work synchronously leave the event loop a turn at least this often, for the cursor's timer and a stop. */
const turnMs = 20;

/** Runs until `stopping`. It never rejects for what the handler does. */
export async function runHandler(options: HandlerRunnerOptions): Promise<void> {
  const { stopping, progress } = options;
  const backoff = createBackoff(options.backoff);
  while (!stopping.aborted) {
    try {
      seek(undefined, options);
      await runOnce(options, () => backoff.reset());
    } catch (cause) {
      // Not the handler: the disk under the journal or under parked.db.
      progress.failed(cause);
      await backoff.pause(stopping, toFailure(cause));
    }
  }
}

async function runOnce(options: HandlerRunnerOptions, onSuccess: () => void): Promise<void> {
  const { reader, registry, cursor, stopping, progress } = options;
  const only = new Set([options.stream]);
  const retrier = createHandlerRetrier(options, only);
  let turnAtMs = performance.now();
  while (!stopping.aborted) {
    const retried = await retrier.turn();
    const chunk = readChunk({ reader, registry, only, limit: standardLimit });
    progress.holding(chunk?.oldestReceivedAt);
    if (chunk === undefined) {
      pass(options);
      progress.running();
      if (retried) await setImmediate();
      else await reader.wait(stopping, wakeMs);
      continue;
    }
    const { entries, records, refused, passed, next } = chunk;
    park(refused, options);
    for (const entry of entries) {
      if (performance.now() - turnAtMs > turnMs) {
        await setImmediate();
        turnAtMs = performance.now();
      }
      if (stopping.aborted) return;
      const outcome = await call(entry, options);
      if (outcome.kind === "stopped") return;
      const record = records.find(({ offset }) => offset === entry.offset);
      if (outcome.kind === "failed" && record !== undefined) {
        park([{ entry: record, error: outcome.error.message, attempts: maximumAttempts }], options);
        progress.count({ parked: 1 });
      } else progress.count({ delivered: 1 });
      commit(toOffset(entry.offset + 1));
      progress.running();
    }
    commit(next);
    progress.count({ parked: refused.length, passed });
    onSuccess();
    progress.running();
    await setImmediate();
  }

  function commit(to: Offset): void {
    if (to > cursor.position) cursor.commit(to);
  }
}

function createHandlerRetrier(options: HandlerRunnerOptions, only: ReadonlySet<string>): Retrier {
  const { parking, registry, progress, stopping } = options;
  return createRetrier({
    parking,
    registry,
    only,
    abort: stopping,
    onError: (error) => progress.log("warn", `parked records cannot be tried again: ${error.message}`),
    async attempt({ entries }, refuse) {
      for (const entry of entries) {
        const outcome = await call(entry, options);
        if (outcome.kind === "stopped") throw new Error("the gateway is stopping");
        if (outcome.kind === "failed") refuse(entry.offset, outcome.error.message);
      }
      return "all";
    },
  });
}

type Outcome =
  | { readonly kind: "done" }
  | { readonly kind: "failed"; readonly error: Error }
  /** Between two attempts: the entry comes again. */
  | { readonly kind: "stopped" };

async function call(entry: Entry, options: HandlerRunnerOptions): Promise<Outcome> {
  const { handler, publish, abort, stopping, progress } = options;
  const context: HandlerContext = { publish, signal: abort };
  const backoff = createBackoff(options.backoff);
  for (;;) {
    try {
      await handler(entry, context);
      return { kind: "done" };
    } catch (cause) {
      progress.failed(cause);
      if (backoff.attempts + 1 >= maximumAttempts) return { kind: "failed", error: toError(cause) };
    }
    await backoff.pause(stopping);
    if (stopping.aborted) return { kind: "stopped" };
  }
}
