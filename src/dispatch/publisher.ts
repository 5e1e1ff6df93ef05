// What a handler calls to publish: a question to the main thread and its answer.

import type { HandlerPublish } from "./handler.ts";
import type { HandlerMessage } from "./protocol.ts";

export interface Publisher {
  readonly publish: HandlerPublish;
  /** The answer of the main thread; `error` when it refused. */
  settle(id: number, error: string | undefined): void;
}

/** A handler that does not await its publishes is stopped here, before memory fills. */
const maximumPending = 1_000;

export function createPublisher(post: (id: number, message: HandlerMessage) => void): Publisher {
  const pending = new Map<number, PromiseWithResolvers<void>>();
  let lastId = 0;
  return {
    async publish(topic, payload, { qos = 0, retain = false } = {}) {
      if (pending.size >= maximumPending) {
        throw new Error(`${maximumPending} publishes are pending: await publish() before the next`);
      }
      const waiting = Promise.withResolvers<void>();
      lastId += 1;
      post(lastId, { topic, payload: toPayload(payload), qos, retain });
      pending.set(lastId, waiting);
      await waiting.promise;
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
