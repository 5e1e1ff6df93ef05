import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createProgress } from "../../src/dispatch/progress.ts";
import type { FromWorker, WorkerStatus } from "../../src/dispatch/protocol.ts";
import { toOffset } from "../../src/reading.ts";

beforeEach(() => void vi.useFakeTimers({ now: 1_000_000 }));
afterEach(() => void vi.useRealTimers());

test("says when a consumer had last caught up, also when it never rests and whenever it looks in vain", () => {
  const posted: WorkerStatus[] = [];
  const post = (message: FromWorker): void => void (message.kind === "status" && posted.push(message.status));
  const cursor = { position: toOffset(0), durable: toOffset(0) };
  using progress = createProgress({ cursor, post, intervalMs: 200 });
  progress.running();
  for (let turn = 0; turn < 10; turn += 1) {
    progress.holding(Date.now());
    vi.advanceTimersByTime(150);
    progress.holding(undefined);
    vi.advanceTimersByTime(50);
  }
  for (let second = 0; second < 3; second += 1) {
    vi.advanceTimersByTime(1_000);
    progress.holding(undefined);
  }
  vi.advanceTimersByTime(200);
  const ages = posted.map(({ caughtUpAt = 0 }, index) => [index, caughtUpAt]);
  expect(ages.slice(-3)).toEqual([
    [ages.length - 3, 1_003_000],
    [ages.length - 2, 1_004_000],
    [ages.length - 1, 1_005_000],
  ]);
  expect(posted[5]?.caughtUpAt).toBeGreaterThanOrEqual(1_000_750);
});
