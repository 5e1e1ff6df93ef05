// What a worker tells of itself: kept as plain numbers, posted at most once per interval and at each change of state.

import { toError } from "../errors.ts";
import type { Cursor } from "../journal/cursor.ts";
import type { LostRange } from "../journal/reader.ts";
import type { UnixMs } from "../reading.ts";
import type { FromWorker, WorkerStatus } from "./protocol.ts";

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
  const counts = { delivered: 0, parked: 0, passed: 0, expired: 0, errors: 0 };
  let lastError: string | undefined;
  let oldestReceivedAt: UnixMs | undefined;
  let timer: NodeJS.Timeout | undefined;

  function postNow(): void {
    clearTimeout(timer);
    timer = undefined;
    const { position, durable } = cursor;
    post({ kind: "status", status: { state, position, durable, ...counts, lastError, oldestReceivedAt } });
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
      counts.errors += 1;
      lastError = toError(cause).message;
      if (state === "retrying") return touch();
      state = "retrying";
      return postNow();
    },
    holding(receivedAt) {
      if (oldestReceivedAt === receivedAt) return;
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
