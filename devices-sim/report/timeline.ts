// What happened when: a point a second of what all threads did, and marks with a name. Its memory is bounded: a long run has
// fewer points a minute.

import { performance, type RecordableHistogram } from "node:perf_hooks";
import { createLatency } from "../latency.ts";
import type { Counters } from "../tally.ts";

/** Milliseconds since 1970 by a clock that is never set, and is the same in all threads. */
export const nowMs = (): number => performance.timeOrigin + performance.now();

/** What happened in an interval that ends at `atMs`. The names are the contract of `--json`. */
export interface Point {
  /** Since the start of the run. */
  readonly atMs: number;
  /** Length of the interval. */
  readonly ms: number;
  /** At its end. */
  readonly connected: number;
  readonly inFlight: number;
  readonly sent: number;
  readonly acknowledged: number;
  readonly refused: number;
  readonly skipped: number;
  /** What went wrong on purpose, by kind. */
  readonly faults: Readonly<Record<string, number>>;
  readonly errors: Readonly<Record<string, number>>;
  /** Milliseconds to the acknowledgement; null when none came. Of an interval of several seconds: those of its worst second. */
  readonly pubackMs: Percentiles | null;
}

export interface Percentiles {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** Something that happened to the whole run. */
export interface Mark {
  /** Since the start of the run. */
  readonly atMs: number;
  readonly text: string;
}

export interface TimelineData {
  /** Length of a point's interval; the first and last may be shorter. */
  readonly stepMs: number;
  readonly points: readonly Point[];
  readonly marks: readonly Mark[];
}

/** What a thread had counted at a time; `latency` (µs) is since its sample before. */
interface Sample {
  /** By `nowMs`. */
  readonly atMs: number;
  readonly counters: Counters;
  readonly latency: RecordableHistogram;
}

const SECOND_MS = 1000;
/** An hour of seconds; beyond it, two points become one. */
const MOST_POINTS = 3600;
const MOST_MARKS = 200;

export class Timeline {
  readonly #mostPoints: number;
  readonly #tracks: readonly Track[];
  readonly #latencies = new Map<number, RecordableHistogram>();
  #points: Point[] = [];
  readonly #marks: Mark[] = [];
  #stepMs = SECOND_MS;
  #startMs: number | undefined;
  #closedMs = 0;
  #closed: Levels = nothing;

  constructor(threads: number, mostPoints = MOST_POINTS) {
    this.#mostPoints = mostPoints;
    this.#tracks = Array.from({ length: threads }, () => new Track());
  }

