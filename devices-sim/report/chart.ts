// A chart as HTML that needs no script: an SVG that stretches to whatever width there is, and its labels as text around it, so
// that they are as large on a phone as on a screen.

import { toClock, toCount } from "./numbers.ts";
import type { Mark } from "./timeline.ts";

/** One line; `null` is a gap. */
interface Series {
  readonly name: string;
  /** Of a custom property in page.css, without `--`. */
  readonly color: string;
  readonly values: readonly (number | null)[];
  /** Shaded down to zero. */
  readonly filled?: boolean;
}

export interface Chart {
  readonly title: string;
  /** What the numbers are: `messages per second`, `ms`. */
  readonly unit: string;
  readonly scale: "linear" | "log";
  readonly series: readonly Series[];
}

/** What all charts of a page share, so that what happened at a time stands below each other. */
export interface TimeAxis {
  /** Of each value. */
  readonly atMs: readonly number[];
  readonly endMs: number;
  readonly marks: readonly Mark[];
}

/** How often something of one kind happened. */
export interface Lane {
  readonly name: string;
  readonly color: string;
  readonly counts: readonly number[];
}

const WIDTH = 1000;
const HEIGHT = 100;

export function toChart({ title, unit, scale: kind, series }: Chart, axis: TimeAxis): string {
  const scale = (kind === "log" ? logScale : linearScale)(series.flatMap(({ values }) => values));
  const legend = series.map(
    ({ name, color }) => `<li style="--color: var(--${color})">${escapeHtml(name)} <output></output></li>`,
  );
  const grid = scale.ticks.map((tick) => `M0,${scale.toY(tick)}H${WIDTH}`).join("");
  const yLabels = scale.ticks.map(
    (tick) => `<span style="top: ${scale.toY(tick)}%">${escapeHtml(toTickText(tick))}</span>`,
  );
  const lines = series.map((line) => toLine(line, scale, axis));
  return `<figure class="chart">
<figcaption>${escapeHtml(title)} <small>${escapeHtml(unit)}</small></figcaption>
<ul class="legend">${legend.join("")}</ul>
<div class="plot"><div class="y">${yLabels.join("")}</div>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="${escapeHtml(toSentence(title, unit, series))}">
<path class="grid" d="${grid}"/>${toMarks(axis)}
${lines.join("\n")}
</svg><i class="cursor"></i></div>
${toTimeLabels(axis.endMs)}
</figure>`;
}

/** Bars on a strip for each kind: when, and about how often. */
export function toLanes(title: string, lanes: readonly Lane[], axis: TimeAxis): string {
  const strips = lanes.map(({ name, color, counts }) => {
    const most = Math.max(...counts);
    const total = counts.reduce((sum, count) => sum + count, 0);
    const bars = counts.map((count, at) =>
      // The root, so that one of a kind is seen beside a thousand of it.
      count === 0 ? "" : `M${toX(axis.atMs[at] ?? 0, axis)},${HEIGHT}V${round(HEIGHT - 90 * Math.sqrt(count / most))}`,
    );
    return `<li style="--color: var(--${color})"><span>${escapeHtml(name)}</span> <output data-total="${toCount(total)}">${toCount(total)}</output>
<div class="plot strip"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" aria-hidden="true">${toMarks(axis)}
<path class="bars" style="stroke-width: ${barWidth(counts.length)}px" d="${bars.join("")}"/></svg><i class="cursor"></i></div></li>`;
  });
  return `<figure class="lanes"><figcaption>${escapeHtml(title)}</figcaption>
<ul>${strips.join("\n")}</ul>
${toTimeLabels(axis.endMs)}
</figure>`;
}

