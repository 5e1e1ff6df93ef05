// What every sink must do, whatever it writes to. A sink's own test calls describeSink with a way to open it and to read back.

import { describe, expect, test } from "vitest";
import type { Batch, Offset } from "../../src/reading.ts";
import { deliverAll, makeBatch, makeEntry, never, openContext, range, toBatch } from "./entries.ts";
import { describeServer, describeWay } from "./faults.ts";
import { describeHostile } from "./hostile.ts";
import { readOnce, toRow } from "./sink-under-test.ts";
import type { SinkUnderTest } from "./sink-under-test.ts";

export { makeBatch, makeEntry, openContext } from "./entries.ts";
export type { WrittenRow } from "./sink-under-test.ts";

/** Of the huge batch: 20,000 entries of together 16 MB. */
const HUGE = { entries: 20_000, text: "x".repeat(800) };

export function describeSink(name: string, tested: SinkUnderTest): void {
  describe(`${name} is a sink`, () => {
    describeWriting(tested);
    describeRefusing(tested);
    describeHostile(tested);
    describeEnding(tested);
    const { server, openAt, survives } = tested;
    if (server !== undefined && openAt !== undefined) describeWay({ ...tested, server, openAt });
    if (server !== undefined && survives !== undefined) describeServer({ ...tested, server, survives });
  });
}

function describeWriting(tested: SinkUnderTest): void {
  const { open, once } = tested;

  test("that writes every entry of its batches, in order", async () => {
    const context = await openContext();
    await using sink = await open(context);
    expect(await sink.write(makeBatch(range(0, 500)), never)).toEqual({ kind: "all" });
    expect(await sink.write(makeBatch([500, 503, 507]), never)).toEqual({ kind: "all" });
    const written = [...range(0, 500), 500, 503, 507];
    expect(await readOnce(tested, context)).toEqual(written.map((offset) => toRow(makeEntry(offset))));
  });

  test("that is changed by nothing when the same entries come again, in other batches and after opening again", async () => {
    const context = await openContext();
    {
      await using sink = await open(context);
      await sink.write(makeBatch(range(0, 10)), never);
      await sink.write(makeBatch(range(0, 10)), never);
    }
    await using sink = await open(context);
    await sink.write(makeBatch(range(5, 15)), never);
    expect(await readOnce(tested, context)).toEqual(range(0, 15).map((offset) => toRow(makeEntry(offset))));
  });

  test("that keeps the entries of two gateways apart", async () => {
    const context = await openContext();
    await using one = await open(context);
    await one.write(makeBatch([0, 1]), never);
    await using two = await open({ ...context, gateway: "gateway-2" });
    await two.write(makeBatch([1, 2], 3, "gateway-2"), never);
    expect(await readOnce(tested, context)).toEqual([
      ...[0, 1].map((offset) => toRow(makeEntry(offset))),
      ...[1, 2].map((offset) => toRow(makeEntry(offset), "gateway-2")),
    ]);
  });

  test("whose position, which it keeps when it writes exactly once, is behind the last batch, also an empty one, and never goes back", async () => {
    const context = await openContext();
    const kept = async (): Promise<Offset | undefined> => {
      await using sink = await open(context);
      return await sink.position?.();
    };
    const write = async (batch: Batch): Promise<void> => {
      await using sink = await open(context);
      await sink.write(batch, never);
    };
    expect(await kept()).toBeUndefined();
    await write(makeBatch([3, 4], 9));
    const first = await kept();
    await write(makeBatch([], 12));
    const second = await kept();
    await write(makeBatch([3, 4], 9));
    const expected = once === "exactly" ? [9, 12, 12] : [undefined, undefined, undefined];
    expect([first, second, await kept()]).toEqual(expected);
  });

  test("that takes an empty batch", async () => {
    const context = await openContext();
    await using sink = await open(context);
    expect(await sink.write(makeBatch([], 5), never)).toEqual({ kind: "all" });
    expect(await readOnce(tested, context)).toEqual([]);
  });

  test("that may hold a batch which more follows, and has it once it says so or is opened again", async () => {
    const context = await openContext();
    {
      await using sink = await open(context);
      await sink.write({ ...makeBatch(range(0, 5)), moreFollows: true }, never);
      await deliverAll(sink, makeBatch(range(5, 10)));
      await sink.write({ ...makeBatch(range(10, 15)), moreFollows: true }, never);
    }
    await using sink = await open(context);
    const from = (await sink.position?.()) ?? 10;
    await deliverAll(sink, makeBatch(range(from, 20)));
    expect(await readOnce(tested, context)).toEqual(range(0, 20).map((offset) => toRow(makeEntry(offset))));
  });

  test("that writes a replay beside what it has, and leaves its position where it was", async () => {
    const context = await openContext();
    await using sink = await open(context);
    await deliverAll(sink, makeBatch([3, 4, 5]));
    const position = await sink.position?.();
    await deliverAll(sink, { ...makeBatch([3, 9]), replay: true });
    expect(await sink.position?.()).toBe(position);
    const found = new Set((await tested.rows(context)).map(({ offset }) => offset));
    expect([...found].toSorted((a, b) => a - b)).toEqual([3, 4, 5, 9]);
  });

  test("that writes 20,000 entries of 16 MB in one batch", async () => {
    const context = await openContext();
    await using sink = await open(context);
    const offsets = range(0, HUGE.entries);
    const entries = offsets.map((offset) => makeEntry(offset, { ts: offset, text: HUGE.text }));
    expect(await deliverAll(sink, toBatch(entries))).toEqual([]);
    const found = await readOnce(tested, context);
    expect(found.map(({ offset }) => offset)).toEqual(offsets);
    expect(new Set(found.map(({ data }) => (data as { readonly text: string }).text))).toEqual(new Set([HUGE.text]));
  });
}

function describeRefusing(tested: SinkUnderTest): void {
  const { open, refuses = { ts: 1, text: "", big: 1n } } = tested;

  test("that refuses only what it can never write, says why, and keeps its position until that is parked", async () => {
    const context = await openContext();
    await using sink = await open(context);
    await deliverAll(sink, makeBatch([0]));
    const position = await sink.position?.();
    const entries = [1, 2, 3, 4, 5].map((offset) => makeEntry(offset, offset % 2 === 0 ? refuses : undefined));
    const { kind } = await sink.write(toBatch(entries), never);
    expect(["except", "refused"]).toContain(kind);
    expect(await sink.position?.()).toBe(position);
    const refused = await deliverAll(sink, toBatch(entries));
    expect(refused.map(({ offset }) => offset)).toEqual([2, 4]);
    expect(refused.filter(({ reason }) => reason.length < 10)).toEqual([]);
    expect(await readOnce(tested, context)).toEqual([0, 1, 3, 5].map((offset) => toRow(makeEntry(offset))));
    expect(await sink.position?.()).toBe(position === undefined ? undefined : 6);
  });
}

function describeEnding({ open, ...tested }: SinkUnderTest): void {
  test("that rejects when the signal has been aborted, and takes the batch later", async () => {
    const context = await openContext();
    await using sink = await open(context);
    await expect(sink.write(makeBatch([0]), AbortSignal.abort(new Error("enough")))).rejects.toThrow("enough");
    await sink.write(makeBatch([0, 1]), never);
    expect((await readOnce({ open, ...tested }, context)).map(({ offset }) => offset)).toEqual([0, 1]);
  });

  test("that can be closed twice", async () => {
    const sink = await open(await openContext());
    await sink[Symbol.asyncDispose]();
    await expect(sink[Symbol.asyncDispose]()).resolves.toBeUndefined();
  });
}
