// What is seen while the devices run: on a terminal a few lines that are drawn anew each second, elsewhere a line a second.

import type { RecordableHistogram } from "node:perf_hooks";
import { styleText } from "node:util";
import type { SimOptions } from "../options.ts";
import { phaseAt } from "../scenarios/scenario.ts";
import type { Counters } from "../tally.ts";
import { inBrackets, toClock, toCount, totalOf } from "./numbers.ts";
import { toPercentiles, type Point } from "./timeline.ts";

/** The state of a running fleet; rates and `latency` (µs) are those of the last second. */
export interface Progress {
  readonly elapsedMs: number;
  readonly devices: number;
  readonly counters: Counters;
  readonly sentPerSecond: number;
  readonly acknowledgedPerSecond: number;
  readonly latency: RecordableHistogram;
  /** The time line until now. */
  readonly points: readonly Point[];
}

/** A line of the screen. */
export interface ScreenLine {
  readonly label: string;
  readonly text: string;
}

const EVERY_MS = 1000;
const BAR = 24;
/** Seconds. */
const SPARKS = 40;
const LABEL = 10;
const MOST_ERRORS = 4;

/** Disposing removes it from a terminal. */
export function openLive(progress: () => Progress, options: SimOptions, out: NodeJS.WriteStream): Disposable {
  let drawn = 0;
  const home = (): string => (drawn === 0 ? "" : `\u001B[${drawn}A\r`);
  const draw = (): void => {
    if (!out.isTTY) {
      out.write(`${toProgressLine(progress())}\n`);
      return;
    }
    const lines = toScreen(progress(), options).slice(0, Math.max(1, out.rows - 1));
    const width = Math.max(0, out.columns - LABEL - 1);
    const text = lines.map((line) => {
      const label = styleText("dim", line.label.padEnd(LABEL).slice(0, out.columns - 1), { stream: out });
      return `\u001B[2K${label}${line.text.slice(0, width)}\n`;
    });
    out.write(`${home()}${text.join("")}\u001B[J`);
    drawn = lines.length;
  };
  const timer = setInterval(draw, EVERY_MS);
  return {
    [Symbol.dispose]: () => {
      clearInterval(timer);
      if (drawn > 0) out.write(`${home()}\u001B[J`);
    },
  };
}

/** What a terminal shows. No text has control characters, whatever a broker says. */
export function toScreen({ counters, latency, points, ...progress }: Progress, options: SimOptions): ScreenLine[] {
  const { qos, phases } = options;
  const recent = points.slice(-SPARKS);
  const sparks = (name: "sent" | "acknowledged"): string =>
    toSparks(recent.map((point) => point[name] / Math.max(1, point.ms)));
  const percentiles = Object.entries(toPercentiles(latency) ?? {}) as readonly (readonly [string, number])[];
  const refused = totalOf(counters.refused);
  const phase = phaseAt(phases, progress.elapsedMs);
  const faults = { ...counters.invalid, ...counters.faults };
  const lines: readonly (readonly [label: string, parts: readonly string[]])[] = [
    ["time", toTime(progress.elapsedMs, options)],
    ["phase", phase === undefined || phase.name === "" ? [] : [phase.name]],
    [
      "devices",
      [
        `${toCount(counters.connected)} of ${toCount(progress.devices)} connected`,
        some(counters.neverConnected, "could not yet"),
      ],
    ],
    ["sent", toRate(progress.sentPerSecond, counters.sent, sparks("sent"))],
    [
      "answered",
      qos === 0 ? [] : toRate(progress.acknowledgedPerSecond, counters.acknowledged, sparks("acknowledged")),
    ],
    ["in flight", qos === 0 || counters.inFlight === 0 ? [] : [toCount(counters.inFlight)]],
    ["refused", refused === 0 ? [] : [toCount(refused), named(counters.refused)]],
    [qos === 2 ? "PUBCOMP" : "PUBACK", percentiles.map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`)],
    ["skipped", counters.skipped === 0 ? [] : [`${toCount(counters.skipped)} readings`]],
    ["faults", totalOf(faults) === 0 ? [] : [toCount(totalOf(faults)), named(faults)]],
    ...toErrorLines(counters.errors),
  ];
  return lines
    .filter(([, parts]) => parts.length > 0)
    .map(([label, parts]) => ({
      label,
      text: parts
        .filter((part) => part !== "")
        .join("  ")
        .replaceAll(/\p{Cc}/gu, " "),
    }));
}

/** Without a line end. */
export function toProgressLine({ counters, latency, ...progress }: Progress): string {
  const percentiles = toPercentiles(latency);
  const errors = Object.values(counters.errors).reduce((sum, { count }) => sum + count, 0);
  return [
    `${Math.round(progress.elapsedMs / 1000)} s`.padStart(6),
    `${counters.connected}/${progress.devices} connected`,
    `${Math.round(progress.sentPerSecond)} sent/s`,
    `${Math.round(progress.acknowledgedPerSecond)} acked/s`,
    percentiles === null ? "" : `PUBACK p50 ${percentiles.p50.toFixed(1)} ms p99 ${percentiles.p99.toFixed(1)} ms`,
    some(counters.skipped, "skipped"),
    some(totalOf(counters.invalid), "spoilt"),
    some(totalOf(counters.faults), "other faults"),
    some(totalOf(counters.refused), "refused"),
    some(errors, "errors"),
  ]
    .filter((part) => part !== "")
    .join("   ");
}

/** The most frequent first. */
function toErrorLines(errors: Counters["errors"]): readonly (readonly [label: string, parts: readonly string[]])[] {
  const all = Object.entries(errors).toSorted(([, a], [, b]) => b.count - a.count);
  const shown = all
    .slice(0, MOST_ERRORS)
    .map(([kind, { count, last }]) => ["error", [`${toCount(count)} × ${kind}: ${last}`]] as const);
  const others = all.length - shown.length;
  return others <= 0 ? shown : [...shown, ["error", [`and ${others} other kinds`]]];
}

const some = (count: number, what: string): string => (count > 0 ? `${count} ${what}` : "");

const named = (counts: Readonly<Record<string, number>>): string => inBrackets(counts).trim();

const toTime = (elapsedMs: number, { durationMs, count }: SimOptions): readonly string[] =>
  durationMs === undefined
    ? [toClock(elapsedMs), count === undefined ? "" : `until each device has sent ${toCount(count)}`]
    : [`${toClock(elapsedMs)} of ${toClock(durationMs)}`, toBar(elapsedMs / durationMs)];

/** In columns, so that what changes each second stays in its place. */
const toRate = (perSecond: number, total: number, sparks: string): readonly string[] => [
  `${toCount(perSecond)}/s`.padEnd(10),
  `${toCount(total)} in all`.padEnd(18),
  sparks,
];

function toBar(share: number): string {
  const full = Math.round(BAR * Math.min(1, Math.max(0, share)));
  return `${"█".repeat(full)}${"░".repeat(BAR - full)}`;
}

/** Each a block as high as its share of the highest. */
function toSparks(values: readonly number[]): string {
  const most = Math.max(...values);
  return values.map((value) => "▁▂▃▄▅▆▇█"[most <= 0 ? 0 : Math.round((7 * value) / most)]).join("");
}
