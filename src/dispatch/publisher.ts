// What a handler calls to publish: a question to the main thread and its answer.

import { toError } from "../errors.ts";
import type { HandlerPublish } from "./handler.ts";
import type { HandlerMessage } from "./protocol.ts";

/** When the signal aborts it rejects with its reason, and a message that still waits for room is withdrawn. */
export type PublishWithin = (signal: AbortSignal, ...message: Parameters<HandlerPublish>) => Promise<void>;

export interface Publisher {
  readonly publish: PublishWithin;
  /** The answer of the main thread; `error` when it refused. */
  settle(id: number, error: string | undefined): void;
}

export interface PublisherOptions {
  readonly post: (id: number, message: HandlerMessage) => void;
  /** Nobody waits for the answer any longer. */
  readonly withdraw: (id: number) => void;
}

/** A handler that does not await its publishes is stopped here, before memory fills. */
const maximumPending = 1_000;

export function createPublisher({ post, withdraw }: PublisherOptions): Publisher {
  const pending = new Map<number, PromiseWithResolvers<void>>();
  let lastId = 0;
  return {
    async publish(signal, topic, payload, { qos = 0, retain = false } = {}) {
      signal.throwIfAborted();
      if (pending.size >= maximumPending) {
        throw new Error(`${maximumPending} publishes are pending: await publish() before the next`);
      }
      lastId += 1;
      const id = lastId;
      post(id, { topic, payload: toPayload(payload), qos, retain });
      const waiting = Promise.withResolvers<void>();
      pending.set(id, waiting);
      const onAbort = (): void => {
        pending.delete(id);
        withdraw(id);
        waiting.reject(toError(signal.reason));
      };
      signal.addEventListener("abort", onAbort);
      try {
        await waiting.promise;
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
    settle(id, error) {
      const waiting = pending.get(id);
      pending.delete(id);
      if (error === undefined) waiting?.resolve();
      else waiting?.reject(new Error(error));
    },
  };
}

function toPayload(payload: string | Uint8Array | object): string | Uint8Array {
  if (typeof payload === "string") return payload;
  // A copy of its own: a Buffer may be a part of a pool, which would be cloned whole.
  if (payload instanceof Uint8Array) return new Uint8Array(payload);
  return JSON.stringify(payload);
}
