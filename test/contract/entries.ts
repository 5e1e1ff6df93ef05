// What the sinks' tests write, and how: as the dispatcher does.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { z } from "zod";
import { deliver, type Refusal } from "../../src/dispatch/delivery.ts";
import { toOffset } from "../../src/reading.ts";
import type { Batch, Entry } from "../../src/reading.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";

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

/** Of the entries of gateway-1, in their order. */
export const toBatch = (entries: readonly Entry[]): Batch => ({
  gateway: "gateway-1",
  entries,
  next: toOffset((entries.at(-1)?.offset ?? -1) + 1),
});

export const range = (from: number, to: number): readonly number[] =>
  Array.from({ length: to - from }, (_, index) => from + index);

export const never = new AbortController().signal;
const WRITES_WITHIN_MS = 60_000;

/** Until all of the batch is durable but what the sink refuses, which is returned. */
export async function deliverAll(sink: Sink, batch: Batch): Promise<readonly Refusal[]> {
  const refusals: Refusal[] = [];
  const { kind } = await deliver(sink, batch, {
    timeoutMs: WRITES_WITHIN_MS,
    abort: never,
    onRefused() {},
    park: (more) => void refusals.push(...more),
  });
  if (kind === "held") await deliverAll(sink, { ...batch, entries: [], moreFollows: false });
  return refusals;
}

/** Everything below `to` from where the sink says that it is; from `cursor`, if it keeps no position. */
export async function deliverFrom(sink: Sink, cursor: number, to: number): Promise<void> {
  const from = (await sink.position?.()) ?? cursor;
  if (from < to) await deliverAll(sink, makeBatch(range(from, to)));
}
