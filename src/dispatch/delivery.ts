// One batch into a sink, until each of its entries is written or parked: bounded in time, and without what the sink can
// never take. Live delivery, replay and the second try of what is parked all go through here.

import { toError, unreachable } from "../errors.ts";
import type { Batch, Entry, Offset } from "../reading.ts";
import type { RefusedEntry, Sink, Written } from "../sinks/sink.ts";

/** An entry that the sink refused for its content. */
export interface Refusal extends RefusedEntry {
  /** Writes that it was part of. */
  readonly attempts: number;
}

export interface DeliveryOptions {
  /** A write that takes longer is aborted and has failed. */
  readonly timeoutMs: number;
  /** Nobody waits for the write any longer. */
  readonly abort: AbortSignal;
  /** The sink has refused entries, which it may not have said yet. */
  readonly onRefused: (reason: string) => void;
  /** Durably, before anything behind them is written: a sink's own position may pass with the next write. */
  readonly park: (refusals: readonly Refusal[]) => void;
}

/** held: the sink has what was delivered, and it is durable later. */
export interface Delivered {
  readonly kind: "all" | "held";
  readonly delivered: number;
  readonly parked: number;
}

/** A sink did not settle though it was told to: only the end of its thread stops what it is doing. */
export class SinkHangs extends Error {
  override readonly name = "SinkHangs";
}

/** From aborting a call to giving its thread up. */
const graceMs = 5_000;

/** Rejects when the sink throws or takes too long: nothing is known of the batch then. SinkHangs: its thread must end. */
export async function deliver(sink: Sink, batch: Batch, options: DeliveryOptions, attempts = 1): Promise<Delivered> {
  const written = await write(sink, batch, options);
  switch (written.kind) {
    case "all":
    case "held":
      return { kind: written.kind, delivered: batch.entries.length, parked: 0 };
    case "except": {
      const given = new Set(batch.entries.map(({ offset }) => offset));
      const refused = written.refused.filter(({ offset }) => given.has(offset));
      if (refused.length === 0) throw new Error("the sink refused entries but none of those that it was given");
      return withoutRefused(sink, batch, refused, options, attempts);
    }
    case "refused":
      return divide(sink, batch, written.reason, options, attempts);
    default:
      return unreachable(written);
  }
}

async function withoutRefused(
  sink: Sink,
  batch: Batch,
  refused: readonly RefusedEntry[],
  options: DeliveryOptions,
  attempts: number,
): Promise<Delivered> {
  options.onRefused(refused[0]?.reason ?? "");
  options.park(refused.map(({ offset, reason }) => ({ offset, reason, attempts })));
  const offsets = new Set<Offset>(refused.map(({ offset }) => offset));
  const entries = batch.entries.filter(({ offset }) => !offsets.has(offset));
  const { parked, ...others } = await deliver(sink, { ...batch, entries }, options, attempts + 1);
  return { ...others, parked: parked + offsets.size };
}

/** Bisects: an entry that is refused alone is to blame. Halves are written in order, each behind the other. */
async function divide(
  sink: Sink,
  batch: Batch,
  reason: string,
  options: DeliveryOptions,
  attempts: number,
): Promise<Delivered> {
  const { entries } = batch;
  const [first] = entries;
  if (first === undefined) throw new Error(`the sink refused a batch without entries: ${reason}`);
  if (entries.length === 1) return withoutRefused(sink, batch, [{ offset: first.offset, reason }], options, attempts);
  options.onRefused(reason);
  const middle = Math.floor(entries.length / 2);
  const part = (some: readonly Entry[], rest: Partial<Batch> = {}): Promise<Delivered> =>
    deliver(sink, { ...batch, entries: some, ...rest }, options, attempts + 1);
  const right = entries.slice(middle);
  const before = await part(entries.slice(0, middle), { next: right[0]?.offset ?? batch.next, moreFollows: false });
  const behind = await part(right);
  return {
    kind: behind.kind,
    delivered: before.delivered + behind.delivered,
    parked: before.parked + behind.parked,
  };
}

function write(sink: Sink, batch: Batch, { timeoutMs, abort }: DeliveryOptions): Promise<Written> {
  return bounded((signal) => sink.write(batch, signal), { what: "a write", timeoutMs, abort });
}

export interface Bound {
  /** For the error: what takes too long. */
  readonly what: string;
  readonly timeoutMs: number;
  readonly abort: AbortSignal;
}

/** A call of a sink that settles in any case; the reason of an abort is what it then rejects with. */
export async function bounded<Result>(
  call: (signal: AbortSignal) => Promise<Result>,
  { what, timeoutMs, abort }: Bound,
): Promise<Result> {
  const limit = new AbortController();
  const hanging = Promise.withResolvers<never>();
  let timer: NodeJS.Timeout | undefined;
  const stop = (reason: Error): void => {
    limit.abort(reason);
    clearTimeout(timer);
    timer = setTimeout(() => hanging.reject(new SinkHangs(`${reason.message}, and did not end when told to`)), graceMs);
  };
  const onAbort = (): void => stop(toError(abort.reason));
  timer = setTimeout(() => stop(new Error(`${what} took longer than ${timeoutMs} ms`)), timeoutMs);
  abort.addEventListener("abort", onAbort);
  if (abort.aborted) onAbort();
  try {
    return await Promise.race([call(limit.signal), hanging.promise]);
  } catch (cause) {
    throw limit.signal.aborted && !(cause instanceof SinkHangs) ? toError(limit.signal.reason) : cause;
  } finally {
    clearTimeout(timer);
    abort.removeEventListener("abort", onAbort);
  }
}
