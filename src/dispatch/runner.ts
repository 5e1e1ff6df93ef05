// Runs a sink: read, write, commit the cursor, for ever. Whatever fails is tried again from the last position, with a sink
// that is opened anew; only a record that can never be written is set aside, and nothing is ever skipped.

import { setImmediate, setTimeout } from "node:timers/promises";
import { toError } from "../errors.ts";
import type { Cursor } from "../journal/cursor.ts";
import type { Reader } from "../journal/reader.ts";
import type { JournalEntry } from "../journal/record.ts";
import type { Batch, Offset } from "../reading.ts";
import type { BatchLimits, Sink } from "../sinks/sink.ts";
import type { Registry } from "../validate/registry.ts";
import { bounded, deliver, SinkHangs } from "./delivery.ts";
import type { Delivered, Refusal } from "./delivery.ts";
import { readChunk } from "./feed.ts";
import type { Chunk } from "./feed.ts";
import type { Parked, Parking } from "./parked.ts";
import type { Progress } from "./progress.ts";
import { createBackoff, toFailure } from "./retry.ts";
import type { BackoffOptions } from "./retry.ts";
import { createRetrier } from "./retry-parked.ts";
import type { Retrier } from "./retry-parked.ts";

/** What the runner of any consumer works with. */
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
}

export interface SinkRunnerOptions extends RunnerOptions {
  /** Names of the streams whose readings the sink is given; undefined: all. */
  readonly only?: ReadonlySet<string> | undefined;
  readonly batch: BatchLimits;
  /** Of a write, and of opening the sink. */
  readonly timeoutMs: number;
  /** The sink may hold batches for longer than more follows. */
  readonly holds?: boolean;
}

/** A longer linger looks this often whether a batch is full already. */
const lingerStepMs = 20;
/** A sink that hangs while it is closed is left behind after this time. */
const closeMs = 5_000;
/** A reader is woken by each commit; this bounds what a lost wake-up costs, and how long a sink that holds is left alone. */
export const wakeMs = 1_000;

/** Runs until `stopping`. For what the sink does it rejects only with SinkHangs: then its thread must end. */
export async function runSink(open: () => Promise<Sink>, options: SinkRunnerOptions): Promise<void> {
  const { stopping, progress } = options;
  const backoff = createBackoff(options.backoff);
  while (!stopping.aborted) {
    try {
      await runOnce(open, options, () => backoff.reset());
    } catch (cause) {
      if (cause instanceof SinkHangs) throw cause;
      progress.failed(cause);
      await backoff.pause(stopping, toFailure(cause));
    }
  }
}

/** One life of a sink: until `stopping`, or it throws. */
async function runOnce(open: () => Promise<Sink>, options: SinkRunnerOptions, onSuccess: () => void): Promise<void> {
  const { gateway, reader, cursor, stopping, abort, timeoutMs, progress, holds = false } = options;
  const sink = await bounded(open, { what: "opening the sink", timeoutMs, abort });
  try {
    seek(await sink.position?.(), options);
    const retrier = createSinkRetrier(sink, options);
    let held: Counts | undefined;
    let ahead: Chunk | undefined;
    const mayStop = (): boolean => stopping.aborted && (held === undefined || holds);
    while (!mayStop()) {
      const retried = (held === undefined || holds) && (await retrier.turn());
      const chunk = ahead ?? read(options);
      ahead = undefined;
      if (held === undefined) progress.holding(chunk?.oldestReceivedAt);
      if (chunk !== undefined || held !== undefined || retrier.isHeld) {
        const moreFollows = !stopping.aborted && chunk?.moreFollows === true;
        const batch = { gateway, entries: chunk?.entries ?? [], next: chunk?.next ?? reader.position, moreFollows };
        const delivering = deliverChunk(sink, batch, chunk, options);
        if (moreFollows && (await isWaiting(delivering))) ahead = read(options);
        const { kind, ...counts } = await delivering;
        held = add(held, counts);
        if (kind === "all") {
          progress.count(held);
          held = undefined;
          retrier.settle();
          if (batch.next > cursor.position) cursor.commit(batch.next);
          onSuccess();
        } else if (!holds && !moreFollows) throw new Error("the sink holds a batch that is the last");
      } else pass(options);
      if (held === undefined || holds) progress.running();
      if (chunk !== undefined) await rest(chunk, options);
      else if (retried) await setImmediate();
      else await reader.wait(stopping, wakeMs);
    }
  } finally {
    await close(sink, progress);
  }
}

/**
 * While a sink waits for its server, the next batch is read and decoded: one, and no more. One that works in this thread is
 * done after a turn of the event loop: a second batch in memory would only be garbage that lives longer, a tenth of the time
 * that SQLite takes.
 */
async function isWaiting(delivering: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const settle = (): void => void (settled = true);
  delivering.then(settle, settle);
  await setImmediate();
  return !settled;
}

function createSinkRetrier(sink: Sink, { timeoutMs, abort, progress, ...options }: SinkRunnerOptions): Retrier {
  return createRetrier({
    ...options,
    abort,
    onError: (error) => progress.log("warn", `parked records cannot be tried again: ${error.message}`),
    async attempt(batch, refuse) {
      const { kind } = await deliver(sink, batch, {
        timeoutMs,
        abort,
        onRefused: (reason) => progress.refused(reason),
        park: (refusals) => refusals.forEach(({ offset, reason }) => refuse(offset, reason)),
      });
      return kind;
    },
  });
}

const read = ({ reader, registry, only, batch }: SinkRunnerOptions): Chunk | undefined =>
  readChunk({ reader, registry, only, limit: batch });

/** Nothing is left to be read: what was lost at the end is told, and not told again after a restart. */
function pass({ reader, cursor }: Pick<RunnerOptions, "reader" | "cursor">): void {
  if (reader.position > cursor.position) cursor.commit(reader.position);
}

/**
 * Between two batches. When more waits it is taken at once: `isWaiting` has left a turn of the event loop, without which no timer
 * writes the cursor and no stop arrives. Otherwise some more is let come together: a sink that syncs each single commit of the
 * journal competes with it for the disk.
 */
async function rest({ moreFollows }: Chunk, { reader, batch, stopping }: SinkRunnerOptions): Promise<void> {
  if (moreFollows) return;
  const untilMs = performance.now() + batch.lingerMs;
  for (let leftMs = batch.lingerMs; leftMs > 0; leftMs = untilMs - performance.now()) {
    if (stopping.aborted || reader.lag >= batch.records) break;
    await setTimeout(Math.min(leftMs, lingerStepMs), undefined, { signal: stopping }).catch(() => {});
  }
  // A sink without a linger still leaves a turn.
  return setImmediate();
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

async function deliverChunk(
  sink: Sink,
  batch: Batch,
  chunk: Chunk | undefined,
  options: SinkRunnerOptions,
): Promise<Delivered & { readonly passed: number }> {
  const { refused: notRead = [], passed = 0, records = [] } = chunk ?? {};
  const { timeoutMs, abort, progress } = options;
  park(notRead, options);
  const { parked, ...delivered } = await deliver(sink, batch, {
    timeoutMs,
    abort,
    onRefused: (reason) => progress.refused(reason),
    park: (refusals) => park(toParked(refusals, records), options),
  });
  return { ...delivered, parked: parked + notRead.length, passed };
}

function toParked(refusals: readonly Refusal[], records: readonly JournalEntry[]): readonly Parked[] {
  return refusals.flatMap(({ offset, reason, attempts }) => {
    const entry = records.find((record) => record.offset === offset);
    return entry === undefined ? [] : [{ entry, error: reason, attempts }];
  });
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