export const escapeHtml = (text: string): string =>
  text.replaceAll(
    /[&<>"']/g,
    (character) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[character] ?? "&#39;",
  );

interface Scale {
  readonly ticks: readonly number[];
  /** 0 is the top. */
  readonly toY: (value: number) => number;
}

function linearScale(values: readonly (number | null)[]): Scale {
  const step = niceStep(Math.max(1, ...values.map((value) => value ?? 0)) / 4);
  const steps = Math.ceil(Math.max(1, ...values.map((value) => value ?? 0)) / step);
  return {
    ticks: Array.from({ length: steps + 1 }, (_, at) => at * step),
    toY: (value) => round(HEIGHT * (1 - value / (steps * step))),
  };
}

/** Whole decades. */
function logScale(values: readonly (number | null)[]): Scale {
  const positive = values.filter((value) => value !== null).filter((value) => value > 0);
  const low = positive.length === 0 ? 0 : Math.floor(Math.log10(Math.min(...positive)));
  const high = positive.length === 0 ? 1 : Math.max(low + 1, Math.ceil(Math.log10(Math.max(...positive))));
  return {
    ticks: Array.from({ length: high - low + 1 }, (_, at) => 10 ** (low + at)),
    toY: (value) => round(HEIGHT * (1 - (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low))),
  };
}

/** The next of 1, 2, 5, 10, 20 … */
function niceStep(atLeast: number): number {
  const decade = 10 ** Math.floor(Math.log10(atLeast));
  return decade * ([1, 2, 5].find((factor) => factor * decade >= atLeast) ?? 10);
}

function toLine({ color, values, filled = false }: Series, { toY }: Scale, axis: TimeAxis): string {
  const runs: string[][] = [[]];
  for (const [at, value] of values.entries()) {
    if (value === null) runs.push([]);
    else runs.at(-1)?.push(`${toX(axis.atMs[at] ?? 0, axis)},${toY(value)}`);
  }
  const drawn = runs.filter((run) => run.length > 0);
  // A point alone is a line of no length, which round ends make a dot.
  const line = drawn.map((run) => `M${run.join("L")}${run.length === 1 ? "h0" : ""}`).join("");
  const areas = drawn.map((run) => `M${xOf(run.at(0))},${HEIGHT}L${run.join("L")}L${xOf(run.at(-1))},${HEIGHT}Z`);
  const style = `style="--color: var(--${color})"`;
  const area = filled ? `<path class="area" ${style} d="${areas.join("")}"/>` : "";
  return `${area}<path class="line" ${style} d="${line}"/>`;
}

const xOf = (pair = ""): string => pair.slice(0, pair.indexOf(","));

const toX = (atMs: number, { endMs }: TimeAxis): number => round((WIDTH * atMs) / endMs);

const toMarks = (axis: TimeAxis): string =>
  `<path class="mark" d="${axis.marks.map(({ atMs }) => `M${toX(atMs, axis)},0V${HEIGHT}`).join("")}"/>`;

const TIME_STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400];

function toTimeLabels(endMs: number): string {
  const stepMs = 1000 * (TIME_STEPS_S.find((seconds) => endMs / (1000 * seconds) <= 6) ?? Math.ceil(endMs / 6000));
  const labels = Array.from({ length: Math.floor(endMs / stepMs) + 1 }, (_, at) => at * stepMs);
  const spans = labels.map((atMs) => `<span style="left: ${round((100 * atMs) / endMs)}%">${toClock(atMs)}</span>`);
  return `<div class="x" aria-hidden="true">${spans.join("")}</div>`;
}

/** For those who do not see the chart. */
function toSentence(title: string, unit: string, series: readonly Series[]): string {
  const highest = series.map(({ name, values }) => `${name} ${toTickText(Math.max(0, ...values.map((v) => v ?? 0)))}`);
  return `${title}, ${unit}, at most: ${highest.join(", ")}`;
}

/** `0.01`, `250`, `1.5k`, `2M`. */
function toTickText(value: number): string {
  if (value >= 1e6) return `${round(value / 1e6)}M`;
  if (value >= 1e4) return `${round(value / 1e3)}k`;
  return String(Number(value.toPrecision(3)));
}

/** Pixels: bars touch neither their neighbours on a screen nor vanish in a long run. */
const barWidth = (bars: number): number => Math.min(9, Math.max(2, Math.round(600 / bars)));

const round = (value: number): number => Math.round(value * 10) / 10;
