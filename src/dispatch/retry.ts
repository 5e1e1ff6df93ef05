// Exponential backoff with full jitter: each pause is a random part of a ceiling that doubles, so that many that failed
// together do not come back together (Brooker, "Exponential Backoff and Jitter", 2015).

import { toError } from "../errors.ts";

/** What is known of why an attempt failed. Sinks throw errors of this form; see SinkError. */
interface Failure {
  readonly kind: "transient" | "misconfigured";
  readonly message: string;
  readonly retryAfterMs?: number | undefined;
}

/** By its form and not by its class: an error may come from another copy of this package. */
export function toFailure(cause: unknown): Failure {
  const { kind, retryAfterMs } = Object(cause) as { readonly kind?: unknown; readonly retryAfterMs?: unknown };
  return {
    kind: kind === "misconfigured" ? kind : "transient",
    message: toError(cause).message,
    retryAfterMs: typeof retryAfterMs === "number" && retryAfterMs > 0 ? retryAfterMs : undefined,
  };
}

export interface BackoffOptions {
  /** Ceiling of the first pause. Default 50. */
  readonly minimumMs?: number;
  /** No ceiling is higher. Default 30,000. */
  readonly maximumMs?: number;
  /** From 0 to 1, as Math.random. */
  readonly random?: () => number;
}

/** It gives up never; the caller counts or aborts. */
export interface Backoff {
  /** Pauses since the last success. */
  readonly attempts: number;
  /**
   * Resolves after the next pause, at once when `signal` is aborted. Never rejects. What only a person can mend waits for
   * about the longest time, and a server that asks for a pause gets it.
   */
  pause(signal: AbortSignal, failure?: Partial<Failure>): Promise<void>;
  /** After a success: the next pause is a first one. */
  reset(): void;
}

/** A server is believed that it wants to be left alone for so long, and no longer. */
const longestRetryAfterMs = 3_600_000;

export function createBackoff({
  minimumMs = 50,
  maximumMs = 30_000,
  random = Math.random,
}: BackoffOptions = {}): Backoff {
  let attempts = 0;
  return {
    get attempts() {
      return attempts;
    },
    pause(signal, { kind = "transient", retryAfterMs = 0 } = {}) {
      const ceilingMs = Math.min(maximumMs, minimumMs * 2 ** attempts);
      attempts += 1;
      const pauseMs = kind === "transient" ? random() * ceilingMs : (maximumMs * (1 + random())) / 2;
      return sleep(Math.max(pauseMs, Math.min(retryAfterMs, longestRetryAfterMs)), signal);
    },
    reset() {
      attempts = 0;
    },
  };
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
