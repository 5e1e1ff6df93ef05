import { expect, test } from "vitest";
import { runHandler } from "../../src/dispatch/run-handler.ts";
import type { LostRange } from "../../src/journal/reader.ts";
import { type Offset, toOffset } from "../../src/reading.ts";

test("a handler whose cursor lies before the journal's beginning, or that ends in a gap, tells it and goes on behind", async () => {
  const stopping = new AbortController();
  const lost: LostRange[] = [];
  const failures: unknown[] = [];
  const cursor = {
    position: toOffset(3),
    durable: toOffset(3),
    origin: "kept" as const,
    commit(to: Offset) {
      cursor.position = to;
    },
    flush: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const seen: number[] = [];
  const reader = {
    position: toOffset(0),
    lag: 0,
    atLimit: false,
    seek() {
      reader.position = toOffset(10);
    },
    read() {
      seen.push(cursor.position);
      reader.position = toOffset(20);
      return [];
    },
    wait() {
      stopping.abort();
      return Promise.resolve();
    },
    [Symbol.dispose]: () => {},
  };
  await runHandler({
    reader,
    cursor,
    registry: {} as never,
    parking: { takeMarked: () => [] } as never,
    progress: {
      lost: (range: LostRange) => lost.push(range),
      holding: () => {},
      running: () => {},
      failed: (cause: unknown) => failures.push(cause),
      count: () => {},
    } as never,
    backoff: {},
    stopping: stopping.signal,
    abort: stopping.signal,
    stream: "climate",
    handler: () => Promise.resolve(),
    publish: () => Promise.resolve(),
    concurrency: 1,
    timeoutMs: 1_000,
    attempts: 1,
    state: { isOpen: false, position: undefined } as never,
    hand: { forgive: () => {} } as never,
    lastEnd: "",
  });
  expect(lost).toEqual([{ kind: "trimmed", from: 3, to: 10 }]);
  expect([seen, cursor.position, failures]).toEqual([[10], 20, []]);
});
