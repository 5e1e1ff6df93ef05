import { once } from "node:events";
import { describe, expect, test } from "vitest";
import { bounded, deliver, SinkHangs } from "../../src/dispatch/delivery.ts";
import type { Refusal } from "../../src/dispatch/delivery.ts";
import type { Batch } from "../../src/reading.ts";
import { toOffset } from "../../src/reading.ts";
import type { Sink, Written } from "../../src/sinks/sink.ts";
import { makeBatch } from "../contract/sink.ts";

const never = new AbortController().signal;
const offsetsOf = ({ entries }: Batch): readonly number[] => entries.map(({ offset }) => offset);
const range = (from: number, to: number): readonly number[] => Array.from({ length: to - from }, (_, i) => from + i);

interface Case {
  readonly batch: Batch;
  readonly write: Sink["write"];
}

/** Delivers to a sink that answers as `write` does, and tells everything that was asked of it and of the parking. */
async function run({ batch, write }: Case) {
  const batches: Batch[] = [];
  const steps: string[] = [];
  const parked: Refusal[] = [];
  const sink: Sink = {
    write(given, signal) {
      batches.push(given);
      steps.push(`write ${offsetsOf(given).join(",")} to ${given.next}`);
      return write(given, signal);
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const reasons: string[] = [];
  const delivered = await deliver(sink, batch, {
    timeoutMs: 60_000,
    abort: never,
    onRefused: (reason) => reasons.push(reason),
    park(refusals) {
      parked.push(...refusals);
      steps.push(`park ${refusals.map(({ offset }) => offset).join(",")}`);
    },
  });
  return { delivered, batches, steps, parked, reasons };
}

/** Refuses each batch that has one of `bad`, and does not say which. */
const refusing =
  (bad: readonly number[], written: number[] = []): Sink["write"] =>
  (batch) => {
    const offsets = offsetsOf(batch);
    if (offsets.some((offset) => bad.includes(offset)))
      return Promise.resolve({ kind: "refused", reason: "bad value" });
    written.push(...offsets);
    return Promise.resolve({ kind: "all" });
  };

describe("a batch that is refused for its content", () => {
  test("is bisected down to the entries that are refused alone, and the others are written in order", async () => {
    const written: number[] = [];
    const { delivered, parked } = await run({
      batch: makeBatch(range(0, 100)),
      write: refusing([0, 41, 42, 99], written),
    });
    expect(parked.map(({ offset }) => offset)).toEqual([0, 41, 42, 99]);
    expect(written).toEqual(range(0, 100).filter((offset) => ![0, 41, 42, 99].includes(offset)));
    expect(delivered).toEqual({ kind: "all", delivered: 96, parked: 4 });
  });

  test("is written in halves that each end where the next begins, and parks before it passes", async () => {
    const { steps } = await run({ batch: makeBatch([10, 12, 15, 19], 25), write: refusing([12]) });
    expect(steps).toEqual([
      "write 10,12,15,19 to 25",
      "write 10,12 to 15",
      "write 10 to 12",
      "write 12 to 15",
      "park 12",
      "write  to 15",
      "write 15,19 to 25",
    ]);
  });

  test("costs about twice the logarithm of its size for one bad entry", async () => {
    const { batches } = await run({ batch: makeBatch(range(0, 1_024)), write: refusing([700]) });
    expect(batches).toHaveLength(2 * 10 + 2);
  });

  test("tells how many writes an entry was part of, and each refusal", async () => {
    const { parked, reasons } = await run({ batch: makeBatch([0, 1, 2, 3]), write: refusing([3]) });
    expect(parked).toEqual([{ offset: 3, reason: "bad value", attempts: 3 }]);
    expect(reasons).toEqual(["bad value", "bad value", "bad value"]);
  });

  test("with no entries at all is a failure, and so is naming entries that were not given", async () => {
    await expect(run({ batch: makeBatch([], 5), write: () => Promise.resolve({ kind: "refused", reason: "no" }) }))
      .rejects //
      .toThrow("refused a batch without entries: no");
    const refused = [{ offset: toOffset(9), reason: "no" }] as const;
    await expect(
      run({ batch: makeBatch([1]), write: () => Promise.resolve({ kind: "except", refused }) }),
    ).rejects.toThrow("none of those that it was given");
  });

  test("lets only the last part be held", async () => {
    const kinds: (boolean | undefined)[] = [];
    const write = (batch: Batch): Promise<Written> => {
      kinds.push(batch.moreFollows);
      if (offsetsOf(batch).includes(2)) return Promise.resolve({ kind: "refused", reason: "no" });
      return Promise.resolve({ kind: batch.moreFollows === true ? "held" : "all" });
    };
    const { delivered } = await run({ batch: { ...makeBatch([1, 2, 3, 4]), moreFollows: true }, write });
    expect(kinds.at(-1)).toBe(true);
    expect(kinds.slice(1, -1).every((more) => more === false)).toBe(true);
    expect(delivered).toEqual({ kind: "held", delivered: 3, parked: 1 });
  });
});

describe("a call of a sink", () => {
  const bound = { what: "a write", timeoutMs: 20, abort: never };

  test("that takes too long is told so, and its own end is what is waited for", async () => {
    let told: unknown;
    const call = (signal: AbortSignal): Promise<never> =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => {
          told = signal.reason;
          reject(new Error("socket closed"));
        });
      });
    await expect(bounded(call, bound)).rejects.toThrow("a write took longer than 20 ms");
    expect(told).toEqual(new Error("a write took longer than 20 ms"));
  });

  test("that succeeds in spite of the signal has succeeded", async () => {
    expect(await bounded(async (signal) => (await once(signal, "abort")).length, bound)).toBe(1);
  });

  test("that does not end when it is told to gives its thread up", async () => {
    await expect(bounded(() => new Promise(() => {}), bound)).rejects.toThrow(SinkHangs);
  });

  test("rejects with the reason of the gateway, also when that was there before", async () => {
    const abort = AbortSignal.abort(new Error("the gateway is stopping"));
    await expect(
      bounded((signal) => Promise.reject(new Error(`aborted: ${signal.aborted}`)), { ...bound, abort }),
    ).rejects.toThrow("the gateway is stopping");
  });

  test("that fails by itself rejects with its own error", async () => {
    await expect(bounded(() => Promise.reject(new Error("no route")), bound)).rejects.toThrow("no route");
  });
});