  get data(): TimelineData {
    const marks = this.#marks.toSorted((a, b) => a.atMs - b.atMs);
    return { stepMs: this.#stepMs, points: this.#points, marks };
  }

  /** The run starts at this time, by `nowMs`. */
  start(atMs: number): void {
    this.#startMs = atMs;
  }

  /** Samples of a thread come in their order. Threads that are loaded report also before the start: those are ignored. */
  take(thread: number, { counters, latency, ...sample }: Sample): void {
    const track = this.#tracks[thread];
    if (track === undefined || this.#startMs === undefined) return;
    const atMs = sample.atMs - this.#startMs;
    if (atMs <= 0) return;
    if (latency.count > 0) this.#latencyAt((track.atMs + atMs) / 2).add(latency);
    track.moveTo(atMs, levelsOf(counters));
    this.#closeSeconds();
  }

  /** No more samples come of this thread. */
  finish(thread: number): void {
    const track = this.#tracks[thread];
    if (track === undefined) return;
    track.finished = true;
    this.#closeSeconds();
    if (this.#tracks.every(({ finished }) => finished)) this.#closeLast();
  }

  /** At a time by `nowMs`; what happens before the start is put there. */
  mark(atMs: number, text: string): void {
    const sinceStartMs = Math.max(0, atMs - (this.#startMs ?? atMs));
    if (this.#marks.length < MOST_MARKS) this.#marks.push({ atMs: Math.round(sinceStartMs), text });
  }

  /** The second that a time lies in, when it is not closed yet; else the next one that will be. */
  #latencyAt(atMs: number): RecordableHistogram {
    const second = Math.max(Math.floor(atMs / SECOND_MS), Math.floor(this.#closedMs / SECOND_MS));
    const latency = this.#latencies.get(second) ?? createLatency();
    this.#latencies.set(second, latency);
    return latency;
  }

  #closeSeconds(): void {
    while (this.#tracks.every((track) => track.isPast) && this.#tracks.some((track) => track.seconds.length > 0)) {
      this.#close(this.#closedMs + SECOND_MS, this.#tracks.map((track) => track.takeSecond()).reduce(add));
    }
  }

  /** What lies behind the last full second. */
  #closeLast(): void {
    const atMs = Math.max(...this.#tracks.map((track) => track.atMs));
    if (atMs > this.#closedMs) this.#close(atMs, this.#tracks.map(({ levels }) => levels).reduce(add));
  }

  #close(atMs: number, levels: Levels): void {
    const second = Math.floor(this.#closedMs / SECOND_MS);
    const latency = this.#latencies.get(second);
    this.#latencies.delete(second);
    const { connected, inFlight } = levels;
    const counts = combine(levels, this.#closed, (now, before) => now - before);
    this.#add({
      atMs: Math.round(atMs),
      ms: Math.round(atMs - this.#closedMs),
      ...counts,
      connected,
      inFlight,
      pubackMs: latency === undefined ? null : toPercentiles(latency),
    });
    this.#closed = levels;
    this.#closedMs = atMs;
  }

  #add(point: Point): void {
    const last = this.#points.at(-1);
    const isRest = point.ms < SECOND_MS / 2;
    if (last !== undefined && (last.ms < this.#stepMs || isRest)) this.#points.splice(-1, 1, merge(last, point));
    else this.#points.push(point);
    if (this.#points.length <= this.#mostPoints) return;
    this.#points = Array.from({ length: Math.ceil(this.#points.length / 2) }, (_, at) =>
      this.#points.slice(2 * at, 2 * at + 2).reduce(merge),
    );
    this.#stepMs *= 2;
  }
}

/** One thread: what it had counted at the end of each second that the others have yet to reach. */
class Track {
  atMs = 0;
  levels: Levels = nothing;
  finished = false;
  readonly seconds: Levels[] = [];

  get isPast(): boolean {
    return this.finished || this.seconds.length > 0;
  }

  /** Samples are never exactly at the end of a second: what lies between two is taken for even. */
  moveTo(atMs: number, levels: Levels): void {
    const before = { atMs: this.atMs, levels: this.levels };
    for (let endMs = (Math.floor(before.atMs / SECOND_MS) + 1) * SECOND_MS; endMs <= atMs; endMs += SECOND_MS) {
      const share = (endMs - before.atMs) / (atMs - before.atMs);
      this.seconds.push(combine(before.levels, levels, (from, to) => Math.round(from + (to - from) * share)));
    }
    this.atMs = atMs;
    this.levels = levels;
  }

  takeSecond(): Levels {
    return this.seconds.shift() ?? this.levels;
  }
}

type Levels = Omit<Point, "atMs" | "ms" | "pubackMs">;

const nothing: Levels = {
  connected: 0,
  inFlight: 0,
  sent: 0,
  acknowledged: 0,
  refused: 0,
  skipped: 0,
  faults: {},
  errors: {},
};

function levelsOf({ connected, inFlight, sent, acknowledged, skipped, ...named }: Counters): Levels {
  const refused = Object.values(named.refused).reduce((total, count) => total + count, 0);
  const errors = Object.fromEntries(Object.entries(named.errors).map(([kind, { count }]) => [kind, count]));
  return {
    connected,
    inFlight,
    sent,
    acknowledged,
    refused,
    skipped,
    faults: { ...named.invalid, ...named.faults },
    errors,
  };
}

type Operation = (a: number, b: number) => number;

function combine(a: Levels, b: Levels, operation: Operation): Levels {
  return {
    connected: operation(a.connected, b.connected),
    inFlight: operation(a.inFlight, b.inFlight),
    sent: operation(a.sent, b.sent),
    acknowledged: operation(a.acknowledged, b.acknowledged),
    refused: operation(a.refused, b.refused),
    skipped: operation(a.skipped, b.skipped),
    faults: combineNames(a.faults, b.faults, operation),
    errors: combineNames(a.errors, b.errors, operation),
  };
}

/** Without the names that come to 0. */
function combineNames(a: Levels["faults"], b: Levels["faults"], operation: Operation): Record<string, number> {
  const result: Record<string, number> = {};
  for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const value = operation(a[name] ?? 0, b[name] ?? 0);
    if (value !== 0) result[name] = value;
  }
  return result;
}

const add = (a: Levels, b: Levels): Levels => combine(a, b, (left, right) => left + right);

/** One interval of two that follow each other. */
function merge(first: Point, second: Point): Point {
  const { atMs, connected, inFlight } = second;
  return {
    atMs,
    ms: first.ms + second.ms,
    ...add(first, second),
    connected,
    inFlight,
    pubackMs: worst(first.pubackMs, second.pubackMs),
  };
}

/** A percentile of two seconds together is never above the higher of theirs. */
function worst(a: Percentiles | null, b: Percentiles | null): Percentiles | null {
  if (a === null || b === null) return a ?? b;
  return {
    p50: Math.max(a.p50, b.p50),
    p90: Math.max(a.p90, b.p90),
    p99: Math.max(a.p99, b.p99),
    max: Math.max(a.max, b.max),
  };
}

/** Of microseconds, in milliseconds; null when there are none. */
export function toPercentiles(latency: RecordableHistogram): Percentiles | null {
  if (latency.count === 0) return null;
  return {
    p50: latency.percentile(50) / 1000,
    p90: latency.percentile(90) / 1000,
    p99: latency.percentile(99) / 1000,
    max: latency.max / 1000,
  };
}
