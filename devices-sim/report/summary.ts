// What came out of a run, as numbers and as text.

import type { RecordableHistogram } from "node:perf_hooks";
import type { SimOptions } from "../options.ts";
import type { Counters } from "../tally.ts";
import { toPercentiles, type Percentiles } from "./timeline.ts";

/** The state of a running fleet; rates and `latency` (µs) are those of the last second. */
export interface Progress {
  readonly elapsedMs: number;
  readonly devices: number;
  readonly counters: Counters;
  readonly sentPerSecond: number;
  readonly acknowledgedPerSecond: number;
  readonly latency: RecordableHistogram;
}

/** The result of a run. As JSON it is the contract of `--json`: names may be added, not changed. */
export interface Summary extends Counters {
  readonly devices: number;
  /** When the ramp began, in milliseconds since 1970. */
  readonly startedAt: number;
  /** From the start of the ramp to the last message, without the wait for acknowledgements. */
  readonly durationMs: number;
  readonly messagesPerSecond: number;
  /** QoS 1 and 2: sent, and neither acknowledged nor refused when the run ended. 0 at QoS 0. */
  readonly unacknowledged: number;
  readonly invalidSent: number;
  /** From PUBLISH to PUBACK (QoS 1) or PUBCOMP (QoS 2); null when there was none. */
  readonly pubackMs: Percentiles | null;
  readonly threads: number;
  readonly workerCpuSeconds: number;
  /** Of the whole process. */
  readonly peakRssBytes: number;
  readonly qos: number;
  /** `--seed` that repeats the values. */
  readonly seed: number;
}

export interface Totals {
  readonly options: SimOptions;
  readonly counters: Counters;
  /** Microseconds. */
  readonly latency: RecordableHistogram;
  readonly startedAt: number;
  readonly durationMs: number;
  readonly workerCpuSeconds: number;
  readonly peakRssBytes: number;
}

export function toSummary({ options, counters, latency, durationMs, ...totals }: Totals): Summary {
  return {
    devices: options.devices,
    startedAt: Math.round(totals.startedAt),
    durationMs: Math.round(durationMs),
    messagesPerSecond: Math.round((counters.sent / durationMs) * 1e5) / 100,
    ...counters,
    unacknowledged: options.qos === 0 ? 0 : counters.sent - counters.acknowledged - total(counters.refused),
    invalidSent: total(counters.invalid),
    pubackMs: toPercentiles(latency),
    threads: options.threads,
    workerCpuSeconds: Math.round(totals.workerCpuSeconds * 100) / 100,
    peakRssBytes: totals.peakRssBytes,
    qos: options.qos,
    seed: options.seed,
  };
}

export const toExitCode = (summary: Summary): 0 | 1 => (isAllAcknowledged(summary) ? 0 : 1);

/** Every device that tried was connected, and every good message acknowledged. */
export const isAllAcknowledged = ({ unacknowledged, refusedValid, neverConnected }: Summary): boolean =>
  unacknowledged === 0 && refusedValid === 0 && neverConnected === 0;

/** One line, without a line end. */
export function toProgressLine({ counters, latency, ...progress }: Progress): string {
  const errors = Object.values(counters.errors).reduce((sum, { count }) => sum + count, 0);
  const puback =
    latency.count === 0 ? "" : `PUBACK p50 ${ms(latency.percentile(50))} p99 ${ms(latency.percentile(99))}`;
  return [
    `${Math.round(progress.elapsedMs / 1000)} s`.padStart(6),
    `${counters.connected}/${progress.devices} connected`,
    `${Math.round(progress.sentPerSecond)} sent/s`,
    `${Math.round(progress.acknowledgedPerSecond)} acked/s`,
    puback,
    counters.skipped > 0 ? `${counters.skipped} skipped` : "",
    total(counters.refused) > 0 ? `${total(counters.refused)} refused` : "",
    errors > 0 ? `${errors} errors` : "",
  ]
    .filter((part) => part !== "")
    .join("   ");
}

/** The summary for people; ends with a line end. */
export function toText(summary: Summary): string {
  const { pubackMs } = summary;
  const rows: readonly (readonly [string, string])[] = [
    ["devices", `${summary.devices}, ${summary.connectedMax} connected at most${never(summary)}`],
    ["duration", `${(summary.durationMs / 1000).toFixed(1)} s, ${summary.messagesPerSecond} messages/s`],
    ["sent", `${summary.sent} at QoS ${summary.qos}, ${summary.skipped} skipped`],
    ["acknowledged", summary.qos === 0 ? "QoS 0 has none" : acknowledged(summary)],
    ["invalid sent", `${summary.invalidSent}${named(summary.invalid)}`],
    [
      "PUBACK",
      pubackMs === null
        ? "none"
        : Object.entries(pubackMs)
            .map(([name, value]) => `${name} ${value.toFixed(2)} ms`)
            .join("   "),
    ],
    [
      "simulator",
      `${summary.threads} threads, ${summary.workerCpuSeconds} s of CPU, ${Math.round(summary.peakRssBytes / 2 ** 20)} MiB at most`,
    ],
    ["seed", String(summary.seed)],
    ...Object.entries(summary.errors).map(
      ([kind, { count, last }]) => ["error", `${count} × ${kind}: ${last}`] as const,
    ),
  ];
  return rows.map(([name, text]) => `${name.padEnd(14)}${text}\n`).join("");
}

const never = ({ neverConnected }: Summary): string => (neverConnected > 0 ? `, ${neverConnected} never` : "");

const acknowledged = ({ acknowledged: good, refused, unacknowledged }: Summary): string =>
  [
    String(good),
    total(refused) > 0 ? `${total(refused)} refused${named(refused)}` : "",
    unacknowledged > 0 ? `${unacknowledged} NOT ACKNOWLEDGED` : "",
  ]
    .filter((part) => part !== "")
    .join(", ");

/** ` (empty 3, wrong-type 1)`, without what is 0. */
function named(counts: Readonly<Record<string, number>>): string {
  const parts = Object.entries(counts).flatMap(([name, count]) => (count > 0 ? `${name} ${count}` : []));
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`;
}

const total = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((sum, count) => sum + count, 0);

const ms = (microseconds: number): string => `${(microseconds / 1000).toFixed(1)} ms`;
