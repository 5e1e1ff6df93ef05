// A run as one HTML file: charts, verdicts and parameters, and nothing that has to be loaded from elsewhere.

import { brokerUrl } from "../connection/dialer.ts";
import type { SimOptions } from "../options.ts";
import type { Verification } from "../verify/verify.ts";
import { escapeHtml, toChart, toLanes } from "./chart.ts";
import type { Machine } from "./machine.ts";
import { sum, tenths, toCount } from "./numbers.ts";
import { toAxis, toConnectionsChart, toInFlightCharts, toLaneList, toRateCharts } from "./page-charts.ts";
import { toDocument, toFigureList, toMinute, toVerdictLine, type Figure } from "./page-frame.ts";
import { toMachineRows, toParameterRows, toTable, toVerificationHtml } from "./page-tables.ts";
import { isAllAcknowledged, type Summary } from "./summary.ts";
import type { TimelineData } from "./timeline.ts";

export interface RunReport {
  readonly options: SimOptions;
  readonly summary: Summary;
  readonly timeline: TimelineData;
  readonly machine: Machine;
  readonly verification?: Verification;
}

/** Resolves to the text of the file. */
export function toPage({ options, summary, timeline, verification, machine }: RunReport): Promise<string> {
  const axis = toAxis(timeline);
  const { points } = timeline;
  const rates = toRateCharts(points, options);
  const levels = [toConnectionsChart(points, options), ...toInFlightCharts(points, options)];
  const lanes = toLaneList(points);
  return toDocument({
    title: `${options.devices} simulated devices`,
    subtitle: `${brokerUrl(options)}, ${toMinute(summary.startedAt)}`,
    charts: [...rates, ...levels],
    lanes,
    axis,
    body: `${toVerdict(summary, verification)}
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
</main>`,
  });
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
  return toVerdictLine(sentences, isGood);
}

function toFigures(summary: Summary): string {
  const { pubackMs } = summary;
  const errors = sum(Object.values(summary.errors).map(({ count }) => count));
  const figures: readonly Figure[] = [
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
  return toFigureList(figures);
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
