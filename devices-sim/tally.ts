// What the devices of one thread count. Plain integers: reading them is left to a report once a second.

import type { RecordableHistogram } from "node:perf_hooks";
import { faultNames, faults, type FaultName } from "./faults/built-in.ts";
import { createLatency, recordLatency } from "./latency.ts";

/** What a message suffers on purpose; `reason` is "" when it is a good one all the same. */
export interface SentFault {
  readonly kind: FaultName;
  readonly reason: string;
}

const invalidKinds = faultNames.filter((name) => faults[name].kind === "payload");

/** One kind of error: how often, and what the last one said. */
export interface ErrorCount {
  readonly count: number;
  readonly last: string;
}

/** Everything that is counted, from the start of the run. */
export interface Counters {
  /** Devices with a connection now. */
  readonly connected: number;
  /** The most that were connected at a time. */
  readonly connectedMax: number;
  /** Devices that had a connection at least once. */
  readonly everConnected: number;
  /** Devices that tried and have not had a connection yet. */
  readonly neverConnected: number;
  /** PUBLISH packets handed to a connection; a retransmission is not counted again. Includes the invalid ones. */
  readonly sent: number;
  /** PUBACK (QoS 1) or PUBCOMP (QoS 2) without an error; always 0 at QoS 0. */
  readonly acknowledged: number;
  /** MQTT 5: acknowledged with an error, by reason code as `0x99`. */
  readonly refused: Readonly<Record<string, number>>;
  /** Of the refused, those that were not spoilt on purpose. */
  readonly refusedValid: number;
  /** Sent and not answered yet; at QoS 0 not written yet. */
  readonly inFlight: number;
  /** Readings that were not sent: offline, too many in flight, or the simulator itself was late. */
  readonly skipped: number;
  /** Given up on purpose: too large for the broker, which ended the connection. */
  readonly withdrawn: number;
  /** Of the sent, those spoilt on purpose, by kind. */
  readonly invalid: Readonly<Record<string, number>>;
  /** Other faults, by kind: messages that were sent twice, late or again, and how often it happened to clocks and connections. */
  readonly faults: Readonly<Record<string, number>>;
  readonly errors: Readonly<Record<string, ErrorCount>>;
}

export class Tally {
  #connected = 0;
  #connectedMax = 0;
  #everConnected = 0;
  #neverConnected = 0;
  #sent = 0;
  #acknowledged = 0;
  #refusedValid = 0;
  #inFlight = 0;
  #skipped = 0;
  #withdrawn = 0;
  readonly #refused = new Map<string, number>();
  readonly #invalid = new Map<string, number>(invalidKinds.map((kind) => [kind, 0]));
  readonly #faults = new Map<string, number>();
  readonly #errors = new Map<string, ErrorCount>();
  #latency = createLatency();

  /** A device is connected. `before`: what became of its earlier attempts. */
  connected(before: "untried" | "failing" | "connected"): void {
    this.#connected += 1;
    this.#connectedMax = Math.max(this.#connectedMax, this.#connected);
    if (before !== "connected") this.#everConnected += 1;
    if (before === "failing") this.#neverConnected -= 1;
  }

  disconnected(): void {
    this.#connected -= 1;
  }

  /** A device's first attempt to connect failed. */
  failing(): void {
    this.#neverConnected += 1;
  }

  /** `reason`: "" for a good message that is only delivered otherwise. */
  sent(fault: SentFault | undefined): void {
    this.#sent += 1;
    this.#inFlight += 1;
    if (fault !== undefined) increment(fault.reason === "" ? this.#faults : this.#invalid, fault.kind);
  }

  /** It happened to a clock or a connection. */
  fault(name: FaultName): void {
    increment(this.#faults, name);
  }

  /** QoS 0: the packet was written. */
  written(): void {
    this.#inFlight -= 1;
  }

  acknowledged(afterMs: number): void {
    this.#inFlight -= 1;
    this.#acknowledged += 1;
    recordLatency(this.#latency, afterMs);
  }

  /** Acknowledged with an MQTT 5 reason code of 0x80 or above. */
  refused(reasonCode: number, fault: SentFault | undefined, afterMs: number): void {
    this.#inFlight -= 1;
    recordLatency(this.#latency, afterMs);
    const name = hex(reasonCode);
    increment(this.#refused, name);
    if (fault === undefined || fault.reason === "") this.#refusedValid += 1;
  }

  /** The client gave a message up; it stays unacknowledged. */
  abandoned(): void {
    this.#inFlight -= 1;
  }

  /** The client gave a message up on purpose. */
  withdrawn(): void {
    this.#inFlight -= 1;
    this.#withdrawn += 1;
  }

  skipped(readings: number): void {
    this.#skipped += readings;
  }

  error(kind: string, message: string): void {
    this.#errors.set(kind, { count: (this.#errors.get(kind)?.count ?? 0) + 1, last: message });
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  counters(): Counters {
    return {
      connected: this.#connected,
      connectedMax: this.#connectedMax,
      everConnected: this.#everConnected,
      neverConnected: this.#neverConnected,
      sent: this.#sent,
      acknowledged: this.#acknowledged,
      refused: Object.fromEntries(this.#refused),
      refusedValid: this.#refusedValid,
      inFlight: this.#inFlight,
      skipped: this.#skipped,
      withdrawn: this.#withdrawn,
      invalid: Object.fromEntries(this.#invalid),
      faults: Object.fromEntries(this.#faults),
      errors: Object.fromEntries(this.#errors),
    };
  }

  /** Acknowledgement times in microseconds since the last call; the tally starts a new histogram. */
  takeLatency(): RecordableHistogram {
    const latency = this.#latency;
    this.#latency = createLatency();
    return latency;
  }
}

/** Adds up what threads counted. `connectedMax` is the sum of the threads' maxima: an upper bound when devices come and go. */
export function addCounters(all: readonly Counters[]): Counters {
  const sum = (pick: (counters: Counters) => number): number => all.reduce((total, each) => total + pick(each), 0);
  return {
    connected: sum((each) => each.connected),
    connectedMax: sum((each) => each.connectedMax),
    everConnected: sum((each) => each.everConnected),
    neverConnected: sum((each) => each.neverConnected),
    sent: sum((each) => each.sent),
    acknowledged: sum((each) => each.acknowledged),
    refused: addByName(all.map((each) => each.refused)),
    refusedValid: sum((each) => each.refusedValid),
    inFlight: sum((each) => each.inFlight),
    skipped: sum((each) => each.skipped),
    withdrawn: sum((each) => each.withdrawn),
    invalid: addByName(all.map((each) => each.invalid)),
    faults: addByName(all.map((each) => each.faults)),
    errors: addErrors(all.map((each) => each.errors)),
  };
}

function increment(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}

function addByName(all: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const each of all) for (const [name, count] of Object.entries(each)) total[name] = (total[name] ?? 0) + count;
  return total;
}

function addErrors(all: readonly Counters["errors"][]): Record<string, ErrorCount> {
  const total: Record<string, ErrorCount> = {};
  for (const each of all) {
    for (const [kind, { count, last }] of Object.entries(each)) {
      total[kind] = { count: count + (total[kind]?.count ?? 0), last };
    }
  }
  return total;
}

/** A reason code as the MQTT specification writes it: `0x99`. */
export const hex = (code: number): string => `0x${code.toString(16).padStart(2, "0")}`;
