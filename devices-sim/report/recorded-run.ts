// What a ledger knows of its run beside what became of each message: how much was sent and answered, when, and how soon.

import { findWorkerFiles, parseLine } from "../ledger/reader.ts";
import type { LedgerLine, Run } from "../ledger/format.ts";
import { readLines } from "../ledger/lines.ts";
import { readRun } from "../ledger/run.ts";
import type { Percentiles, Point, TimelineData } from "./timeline.ts";

export interface RecordedRun {
  readonly run: Run;
  readonly counts: RecordedCounts;
  /** Milliseconds to the acknowledgement, in whole ones; null when none came. */
  readonly pubackMs: Percentiles | null;
  /** Of connections, errors and skipped readings a ledger knows nothing: they are 0 and none. */
  readonly timeline: TimelineData;
}

/** Of all devices. A message counts as acknowledged with its PUBACK, or at QoS 2 its PUBCOMP. */
interface RecordedCounts {
  readonly devices: number;
  readonly sent: number;
  /** Of them, those that are to be rejected. */
  readonly spoilt: number;
  readonly sentAgain: number;
  readonly acknowledged: number;
  readonly refused: number;
  /** At QoS 1 and 2: neither acknowledged nor refused, though it was not too large. */
  readonly unanswered: number;
}

/** Rejects when the folder has no ledger. */
export async function readRecordedRun(dir: string): Promise<RecordedRun> {
  const recording = new Recording(await readRun(dir));
  for (const file of await findWorkerFiles(dir)) {
    recording.beginFile();
    for await (const lines of readLines(file)) {
      for (const text of lines) {
        const line = parseLine(text);
        if (line !== undefined) recording.take(line);
      }
    }
  }
  return recording.finish();
}

const SECOND_MS = 1000;
/** As many as the time line of a run has. */
const MOST_POINTS = 3600;

/** What happened in a second, or in several. */
interface Slot {
  sent: number;
  acknowledged: number;
  refused: number;
  /** By how much more messages wait for an answer than before. */
  waiting: number;
  readonly faults: Record<string, number>;
  /** How many took so many milliseconds. */
  readonly latencies: Map<number, number>;
}

const createSlot = (): Slot => ({ sent: 0, acknowledged: 0, refused: 0, waiting: 0, faults: {}, latencies: new Map() });

type SentLine = Extract<LedgerLine, readonly ["sent", ...unknown[]]>;

class Recording {
  readonly #run: Run;
  readonly #seconds = new Map<number, Slot>();
  readonly #counts = { devices: 0, sent: 0, spoilt: 0, sentAgain: 0, acknowledged: 0, refused: 0, unanswered: 0 };
  #lastMs = 0;
  /** Of the present file, by device and message: when those were sent that wait for an answer. */
  #waiting: Map<number, number>[] = [];

  constructor(run: Run) {
    this.#run = run;
  }

  beginFile(): void {
    this.#waiting = [];
  }

