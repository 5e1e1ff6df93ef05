import { setImmediate } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { runSink } from "../../src/dispatch/runner.ts";
import { toOffset } from "../../src/reading.ts";
import type { Batch, Offset } from "../../src/reading.ts";
import type { Written } from "../../src/sinks/sink.ts";

/** A runner of batches of two over a journal of `size` records, which stops when nothing is left to be read. */
async function run(
  size: number,
  write: (
    batch: Batch,
    stop: () => void,
    seek: (to: number) => void,
    position: () => number,
  ) => Written | Promise<Written>,
  { holds = false, waits = 0, marked = [] as readonly number[] } = {},
) {
  const stopping = new AbortController();
  const stop = (): void => stopping.abort();
  const seek = (to: number): void => {
    reader.position = toOffset(to);
  };
  const commits: number[] = [];
  const counts: unknown[] = [];
  const marks = [...marked];
  const settled: number[] = [];
  const failures: string[] = [];
  const cursor = {
    position: toOffset(0),
    durable: toOffset(0),
    origin: "kept" as const,
    commit(to: Offset) {
      cursor.position = to;
      commits.push(to);
    },
    flush: () => {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const reader = {
    position: toOffset(0),
    atLimit: false,
    get lag() {
      return size - reader.position;
    },
    seek,
    read({ records }: { readonly records: number }) {
      const from = reader.position;
      seek(Math.min(size, from + records));
      reader.atLimit = reader.position - from === records;
      return Array.from({ length: reader.position - from }, (_, index) => ({
        kind: "accepted" as const,
        offset: toOffset(from + index),
        stream: "climate",
        message: { receivedAt: 1 },
      })) as never[];
    },
    wait() {
      waits -= 1;
      if (waits < 0) stop();
      return Promise.resolve();
    },
    [Symbol.dispose]: () => {},
  };
  const open = () =>
    Promise.resolve({
      write: (batch: Batch) => Promise.resolve().then(() => write(batch, stop, seek, () => reader.position)),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    });
  await runSink(open, {
    gateway: "g",
    reader,
    cursor,
    registry: { read: () => ({ kind: "reading", reading: {} }) } as never,
    parking: {
      takeMarked: () => marks.splice(0, 1).map((offset) => ({ offset, gateway: "g", stream: "climate", message: {} })),
      settle: (_gateway: string, taken: readonly Offset[]) => settled.push(...taken),
    } as never,
    progress: {
      holding: () => {},
      running: () => {},
      count: (counted: unknown) => counts.push(counted),
      failed: (cause: Error) => failures.push(cause.message),
    } as never,
    backoff: { minimumMs: 1, maximumMs: 1 },
    batch: { records: 2, bytes: 100, lingerMs: 0 },
    timeoutMs: 60_000,
    holds,
    stopping: stopping.signal,
    abort: new AbortController().signal,
  });
  return { commits, counts, failures, settled };
}

const toHeld = ({ moreFollows }: Batch): Written => ({ kind: moreFollows === true ? "held" : "all" });

test("what a sink holds back is counted and committed with the batch that makes it durable", async () => {
  const batches: unknown[] = [];
  const result = await run(7, (batch) => {
    batches.push([batch.entries.map(({ offset }) => offset), batch.next, batch.moreFollows]);
    return toHeld(batch);
  });
  expect(batches).toEqual([
    [[0, 1], 2, true],
    [[2, 3], 4, true],
    [[4, 5], 6, true],
    [[6], 7, false],
  ]);
  expect(result).toMatchObject({ commits: [7], counts: [{ delivered: 7, parked: 0, passed: 0 }], failures: [] });
});

test("parked records that are to be tried again are tried without a rest, while nothing else comes", async () => {
  const { settled } = await run(0, () => ({ kind: "all" }), { marked: [5, 6, 7] });
  expect(settled).toEqual([5, 6, 7]);
});

test("what a sink holds back is made durable before it stops", async () => {
  const result = await run(100, (batch, stop) => {
    stop();
    return toHeld(batch);
  });
  expect(result).toMatchObject({ commits: [4], counts: [{ delivered: 4 }] });
});

test("what a sink holds back is made durable by an empty batch when what followed is gone", async () => {
  const batches: number[] = [];
  const result = await run(100, (batch, _stop, seek) => {
    batches.push(batch.entries.length);
    if (batch.moreFollows === true) seek(100);
    return toHeld(batch);
  });
  expect(batches).toEqual([2, 0]);
  expect(result).toMatchObject({ commits: [100], counts: [{ delivered: 2 }] });
});

test("what a sink holds back comes again when a later batch fails, and is counted once", async () => {
  const offsets: number[] = [];
  let fails = true;
  const result = await run(4, (batch) => {
    offsets.push(...batch.entries.map(({ offset }) => offset));
    if (batch.moreFollows !== true && fails) {
      fails = false;
      throw new Error("disk full");
    }
    return toHeld(batch);
  });
  expect(offsets).toEqual([0, 1, 2, 3, 0, 1, 2, 3]);
  expect(result).toMatchObject({
    commits: [4],
    counts: [{ delivered: 4, parked: 0, passed: 0 }],
    failures: ["disk full"],
  });
});

test("a sink that holds back the last batch has failed", async () => {
  let lives = 0;
  const result = await run(1, (_batch, stop) => {
    lives += 1;
    if (lives === 2) stop();
    return { kind: lives === 1 ? "held" : "all" };
  });
  expect(result).toMatchObject({ commits: [1], failures: ["the sink holds a batch that is the last"] });
});

test("while a sink waits for its server, the next batch is read, and no more than that", async () => {
  const reads: number[] = [];
  await run(9, async (_batch, _stop, _seek, position) => {
    for (let turns = 0; turns < 5; turns += 1) await setImmediate();
    reads.push(position());
    return { kind: "all" };
  });
  expect(reads).toEqual([4, 6, 8, 9, 9]);
});

test("nothing is read ahead of a sink that works in the thread itself", async () => {
  const reads: number[] = [];
  await run(9, async (_batch, _stop, _seek, position) => {
    await Promise.resolve();
    reads.push(position());
    return { kind: "all" };
  });
  expect(reads).toEqual([2, 4, 6, 8, 9]);
});

describe("a sink that holds what it has for longer", () => {
  test("is given an empty batch while nothing comes, until it has made all of it durable", async () => {
    const batches: number[] = [];
    const result = await run(
      3,
      (batch) => {
        batches.push(batch.entries.length);
        return { kind: batches.length < 5 ? "held" : "all" };
      },
      { holds: true, waits: 3 },
    );
    expect(batches).toEqual([2, 1, 0, 0, 0]);
    expect(result).toMatchObject({ commits: [3], counts: [{ delivered: 3, parked: 0, passed: 0 }], failures: [] });
  });

  test("is closed without a further batch when the gateway stops, and nothing of what it held counts", async () => {
    const batches: number[] = [];
    const result = await run(
      3,
      (batch) => {
        batches.push(batch.entries.length);
        return { kind: "held" };
      },
      { holds: true },
    );
    expect(batches).toEqual([2, 1, 0]);
    expect(result).toMatchObject({ commits: [], counts: [], failures: [] });
  });
});
