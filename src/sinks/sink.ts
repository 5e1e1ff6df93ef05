// The contract of a sink, and defineSink for configuration files. A sink runs in a worker thread of its own: it may block
// that thread, and nothing it does reaches ingest or another sink.

import type { z } from "zod";
import type { Batch, Offset } from "../reading.ts";

/** A stream of the configuration, as a sink may know it. */
export interface SinkStream {
  readonly name: string;
  /** What the stream's readings satisfy now; what was accepted long ago was checked again before a sink gets it. */
  readonly schema: z.ZodType;
}

/** What a sink is told when it is opened. */
export interface SinkContext {
  /** The gateway id: identifies the journal that the offsets belong to. */
  readonly gateway: string;
  /** Absolute path of the gateway's data directory; it exists. */
  readonly dataDir: string;
  /**
   * The sink's name in the configuration, unique among all sinks and handlers; of a replay, which is a second sink beside
   * the first, another one. For a client id and the like.
   */
  readonly name: string;
  /** The streams whose readings it is given. */
  readonly streams: readonly SinkStream[];
  /** A line in the gateway's log for what an operator may want to look into and what is no failure. */
  warn(text: string): void;
}

/**
 * What a sink throws when it knows more than that it failed; any other error counts as transient. Both are retried for ever.
 * transient: the server is away, busy, too slow. misconfigured: it will fail until a person changes something (credentials,
 * a missing table, a wrong URL): told as an ERROR, and retried at the longest interval.
 */
export class SinkError extends Error {
  readonly kind: "transient" | "misconfigured";
  /** The server has asked to be left alone for so long. */
  readonly retryAfterMs: number | undefined;

  constructor(
    kind: SinkError["kind"],
    message: string,
    { retryAfterMs, cause }: { readonly retryAfterMs?: number | undefined; readonly cause?: unknown } = {},
  ) {
    super(message, { cause });
    this.name = "SinkError";
    this.kind = kind;
    this.retryAfterMs = retryAfterMs;
  }
}

/** One entry that a sink can never take, and why, as a sentence for the operator. */
export interface RefusedEntry {
  readonly offset: Offset;
  readonly reason: string;
}

/**
 * What became of a batch.
 * all: every entry is where it belongs and stays there after a power cut of either side; the cursor moves to `batch.next`.
 * except: the content of these entries makes them impossible to write, now and later (never for a cause that may pass: throw
 * then). They are parked durably, and the others come again without them under the same `next`. So the sink may have
 * written the others or not; but a sink with a `position` must have left it where it was, because what is parked only
 * after the position has passed would be lost by a crash between the two.
 * refused: the batch was refused for its content, and the sink cannot tell which entries are to blame: the same entries
 * come again in smaller batches, in order, until those that are refused alone are known and parked. As with except, the
 * sink may have written some of them, and its position must not have moved.
 * held: only of a batch with `moreFollows`, or of a kind that `holds`: all of it is taken, and is durable with the first later batch that is answered with
 * all. Until then nothing counts as delivered, and after a throw or a crash everything that was held comes again.
 */
export type Written =
  | { readonly kind: "all" }
  | { readonly kind: "held" }
  | { readonly kind: "except"; readonly refused: readonly [RefusedEntry, ...RefusedEntry[]] }
  | { readonly kind: "refused"; readonly reason: string };

/**
 * Where readings go. One call at a time, in this order: position, write, write, …, dispose. After a call has thrown, the
 * sink is disposed and a new one is opened, with backoff and for ever; so a sink needs no logic for reconnecting.
 */
export interface Sink extends AsyncDisposable {
  /**
   * The cursor that the sink itself holds in one transaction with its rows: reading goes on there, so that every entry is
   * written exactly once. undefined when it holds none (yet): the gateway's own cursor counts. Called once after open.
   */
  position?(): Promise<Offset | undefined>;
  /**
   * Writes a batch; resolves when it is durable or held. Throwing means: nothing is known, the same entries come again. So
   * entries may come twice, also after a crash, and (batch.gateway, offset) is their idempotency key. Entries are in
   * journal order; there may be none, when only the position has moved or what is held is to be made durable. Of a batch with
   * `replay` the position is neither asked for nor moved; one without entries ends the replay, and what is held of it is
   * best made durable at once: somebody waits. Aborting `signal` means that the gateway will not wait any longer,
   * because it stops or because the write takes longer than `timeoutMs`: throw soon, and let nothing of it happen later.
   */
  write(batch: Batch, signal: AbortSignal): Promise<Written>;
}

