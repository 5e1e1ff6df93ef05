// One entry into a handler: bounded in time, again after a failure, until it is done or has failed for good. Live delivery and
// the second try of what is parked both go through here.

import { setMaxListeners } from "node:events";
import { toError } from "../errors.ts";
import type { Entry } from "../reading.ts";
import { bounded, SinkHangs } from "./delivery.ts";
import type { Handler, HandlerPublish } from "./handler.ts";
import type { Progress } from "./progress.ts";
import type { PublishWithin } from "./publisher.ts";
import { createBackoff } from "./retry.ts";
import type { BackoffOptions } from "./retry.ts";
import { StateFileError, StateLimit } from "./state.ts";
import type { CallState, StateFile } from "./state.ts";

export interface CallOptions {
  readonly handler: Handler;
  readonly publish: PublishWithin;
  readonly state: StateFile;
  readonly progress: Progress;
  readonly timeoutMs: number;
  /** Calls that fail before the entry has failed. */
  readonly attempts: number;
  readonly backoff: BackoffOptions;
  /** No further attempt. */
  readonly stopping: AbortSignal;
  /** Nobody waits for the call in hand any longer. */
  readonly abort: AbortSignal;
}

export type Outcome =
  | { readonly kind: "done" }
  | { readonly kind: "failed"; readonly error: string; readonly attempts: number }
  /** Before it was done: the entry comes again. */
  | { readonly kind: "stopped" };

/** The gateway has kept the call waiting, and it has done nothing wrong. */
class HeldUp extends Error {
  override readonly name = "HeldUp";
}

/**
 * `finish` is called once when the handler has resolved, in the same turn; StateLimit from it is the handler's failure. Rejects
 * with SinkHangs when the handler ignores its signal: its thread must end; and for what concerns no handler: the disk.
 */
export async function callHandler(
  entry: Entry,
  options: CallOptions,
  finish: (changes: CallState["changes"]) => void,
): Promise<Outcome> {
  const { progress, attempts, stopping, abort } = options;
  const backoff = createBackoff(options.backoff);
  let failures = 0;
  for (;;) {
    const failure = await attempt(entry, options, finish);
    if (failure === undefined) return { kind: "done" };
    if (abort.aborted) return { kind: "stopped" };
    progress.failed(failure);
    if (!(failure instanceof HeldUp)) failures += 1;
    if (failures >= attempts) return { kind: "failed", error: failure.message, attempts };
    await backoff.pause(stopping);
    if (stopping.aborted) return { kind: "stopped" };
  }
}

/** Resolves with what the handler has done wrong. */
async function attempt(
  entry: Entry,
  { handler, publish, state, timeoutMs, abort }: CallOptions,
  finish: (changes: CallState["changes"]) => void,
): Promise<Error | undefined> {
  using call = state.begin();
  let pending = 0;
  let limit = abort;
  let heldUp = false;
  const publishWithin: HandlerPublish = async (...message) => {
    pending += 1;
    try {
      await publish(limit, ...message);
    } finally {
      pending -= 1;
    }
  };
  const run = async (signal: AbortSignal): Promise<void> => {
    limit = signal;
    setMaxListeners(0, signal); // one of each publish
    // Heard before the publishes hear of it, and end.
    signal.addEventListener("abort", () => (heldUp = pending > 0));
    await handler(entry, { publish: publishWithin, state: call.state, signal });
  };
  try {
    await bounded(run, { what: "the call", timeoutMs, abort });
    // One that is told to end may simply return; nobody knows then how far it has come.
    limit.throwIfAborted();
  } catch (cause) {
    if (cause instanceof SinkHangs || cause instanceof StateFileError) throw cause;
    return heldUp ? new HeldUp("the gateway takes no messages now, and the call waits for that") : toError(cause);
  }
  try {
    finish(call.changes);
    return undefined;
  } catch (cause) {
    if (cause instanceof StateLimit) return cause;
    throw cause;
  }
}
