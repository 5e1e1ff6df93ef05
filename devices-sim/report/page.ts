// A run as one HTML file: charts, verdicts and parameters, and nothing that has to be loaded from elsewhere.

import { readFile } from "node:fs/promises";
import { brokerUrl } from "../connection/dialer.ts";
import type { SimOptions } from "../options.ts";
import type { Verification } from "../verify/verify.ts";
import { escapeHtml, toChart, toLanes, type Chart, type Lane, type TimeAxis } from "./chart.ts";
import type { Machine } from "./machine.ts";
import { toCount } from "./numbers.ts";
import { toMachineRows, toParameterRows, toTable, toVerificationHtml } from "./page-tables.ts";
import { isAllAcknowledged, type Summary } from "./summary.ts";
import type { Percentiles, Point, TimelineData } from "./timeline.ts";

export interface RunReport {
  readonly options: SimOptions;
  readonly summary: Summary;
  readonly timeline: TimelineData;
  readonly machine: Machine;
  readonly verification?: Verification;
}

/** More kinds than this are shown as one. */
const MOST_LANES = 24;

/** Resolves to the text of the file. */
export async function toPage(report: RunReport): Promise<string> {
  const [style, script] = await Promise.all([asset("page.css"), asset("page.js")]);
  const { options, summary, timeline, verification, machine } = report;
  const axis = toAxis(timeline);
  const [rates, levels] = [toRateCharts(timeline.points, options), toLevelCharts(timeline.points, options)];
  const lanes = toLaneList(timeline.points);
  const values = {
    atMs: axis.atMs,
    endMs: axis.endMs,
    charts: [...rates, ...levels].map(({ series }) => series.map((line) => line.values)),
    lanes: lanes.map(({ counts }) => counts),
  };
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${options.devices} simulated devices</title>
<style>
${style}</style>
<header>
<h1>${options.devices} simulated devices</h1>
<p>${escapeHtml(`${brokerUrl(options)}, ${new Date(summary.startedAt).toISOString().slice(0, 16).replace("T", " ")} UTC`)}</p>
</header>
${toVerdict(summary, verification)}
${toFigures(summary)}
<main>
${rates.map((chart) => toChart(chart, axis)).join("\n")}
<div class="pair">${levels.map((chart) => toChart(chart, axis)).join("\n")}</div>
${lanes.length === 0 ? "" : toLanes("Faults on purpose, and errors", lanes, axis)}
${toMarkList(timeline)}
${verification === undefined ? "" : toVerificationHtml(verification)}
${toErrors(summary)}
<div class="pair"><section><h2>Parameters</h2>
${toTable(toParameterRows(options))}</section>
<section><h2>Machine</h2>
${toTable(toMachineRows(machine, summary))}</section></div>
</main>
<script type="application/json" id="values">${toScriptJson(values)}</script>
<script>
${script}</script>
</html>
`;
}

const asset = (name: string): Promise<string> => readFile(new URL(name, import.meta.url), "utf8");

/** A point is shown in the middle of its interval. */
function toAxis({ points, marks }: TimelineData): TimeAxis {
  return {
    atMs: points.map(({ atMs, ms }) => atMs - Math.round(ms / 2)),
    endMs: Math.max(1, points.at(-1)?.atMs ?? 0, ...marks.map(({ atMs }) => atMs)),
    marks,
  };
}

function toRateCharts(points: readonly Point[], { qos }: SimOptions): readonly Chart[] {
  const rate = (name: "sent" | "acknowledged" | "skipped" | "refused", color: string) => ({
    name,
    color,
    values: points.map((point) => tenths((1000 * point[name]) / Math.max(1, point.ms))),
  });
  const happened = (name: "skipped" | "refused"): boolean => points.some((point) => point[name] > 0);
  const percentile = (name: keyof Percentiles) => ({
    name,
    color: name,
    values: points.map(({ pubackMs }) => pubackMs?.[name] ?? null),
  });
  return [
    {
      title: "Rates",
      unit: "messages per second",
      scale: "linear",
      series: [
        { ...rate("sent", "sent"), filled: true },
        ...(qos === 0 ? [] : [rate("acknowledged", "acknowledged")]),
        ...(happened("skipped") ? [rate("skipped", "fault")] : []),
        ...(happened("refused") ? [rate("refused", "bad")] : []),
      ],
    },
    ...(qos === 0
      ? []
      : [
          {
            title: `Time to ${qos === 1 ? "PUBACK" : "PUBCOMP"}`,
            unit: "milliseconds",
            scale: "log",
            series: [percentile("max"), percentile("p99"), percentile("p90"), percentile("p50")],
          } as const,
        ]),
  ];
}

function toLevelCharts(points: readonly Point[], { qos, devices }: SimOptions): readonly Chart[] {
  return [
    {
      title: "Connections",
      unit: `devices of ${devices}`,
      scale: "linear",
      series: [
        { name: "connected", color: "acknowledged", filled: true, values: points.map(({ connected }) => connected) },
      ],
    },
    ...(qos === 0
      ? []
      : [
          {
            title: "In flight",
            unit: "messages without an answer yet",
            scale: "linear",
            series: [{ name: "in flight", color: "p99", filled: true, values: points.map(({ inFlight }) => inFlight) }],
          } as const,
        ]),
  ];
}

/** Faults first; the most frequent of each first. */
function toLaneList(points: readonly Point[]): readonly Lane[] {
  const lanesOf = (pick: "faults" | "errors", color: string): readonly Lane[] => {
    const names = new Set(points.flatMap((point) => Object.keys(point[pick])));
    return [...names]
      .map((name) => ({ name, color, counts: points.map((point) => point[pick][name] ?? 0) }))
      .toSorted((a, b) => sum(b.counts) - sum(a.counts));
  };
  const lanes = [...lanesOf("errors", "bad"), ...lanesOf("faults", "fault")];
  const [shown, others] = [lanes.slice(0, MOST_LANES), lanes.slice(MOST_LANES)];
  if (others.length === 0) return shown;
  const counts = points.map((_, at) => sum(others.map((lane) => lane.counts[at] ?? 0)));
  return [...shown, { name: `${others.length} other kinds`, color: "fault", counts }];
}

function toVerdict(summary: Summary, verification: Verification | undefined): string {
  const isAcknowledged = isAllAcknowledged(summary);
  const sentences = [
    verification === undefined ? "" : verification.kept ? "Every promise was kept." : "A promise was broken.",
    summary.qos > 0 && isAcknowledged ? "Every good message was acknowledged." : "",
    summary.unacknowledged > 0 ? `${summary.unacknowledged} messages were not acknowledged.` : "",
    summary.refusedValid > 0 ? `${summary.refusedValid} good messages were refused.` : "",
    summary.neverConnected > 0 ? `${summary.neverConnected} devices never had a connection.` : "",
  ].filter((sentence) => sentence !== "");
  const isGood = isAcknowledged && verification?.kept !== false;
  if (sentences.length === 0) return "";
  return `<p class="verdict" style="--color: var(--${isGood ? "good" : "bad"})">${sentences.join(" ")}</p>`;
}

function toFigures(summary: Summary): string {
  const { pubackMs } = summary;
  const errors = sum(Object.values(summary.errors).map(({ count }) => count));
  const figures: readonly (readonly [name: string, figure: string, note: string])[] = [
    ["messages/s", toCount(Math.round(summary.messagesPerSecond)), `for ${tenths(summary.durationMs / 1000)} s`],
    ["sent", toCount(summary.sent), `at QoS ${summary.qos}, ${toCount(summary.invalidSent)} spoilt on purpose`],
    ...(summary.qos === 0
      ? []
      : ([
          ["acknowledged", toCount(summary.acknowledged), `${toCount(summary.unacknowledged)} without an answer`],
        ] as const)),
    ...(pubackMs === null
      ? []
      : ([
          [
            "PUBACK, median",
            `${pubackMs.p50.toFixed(1)} ms`,
            `p99 ${pubackMs.p99.toFixed(1)} ms, max ${pubackMs.max.toFixed(0)} ms`,
          ],
        ] as const)),
    ["connected", toCount(summary.connectedMax), `at most, of ${toCount(summary.devices)}`],
    ["errors", toCount(errors), `${toCount(summary.skipped)} readings skipped`],
  ];
  const items = figures.map(
    ([name, figure, note]) =>
      `<div><dt>${name}</dt><dd>${escapeHtml(figure)} <small>${escapeHtml(note)}</small></dd></div>`,
  );
  return `<dl class="figures">${items.join("\n")}</dl>`;
}

function toMarkList({ marks, stepMs }: TimelineData): string {
  const items = marks.map(({ atMs, text }) => `<li><b>${tenths(atMs / 1000)} s</b> ${escapeHtml(text)}</li>`);
  if (stepMs > 1000)
    items.push(`<li>A point is ${stepMs / 1000} s; its percentiles are those of its worst second.</li>`);
  return items.length === 0 ? "" : `<ul class="marks">${items.join("")}</ul>`;
}

function toErrors({ errors }: Summary): string {
  const rows = Object.entries(errors).map(
    ([kind, { count, last }]) => [kind, `${count} ×, the last: ${last}`] as const,
  );
  return rows.length === 0 ? "" : `<h2>Errors</h2>\n${toTable(rows)}`;
}

/** Nothing in it can end the script element. */
const toScriptJson = (value: object): string => JSON.stringify(value).replaceAll("<", "\\u003c");

const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);

const tenths = (value: number): number => Math.round(value * 10) / 10;
