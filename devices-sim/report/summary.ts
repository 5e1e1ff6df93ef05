// What came out of a run, as numbers and as text.

import type { RecordableHistogram } from "node:perf_hooks";
import type { SimOptions } from "../options.ts";
import type { Counters } from "../tally.ts";
import { inBrackets, totalOf } from "./numbers.ts";
import { toPercentiles, type Percentiles } from "./timeline.ts";

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
    unacknowledged:
      options.qos === 0 ? 0 : counters.sent - counters.acknowledged - totalOf(counters.refused) - counters.withdrawn,
    invalidSent: totalOf(counters.invalid),
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

/** The summary for people; ends with a line end. */
export function toText(summary: Summary): string {
  const { pubackMs } = summary;
  const rows: readonly (readonly [string, string])[] = [
    ["devices", `${summary.devices}, ${summary.connectedMax} connected at most${never(summary)}`],
    ["duration", `${(summary.durationMs / 1000).toFixed(1)} s, ${summary.messagesPerSecond} messages/s`],
    ["sent", `${summary.sent} at QoS ${summary.qos}, ${summary.skipped} skipped`],
    ["acknowledged", summary.qos === 0 ? "QoS 0 has none" : acknowledged(summary)],
    ["invalid sent", `${summary.invalidSent}${inBrackets(summary.invalid)}`],
    ...(totalOf(summary.faults) > 0
      ? ([["faults", `${totalOf(summary.faults)}${inBrackets(summary.faults)}`]] as const)
      : []),
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

const acknowledged = ({ acknowledged: good, refused, withdrawn, unacknowledged }: Summary): string =>
  [
    String(good),
    totalOf(refused) > 0 ? `${totalOf(refused)} refused${inBrackets(refused)}` : "",
    withdrawn > 0 ? `${withdrawn} too large and given up` : "",
    unacknowledged > 0 ? `${unacknowledged} NOT ACKNOWLEDGED` : "",
  ]
    .filter((part) => part !== "")
    .join(", ");
