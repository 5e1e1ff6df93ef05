// Handlers of a configuration file: `on(stream, handler)`. What runs them is run-handler.ts; docs/handlers.md is for users.

import type { Entry, QoS, Reading } from "../reading.ts";
import type { StreamDefinition } from "../validate/stream.ts";

/**
 * Publishes as the gateway itself. An object is sent as JSON. Resolves when the gateway has taken the message over, on a
 * stream's topic when it is durable; rejects when it was refused, with the reason. QoS 0 and no retain unless said.
 */
export type HandlerPublish = (
  topic: string,
  payload: string | Uint8Array | object,
  options?: { readonly qos?: QoS; readonly retain?: boolean },
) => Promise<void>;

/**
 * What a handler remembers from call to call, and over a restart. What a call changes is seen by itself at once, and by others
 * when it has resolved: then all of it counts, together with the entry being done; of a call that fails nothing does.
 * Everything throws after the end of the call.
 */
export interface HandlerState {
  /** As JSON gives it back; undefined: there is none. */
  get(key: string): unknown;
  /**
   * Any value that JSON can hold, at most 64 KiB of it. Keys have at most 256 bytes. Throws TypeError for what is no such key or
   * value, RangeError beyond a limit.
   */
  set(key: string, value: unknown): void;
  delete(key: string): void;
  /** Those whose key begins with `prefix`, in the order of the keys' bytes. */
  entries(prefix?: string): readonly (readonly [key: string, value: unknown])[];
}

export interface HandlerContext {
  readonly publish: HandlerPublish;
  readonly state: HandlerState;
  /** Aborted when the call takes longer than `timeoutMs`, and when the gateway will not wait any longer. */
  readonly signal: AbortSignal;
}

/**
 * Called in a worker thread of its own for each reading of the stream, at least once and in order: one call at a time, or with
 * `concurrency` one at a time for each device. Its cursor moves on after the promise has resolved. When it throws it is called
 * again with backoff; after `retry.attempts` calls the entry is parked and the next one follows.
 */
export type Handler<R extends Reading = Reading> = (entry: Entry<R>, context: HandlerContext) => Promise<void> | void;

/** Defaults and bounds: `handlerSettings` of the configuration. */
export interface HandlerOptions {
  readonly name?: string;
  readonly from?: "start" | "now";
  readonly concurrency?: number;
  readonly timeoutMs?: number;
  readonly retry?: { readonly minimumMs?: number; readonly maximumMs?: number; readonly attempts?: number };
  readonly stateBytes?: number;
}

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
  given: HandlerOptions = {},
): HandlerDefinition {
  return Object.freeze({ kind: "handler", stream, handler: handler as unknown as Handler, given });
}
