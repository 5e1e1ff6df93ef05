// Exponential backoff with full jitter: each pause is a random part of a ceiling that doubles, so that many that failed
// together do not come back together (Brooker, "Exponential Backoff and Jitter", 2015).

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
  /** Resolves after the next pause, at once when `signal` is aborted. Never rejects. */
  pause(signal: AbortSignal): Promise<void>;
  /** After a success: the next pause is a first one. */
  reset(): void;
}

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
    pause(signal) {
      const ceilingMs = Math.min(maximumMs, minimumMs * 2 ** attempts);
      attempts += 1;
      return sleep(random() * ceilingMs, signal);
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
