// Gives a sink once more what the journal holds, beside live delivery and at a pace of its own. Whatever fails is tried
// again like live delivery; the sink's position and cursor are not concerned.

import { setImmediate, setTimeout } from "node:timers/promises";
import type { JournalEntry } from "../journal/record.ts";
import { toOffset } from "../reading.ts";
import type { Entry, Offset } from "../reading.ts";
import type { BatchLimits, Sink } from "../sinks/sink.ts";
import type { Registry } from "../validate/registry.ts";
import { bounded, deliver, SinkHangs } from "./delivery.ts";
import type { Delivered } from "./delivery.ts";
import { describeRejection } from "./feed.ts";
import { createBackoff, toFailure } from "./retry.ts";
import type { BackoffOptions } from "./retry.ts";

export interface ReplayOptions {
  /** The gateway id of the journal. */
  readonly gateway: string;
  /** The records from an offset on, in order. Called anew after a failure. */
  readonly read: (from: Offset) => Iterable<JournalEntry>;
  readonly from: Offset;
  readonly open: () => Promise<Sink>;
  readonly registry: Registry;
  /** Names of the streams whose readings the sink is given; undefined: all. */
  readonly only?: ReadonlySet<string> | undefined;
  readonly batch: BatchLimits;
  readonly timeoutMs: number;
  readonly backoff: BackoffOptions;
  /** Readings in a second at most; undefined: as fast as the sink takes them. */
  readonly rate?: number | undefined;
  /** Finish the batch in hand, then return. */
  readonly stopping: AbortSignal;
  /** Nobody waits for the batch in hand any longer. */
  readonly abort: AbortSignal;
  /** A record that is not written, and why: today's schema refuses it, or the sink. */
  readonly onRefused: (offset: Offset, stream: string, reason: string) => void;
  /** An attempt has failed and is made again. */
  readonly onFailed: (message: string) => void;
  readonly onProgress: (progress: ReplayProgress) => void;
}

export interface ReplayProgress {
  /** Everything below is written, or refused. */
  readonly next: Offset;
  readonly written: number;
  readonly refused: number;
}

interface Piece {
  readonly entries: readonly Entry[];
  /** Behind the last record that was read for it. */
  readonly next: Offset;
}

/** A sink that holds what it was given is asked so often whether it is durable. */
const heldMs = 1_000;
const closeMs = 5_000;
/** What a record counts for beside its payload. */
const recordBytes = 100;

/** Resolves when everything is written, or when stopped. Rejects with what only a person can mend, and with SinkHangs. */
export async function replay(options: ReplayOptions): Promise<ReplayProgress> {
  const { stopping, onFailed } = options;
  const backoff = createBackoff(options.backoff);
  const state = createState(options);
  for (;;) {
    try {
      await runOnce(options, state, () => backoff.reset());
      return state.progress;
    } catch (cause) {
      const failure = toFailure(cause);
      if (cause instanceof SinkHangs || failure.kind === "misconfigured") throw cause;
      if (stopping.aborted) return state.progress;
      onFailed(failure.message);
      await backoff.pause(stopping, failure);
      if (stopping.aborted) return state.progress;
    }
  }
}

interface State {
  readonly progress: ReplayProgress;
  /** Told once, also when the record comes again after a failure. */
  refuse(offset: Offset, stream: string, reason: string): void;
  /** Written, and durable unless `held`. */
  wrote(count: number, next: Offset, held: boolean): void;
  /** What is held comes again. */
  begin(): Offset;
}

function createState({ from, onRefused, onProgress }: ReplayOptions): State {
  const refused = new Set<Offset>();
  let next = from;
  let written = 0;
  let held = 0;
  const progress = (): ReplayProgress => ({ next, written, refused: refused.size });
  return {
    get progress() {
      return progress();
    },
    refuse(offset, stream, reason) {
      if (refused.has(offset)) return;
      refused.add(offset);
      onRefused(offset, stream, reason);
    },
    wrote(count, to, isHeld) {
      held += count;
      if (isHeld) return;
      written += held;
      held = 0;
      next = to;
      onProgress(progress());
    },
    begin() {
      held = 0;
      return next;
    },
  };
}

/** One life of the sink: to the end, until stopped, or it throws. */
async function runOnce(options: ReplayOptions, state: State, onSuccess: () => void): Promise<void> {
  const { gateway, open, registry, stopping, abort, timeoutMs } = options;
  const sink = await bounded(open, { what: "opening the sink", timeoutMs, abort });
  const pace = createPace(options);
  const write = async ({ entries, next }: Piece): Promise<Delivered["kind"]> => {
    const streams = new Map(entries.map(({ offset, reading }) => [offset, reading.stream]));
    const batch = { gateway, entries, next, replay: true };
    const { kind, delivered } = await deliver(sink, batch, {
      timeoutMs,
      abort,
      onRefused: () => {},
      park: (refusals) => {
        for (const { offset, reason } of refusals) state.refuse(offset, streams.get(offset) ?? "", reason);
      },
    });
    state.wrote(delivered, next, kind === "held");
    if (kind === "all") onSuccess();
    return kind;
  };
  try {
    let end = state.begin();
    let last: Delivered["kind"] = "all";
    for (const piece of toPieces(options.read(end), options, registry, state)) {
      if (stopping.aborted) break;
      last = await write(piece);
      end = piece.next;
      await pace(piece.entries.length);
    }
    if (last === "held") last = await write({ entries: [], next: end });
    while (last === "held" && !abort.aborted) {
      await setTimeout(heldMs, undefined, { signal: abort }).catch(() => {});
      last = await write({ entries: [], next: end });
    }
  } finally {
    await close(sink);
  }
}

/** Batches of what the sink is given; the last may be empty. */
function* toPieces(
  records: Iterable<JournalEntry>,
  { only, batch, rate = Infinity }: ReplayOptions,
  registry: Registry,
  state: State,
): Generator<Piece, void> {
  const most = Math.min(batch.records, rate);
  let entries: Entry[] = [];
  let bytes = 0;
  let next: Offset | undefined;
  for (const { offset, kind, stream, message } of records) {
    next = toOffset(offset + 1);
    if (kind !== "accepted" || only?.has(stream) === false) continue;
    const result = registry.read(message, stream);
    if (result.kind === "reading") entries.push({ offset, reading: result.reading });
    else state.refuse(offset, stream, describeRejection(result.rejection));
    bytes += recordBytes + message.payload.length;
    if (entries.length < most && bytes < batch.bytes) continue;
    yield { entries, next };
    entries = [];
    bytes = 0;
  }
  if (next !== undefined) yield { entries, next };
}

/** Resolves when the next batch may be written. A turn of the event loop passes in any case, for signals and timers. */
function createPace({ rate, stopping }: ReplayOptions): (written: number) => Promise<void> {
  const startMs = performance.now();
  let total = 0;
  return async (written) => {
    await setImmediate();
    if (rate === undefined) return;
    total += written;
    const waitMs = startMs + (total / rate) * 1000 - performance.now();
    if (waitMs > 0) await setTimeout(waitMs, undefined, { signal: stopping }).catch(() => {});
  };
}

async function close(sink: Sink): Promise<void> {
  const closed = new AbortController();
  const { signal } = closed;
  // What it was asked to write it has confirmed.
  const closing = (async () => sink[Symbol.asyncDispose]())().catch(() => {});
  await Promise.race([closing, setTimeout(closeMs, undefined, { signal }).catch(() => {})]);
  closed.abort();
}
