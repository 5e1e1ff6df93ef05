// What every sink must do, whatever it writes to. A sink's own test calls describeSink with a way to open it and to read back.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { toOffset } from "../../src/reading.ts";
import type { Batch, Entry, Offset } from "../../src/reading.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";

/** One row as the sink's destination gives it back. */
export interface WrittenRow {
  readonly gateway: string;
  readonly offset: number;
  readonly device: string;
  readonly time: number;
  readonly data: unknown;
}

export interface SinkUnderTest {
  /** Opens the sink; called several times in a test, always for the same destination, which is new in each test. */
  readonly open: (context: SinkContext) => Promise<Sink>;
  /** Everything at the destination, in the order of gateway and offset; read by other means than the sink. */
  readonly rows: (context: SinkContext) => Promise<readonly WrittenRow[]>;
}

const climate = { name: "climate", schema: z.looseObject({ ts: z.int(), text: z.string() }) };

export const openContext = async (gateway = "gateway-1"): Promise<SinkContext> => {
  const dataDir = await mkdtemp(join(tmpdir(), "sluice-sink-"));
  onTestFinished(() => rm(dataDir, { recursive: true, force: true }));
  return { gateway, dataDir, name: "tested", streams: [climate], warn: () => {} };
};

export function makeEntry(offset: number, data: unknown = { ts: 1_000 + offset, text: `ünï ' " ${offset}` }): Entry {
  const reading = {
    stream: "climate",
    deviceId: `device-${offset % 3}`,
    topic: `devices/device-${offset % 3}/telemetry`,
    time: 1_000 + offset,
    receivedAt: 2_000 + offset,
    data,
  };
  return { offset: toOffset(offset), reading };
}

export function makeBatch(offsets: readonly number[], next = Math.max(...offsets) + 1, gateway = "gateway-1"): Batch {
  return { gateway, entries: offsets.map((offset) => makeEntry(offset)), next: toOffset(next) };
}

const never = new AbortController().signal;
const range = (from: number, to: number): readonly number[] => Array.from({ length: to - from }, (_, i) => from + i);
const toRow = ({ offset, reading }: Entry, gateway = "gateway-1"): WrittenRow => {
  const { deviceId, time, data } = reading;
  return { gateway, offset, device: deviceId, time, data };
};

export function describeSink(name: string, { open, rows }: SinkUnderTest): void {
  describe(`${name} is a sink`, () => {
    test("that writes every entry of its batches, in order", async () => {
      const context = await openContext();
      await using sink = await open(context);
      expect(await sink.write(makeBatch(range(0, 500)), never)).toEqual({ kind: "all" });
      expect(await sink.write(makeBatch([500, 503, 507]), never)).toEqual({ kind: "all" });
      expect(await rows(context)).toEqual([...range(0, 500), 500, 503, 507].map((offset) => toRow(makeEntry(offset))));
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
      expect(await rows(context)).toEqual(range(0, 15).map((offset) => toRow(makeEntry(offset))));
    });

    test("that keeps the entries of two gateways apart", async () => {
      const context = await openContext();
      await using one = await open(context);
      await one.write(makeBatch([0, 1]), never);
      await using two = await open({ ...context, gateway: "gateway-2" });
      await two.write(makeBatch([1, 2], 3, "gateway-2"), never);
      expect(await rows(context)).toEqual([
        ...[0, 1].map((offset) => toRow(makeEntry(offset))),
        ...[1, 2].map((offset) => toRow(makeEntry(offset), "gateway-2")),
      ]);
    });

    test("whose position, if it keeps one, is behind the last batch, also an empty one, and never goes back", async () => {
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
      expect([first, second, await kept()]).toEqual(first === undefined ? [first, first, first] : [9, 12, 12]);
    });

    test("that takes an empty batch", async () => {
      const context = await openContext();
      await using sink = await open(context);
      expect(await sink.write(makeBatch([], 5), never)).toEqual({ kind: "all" });
      expect(await rows(context)).toEqual([]);
    });

    test("that rejects when the signal has been aborted, and takes the batch later", async () => {
      const context = await openContext();
      await using sink = await open(context);
      await expect(sink.write(makeBatch([0]), AbortSignal.abort(new Error("enough")))).rejects.toThrow("enough");
      await sink.write(makeBatch([0, 1]), never);
      expect((await rows(context)).map(({ offset }) => offset)).toEqual([0, 1]);
    });

    test("that can be closed twice", async () => {
      const sink = await open(await openContext());
      await sink[Symbol.asyncDispose]();
      await expect(sink[Symbol.asyncDispose]()).resolves.toBeUndefined();
    });
  });
}
