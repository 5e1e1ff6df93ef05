// Runs a sink: read, write, commit the cursor, for ever. Whatever fails is tried again from the last position, with a sink
// that is opened anew; only a record that can never be written is set aside, and nothing is ever skipped.

import { setImmediate, setTimeout } from "node:timers/promises";
import { toError } from "../errors.ts";
import type { Cursor } from "../journal/cursor.ts";
import type { ReadLimit, Reader } from "../journal/reader.ts";
import type { JournalEntry } from "../journal/record.ts";
import type { Batch, Offset } from "../reading.ts";
import type { RefusedEntry, Sink } from "../sinks/sink.ts";
import type { Registry } from "../validate/registry.ts";
import { readChunk } from "./feed.ts";
import type { Chunk } from "./feed.ts";
import type { Parked, Parking } from "./parked.ts";
import type { Progress } from "./progress.ts";
import { createBackoff } from "./retry.ts";
import type { BackoffOptions } from "./retry.ts";

export interface RunnerOptions {
  /** The gateway id. */
  readonly gateway: string;
  readonly reader: Reader;
  readonly cursor: Cursor;
  readonly registry: Registry;
  readonly parking: Parking;
  readonly progress: Progress;
  readonly backoff: BackoffOptions;
  /** Finish the batch in hand, then return. */
  readonly stopping: AbortSignal;
  /** Nobody waits for the batch in hand any longer. */
  readonly abort: AbortSignal;
  /** Of one batch: by default 2,000 records and 4 MiB. */
  readonly limit?: ReadLimit;
}

const standardLimit: ReadLimit = { records: 2_000, bytes: 4 * 1024 * 1024 };
/** How much later than the PUBACK a reading may come to its sink for the sake of larger batches. */
const lingerMs = 20;
/** A sink that hangs while it is closed is left behind after this time. */
const closeMs = 5_000;
/** A reader is woken by each commit; this only bounds what a lost wake-up costs. */
export const wakeMs = 1_000;

/** Runs until `stopping`. It never rejects for what the sink does. */
export async function runSink(open: () => Promise<Sink>, options: RunnerOptions): Promise<void> {
  const { stopping, progress } = options;
  const backoff = createBackoff(options.backoff);
  while (!stopping.aborted) {
    try {
      await runOnce(open, options, () => backoff.reset());
    } catch (cause) {
      progress.failed(cause);
      await backoff.pause(stopping);
    }
  }
}

/** One life of a sink: until `stopping`, or it throws. */
async function runOnce(open: () => Promise<Sink>, options: RunnerOptions, onSuccess: () => void): Promise<void> {
  const { gateway, reader, registry, cursor, stopping, progress, limit = standardLimit } = options;
  const sink = await open();
  try {
    seek(await sink.position?.(), options);
    let held: Counts | undefined;
    while (!stopping.aborted || held !== undefined) {
      const chunk = readChunk({ reader, registry, limit });
      if (held === undefined) progress.holding(chunk?.oldestReceivedAt);
      if (chunk !== undefined || held !== undefined) {
        const moreFollows = !stopping.aborted && reader.lag >= limit.records;
        const batch = { gateway, entries: chunk?.entries ?? [], next: reader.position, moreFollows };
        const { kind, ...counts } = await deliver(sink, batch, chunk, options);
        held = add(held, counts);
        if (kind === "all") {
          progress.count(held);
          held = undefined;
          if (batch.next > cursor.position) cursor.commit(batch.next);
          onSuccess();
        }
      } else pass(options);
      if (held === undefined) progress.running();
      await (chunk === undefined ? reader.wait(stopping, wakeMs) : rest(options, limit));
    }
  } finally {
    await close(sink, progress);
  }
}

/** Nothing is left to be read: what was lost at the end is told, and not told again after a restart. */
export function pass({ reader, cursor }: Pick<RunnerOptions, "reader" | "cursor">): void {
  if (reader.position > cursor.position) cursor.commit(reader.position);
}

/**
 * Between two batches. A full one that waits is taken at the next turn of the event loop: a sink that works synchronously
 * would leave it none, and then no timer writes the cursor and no stop arrives. Otherwise some more is let come together:
 * a sink that syncs each single commit of the journal competes with it for the disk.
 */