  take(line: LedgerLine): void {
    switch (line[0]) {
      case "device":
        this.#counts.devices += 1;
        break;
      case "sent":
        this.#takeSent(line);
        break;
      case "again":
        this.#counts.sentAgain += 1;
        break;
      case "ack": {
        const [, device, message, atMs, code = 0] = line;
        if (code >= 0x80) this.#settle("refused", device, message, atMs);
        else if (this.#run.options.qos === 1) this.#settle("acknowledged", device, message, atMs);
        break;
      }
      case "done":
        this.#settle("acknowledged", line[1], line[2], line[3]);
        break;
      case "fault": {
        const [, , name, atMs] = line;
        addTo(this.#slotAt(atMs).faults, name, 1);
        break;
      }
    }
  }

  finish(): RecordedRun {
    const all = [...this.#seconds.values()].reduce(addSlot, createSlot());
    return {
      run: this.#run,
      counts: this.#counts,
      pubackMs: toPercentiles(all.latencies),
      timeline: toTimeline(this.#seconds, this.#lastMs),
    };
  }

  #takeSent([, device, message, atMs, qos, , , , fault = "", reason = ""]: SentLine): void {
    const slot = this.#slotAt(atMs);
    slot.sent += 1;
    this.#counts.sent += 1;
    if (reason !== "") this.#counts.spoilt += 1;
    if (fault !== "") addTo(slot.faults, fault, 1);
    // What is too large is given up.
    if (qos === 0 || reason === "too-large") return;
    slot.waiting += 1;
    this.#counts.unanswered += 1;
    (this.#waiting[device] ??= new Map()).set(message, atMs);
  }

  #settle(how: "acknowledged" | "refused", device: number, message: number, atMs: number): void {
    const sentAtMs = this.#waiting[device]?.get(message);
    if (sentAtMs === undefined) return;
    this.#waiting[device]?.delete(message);
    const slot = this.#slotAt(atMs);
    slot[how] += 1;
    slot.waiting -= 1;
    this.#counts[how] += 1;
    this.#counts.unanswered -= 1;
    const tookMs = Math.max(0, atMs - sentAtMs);
    slot.latencies.set(tookMs, (slot.latencies.get(tookMs) ?? 0) + 1);
  }

  /** Of the time since the start; a clock that was set back makes nothing earlier than that. */
  #slotAt(atMs: number): Slot {
    const sinceStartMs = Math.max(0, atMs - this.#run.startedAt);
    this.#lastMs = Math.max(this.#lastMs, sinceStartMs);
    return slotOf(this.#seconds, Math.floor(sinceStartMs / SECOND_MS));
  }
}

function slotOf(slots: Map<number, Slot>, number: number): Slot {
  const slot = slots.get(number) ?? createSlot();
  slots.set(number, slot);
  return slot;
}

function addTo(counts: Record<string, number>, name: string, count: number): void {
  counts[name] = (counts[name] ?? 0) + count;
}

/** Into the first one, which it returns. */
function addSlot(sum: Slot, slot: Slot): Slot {
  for (const name of ["sent", "acknowledged", "refused", "waiting"] as const) sum[name] += slot[name];
  for (const [name, count] of Object.entries(slot.faults)) addTo(sum.faults, name, count);
  for (const [ms, count] of slot.latencies) sum.latencies.set(ms, (sum.latencies.get(ms) ?? 0) + count);
  return sum;
}

/** A rest of less than half an interval belongs to the one before, so that its rate means something. */
function toTimeline(seconds: ReadonlyMap<number, Slot>, endMs: number): TimelineData {
  let stepMs = SECOND_MS;
  while (endMs / stepMs > MOST_POINTS) stepMs *= 2;
  const count = seconds.size === 0 ? 0 : Math.max(1, Math.round(endMs / stepMs));
  const slots = new Map<number, Slot>();
  for (const [second, slot] of seconds) {
    addSlot(slotOf(slots, Math.min(count - 1, Math.floor((second * SECOND_MS) / stepMs))), slot);
  }
  let inFlight = 0;
  const points = Array.from({ length: count }, (_, at): Point => {
    const { sent, acknowledged, refused, waiting, faults, latencies } = slots.get(at) ?? createSlot();
    inFlight += waiting;
    const atMs = at === count - 1 ? Math.max(1, endMs) : (at + 1) * stepMs;
    const nothing = { connected: 0, skipped: 0, errors: {} };
    const answered = { sent, acknowledged, refused, faults, pubackMs: toPercentiles(latencies) };
    return { atMs, ms: atMs - at * stepMs, inFlight, ...nothing, ...answered };
  });
  return { stepMs, points, marks: [] };
}

function toPercentiles(latencies: ReadonlyMap<number, number>): Percentiles | null {
  if (latencies.size === 0) return null;
  const sorted = [...latencies].toSorted(([a], [b]) => a - b);
  const total = sorted.reduce((sum, [, count]) => sum + count, 0);
  const percentile = (percent: number): number => {
    let below = 0;
    for (const [ms, count] of sorted) {
      below += count;
      if (below >= (percent / 100) * total) return ms;
    }
    return 0;
  };
  return { p50: percentile(50), p90: percentile(90), p99: percentile(99), max: percentile(100) };
}
