// What a worker tells of itself: kept as plain numbers, posted at most once per interval and at each change of state.

import type { Cursor } from "../journal/cursor.ts";
import type { LostRange } from "../journal/reader.ts";
import type { UnixMs } from "../reading.ts";
import type { FromWorker, WorkerStatus } from "./protocol.ts";
import { toFailure } from "./retry.ts";

export interface ProgressOptions {
  readonly cursor: Pick<Cursor, "position" | "durable">;
  readonly post: (message: FromWorker) => void;
  readonly intervalMs: number;
}

export interface Progress extends Disposable {
  /** The consumer is open and nothing is wrong. */
  running(): void;
  /** An attempt failed and is made again. */
  failed(cause: unknown): void;
  /** The sink refused something for its content. */
  refused(reason: string): void;
  /** Records are in hand, the oldest received then; undefined: none, it has caught up. */
  holding(oldestReceivedAt: UnixMs | undefined): void;
  /** Records left the hand. */
  count(counts: { readonly delivered?: number; readonly parked?: number; readonly passed?: number }): void;
  /** The journal no longer had some. */
  lost(range: LostRange): void;
  log(level: "warn" | "error", text: string): void;
  /** Something is to be posted within the interval. */
  touch(): void;
}

export function createProgress({ cursor, post, intervalMs }: ProgressOptions): Progress {
  let state: WorkerStatus["state"] = "starting";
  const counts = { delivered: 0, parked: 0, passed: 0, expired: 0 };
  const errors = { transient: 0, refused: 0, misconfigured: 0 };
  let lastError: string | undefined;
  let oldestReceivedAt: UnixMs | undefined;
  let caughtUpAt: UnixMs | undefined;
  let timer: NodeJS.Timeout | undefined;

  function postNow(): void {
    clearTimeout(timer);
    timer = undefined;
    const { position, durable } = cursor;
    const status = { state, position, durable, ...counts, errors, lastError, oldestReceivedAt, caughtUpAt };
    post({ kind: "status", status });
  }
  function touch(): void {
    timer ??= setTimeout(postNow, intervalMs);
  }
  function log(level: "warn" | "error", text: string): void {
    post({ kind: "log", level, text });
  }

  return {
    running() {
      if (state === "running") return;
      state = "running";
      postNow();
    },
    failed(cause) {
      const { kind, message } = toFailure(cause);
      errors[kind] += 1;
      lastError = message;
      const next = kind === "transient" ? "retrying" : "misconfigured";
      if (state === next) return touch();
      state = next;
      return postNow();
    },
    refused(reason) {
      errors.refused += 1;
      lastError = reason;
      touch();
    },
    holding(receivedAt) {
      if (receivedAt === undefined) caughtUpAt = Date.now();
      else if (oldestReceivedAt === receivedAt) return;
      oldestReceivedAt = receivedAt;
      touch();
    },
    count({ delivered = 0, parked = 0, passed = 0 }) {
      counts.delivered += delivered;
      counts.parked += parked;
      counts.passed += passed;
      touch();
    },
    lost({ kind, from, to }) {
      counts.expired += to - from;
      log(
        "error",
        `${to - from} records from offset ${from} to ${to - 1} could not be read: the journal has them no longer (${kind})`,
      );
      touch();
    },
    log,
    touch,
    [Symbol.dispose]: postNow,
  };
}