async function rest({ reader, stopping }: RunnerOptions, limit: ReadLimit): Promise<void> {
  if (reader.lag >= limit.records) await setImmediate();
  else await setTimeout(lingerMs, undefined, { signal: stopping }).catch(() => {});
}

/**
 * Goes on behind what the sink holds, or else where the cursor is; what it keeps itself is never wrong, the cursor file may
 * be behind or ahead. Tells what the journal no longer has of it.
 */
export function seek(
  kept: Offset | undefined,
  { reader, cursor, progress }: Pick<RunnerOptions, "reader" | "cursor" | "progress">,
): void {
  const wanted = kept ?? cursor.position;
  reader.seek(wanted);
  const found = reader.position;
  if (found > wanted) progress.lost({ kind: "trimmed", from: wanted, to: found });
  if (found < wanted) {
    progress.log(
      "error",
      `the sink is at offset ${wanted}, beyond the journal's end at ${found}: is this an older copy of the journal?`,
    );
  }
  if (found > cursor.position) cursor.commit(found);
}

interface Counts {
  readonly delivered: number;
  readonly parked: number;
  readonly passed: number;
}

function add(to: Counts | undefined, { delivered, parked, passed }: Counts): Counts {
  if (to === undefined) return { delivered, parked, passed };
  return { delivered: to.delivered + delivered, parked: to.parked + parked, passed: to.passed + passed };
}

/**
 * Returns when every entry is with the sink or parked; held: the sink has them, and they are durable later. Parks first,
 * because the sink's own position may pass with a write.
 */
async function deliver(
  sink: Sink,
  whole: Batch,
  chunk: Chunk | undefined,
  options: RunnerOptions,
): Promise<Counts & { readonly kind: "all" | "held" }> {
  const { refused: notRead = [], passed = 0, records = [] } = chunk ?? {};
  park(notRead, options);
  let batch = whole;
  const parked = new Set<Offset>();
  for (;;) {
    const written = await sink.write(batch, options.abort);
    if (written.kind === "refused") throw new Error(written.reason);
    if (written.kind !== "except") {
      if (written.kind === "held" && batch.moreFollows !== true)
        throw new Error("the sink holds a batch that is the last");
      const { length } = whole.entries;
      return { kind: written.kind, delivered: length - parked.size, parked: notRead.length + parked.size, passed };
    }
    const refused = toParked(written.refused, batch, records);
    park(refused, options);
    for (const { entry } of refused) parked.add(entry.offset);
    batch = { ...batch, entries: batch.entries.filter(({ offset }) => !parked.has(offset)) };
  }
}

function toParked(refused: readonly RefusedEntry[], batch: Batch, from: readonly JournalEntry[]): readonly Parked[] {
  const offsets = new Set(batch.entries.map(({ offset }) => offset));
  const records = new Map(from.map((record) => [record.offset, record]));
  const found = new Map<Offset, Parked>();
  for (const { offset, reason } of refused) {
    const entry = records.get(offset);
    if (entry !== undefined && offsets.has(offset)) found.set(offset, { entry, error: reason, attempts: 1 });
  }
  if (found.size === 0) throw new Error("the sink refused entries but none of those that it was given");
  return [...found.values()];
}

/** Durably, with one line in the log for all of them. */
export function park(
  records: readonly Parked[],
  { parking, progress }: Pick<RunnerOptions, "parking" | "progress">,
): void {
  const [first] = records;
  if (first === undefined) return;
  parking.park(records);
  const { offset, stream } = first.entry;
  const which = records.length === 1 ? "a record was" : `${records.length} records were`;
  progress.log("error", `${which} parked, from offset ${offset} of stream ${stream}: ${first.error}`);
}

async function close(sink: Sink, progress: Progress): Promise<void> {
  const closed = new AbortController();
  const { signal } = closed;
  try {
    await Promise.race([sink[Symbol.asyncDispose](), setTimeout(closeMs, undefined, { signal }).catch(() => {})]);
  } catch (cause) {
    progress.log("warn", `the sink could not be closed: ${toError(cause).message}`);
  } finally {
    closed.abort();
  }
}
