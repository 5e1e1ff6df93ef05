// Handlers of a configuration file: `on(stream, handler)`. What runs them is run-handler.ts.

import type { Entry, QoS, Reading } from "../reading.ts";
import type { StreamDefinition } from "../validate/stream.ts";

/**
 * Publishes as the gateway itself. An object is sent as JSON. Resolves when the gateway has taken the message over; rejects
 * when it refused to. QoS 0 and no retain unless said.
 */
export type HandlerPublish = (
  topic: string,
  payload: string | Uint8Array | object,
  options?: { readonly qos?: QoS; readonly retain?: boolean },
) => Promise<void>;

export interface HandlerContext {
  readonly publish: HandlerPublish;
  /** Aborted when the gateway will not wait any longer. */
  readonly signal: AbortSignal;
}

/**
 * Called in a worker thread of its own for each reading of the stream, in order, one at a time and at least once: its
 * cursor moves on after the promise has resolved. When it throws it is called again, six times in all with backoff; then
 * the entry is parked and the next one follows.
 */
export type Handler<R extends Reading = Reading> = (entry: Entry<R>, context: HandlerContext) => Promise<void> | void;

/** A handler in a configuration, not yet validated. */
export interface HandlerDefinition {
  readonly kind: "handler";
  readonly stream: StreamDefinition;
  readonly handler: Handler;
  readonly given: unknown;
}

/** Calls `handler` for each reading of `stream`. A second handler of a stream needs a name; the first is `on-<stream>`. */
export function on<Name extends string, Data>(
  stream: StreamDefinition<Name, Data>,
  handler: Handler<Reading<Name, Data>>,
  given: { readonly name?: string } = {},
): HandlerDefinition {
  return Object.freeze({ kind: "handler", stream, handler: handler as unknown as Handler, given });
}