/** How much a write is given. */
export interface BatchLimits {
  /** Readings of one batch at most. */
  readonly records: number;
  /** Bytes of records in the journal, about; a batch has at least one record. */
  readonly bytes: number;
  /** How much later than the PUBACK a reading may come to the sink for the sake of larger batches. */
  readonly lingerMs: number;
}

/** What docs/sinks.md says of a kind beside its settings; Markdown. */
interface SinkReference {
  /** Where the readings go and what is written, in a few sentences. */
  readonly writes: string;
  /** How often a reading may be there after retries, crashes and replays, and what makes that so. */
  readonly once: string;
  /** What is parked, what a server must have, what is not done; one paragraph each. */
  readonly notes: readonly string[];
  /** A call for a configuration, such as `sqlite({ path: "data/telemetry.db" })`. */
  readonly example: string;
}

/** A kind of sink: its name, its settings and how to open it. */
export interface SinkType<Settings extends z.ZodObject = z.ZodObject> {
  /** Names the kind, and a sink of this kind that was given no `name`: lower-case letters, digits, _ and -. */
  readonly type: string;
  /** What the factory takes beside `name`: defaults, bounds and descriptions are used for validation and documentation. */
  readonly settings: Settings;
  /** What a sink of this kind is given at once unless its configuration says otherwise; see `standardBatch`. */
  readonly batch?: Partial<BatchLimits>;
  /**
   * A sink of this kind may answer held to a batch without `moreFollows` too. It is then given a batch, if need be an empty
   * one, once a second, so that it can make durable by time what it holds. When the gateway stops it is closed without a
   * further batch: what it held and did not make durable comes again.
   */
  readonly holds?: boolean;
  readonly reference?: SinkReference;
  /** Called in the sink's worker, with validated settings. Throwing means: cannot be reached now, tried again with backoff. */
  open(settings: z.output<Settings>, context: SinkContext): Promise<Sink>;
}

export const standardBatch: BatchLimits = { records: 2_000, bytes: 4 * 1024 * 1024, lingerMs: 20 };

/** A sink in a configuration: which kind, and the settings as they were given, not yet validated. */
export interface SinkDefinition {
  readonly kind: "sink";
  readonly sink: SinkType;
  readonly given: unknown;
}

/** What every sink takes beside the settings of its kind; docs/configuration.md says what each means. */
interface CommonSinkSettings {
  readonly name?: string;
  /** Names of streams. */
  readonly only?: readonly string[];
  readonly from?: "start" | "now";
  readonly batch?: Partial<BatchLimits>;
  readonly retry?: { readonly minimumMs?: number; readonly maximumMs?: number };
  readonly timeoutMs?: number;
}

/** The type that zod gives to an object without settings would forbid the common ones. */
type Own<Settings extends z.ZodObject> = string extends keyof z.input<Settings> ? unknown : z.input<Settings>;
type Given<Settings extends z.ZodObject> = Own<Settings> & CommonSinkSettings;
/** The argument may be left out when every setting may. */
type Arguments<Settings extends z.ZodObject> =
  Partial<Own<Settings>> extends Own<Settings> ? [given?: Given<Settings>] : [given: Given<Settings>];

/**
 * Makes the factory of a kind of sink: `export const print = defineSink({ type: "print", settings: z.object({}), open })`, then
 * `sinks: [print()]`. Neither defineSink nor the factory throws or does any I/O; the loader reports what is wrong.
 */
export function defineSink<Settings extends z.ZodObject>(
  sink: SinkType<Settings>,
): (...given: Arguments<Settings>) => SinkDefinition {
  return (...[given]) => Object.freeze({ kind: "sink", sink, given: given ?? {} });
}
