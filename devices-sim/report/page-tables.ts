// The tables of the page: what was verified, what the run was asked for, and where it ran.

import { brokerUrl } from "../connection/dialer.ts";
import type { SimOptions } from "../options.ts";
import type { Phase } from "../scenarios/scenario.ts";
import { toVerdicts, type VerdictTable } from "../verify/report.ts";
import type { Verification } from "../verify/verify.ts";
import { escapeHtml } from "./chart.ts";
import type { Machine } from "./machine.ts";
import { toCount } from "./numbers.ts";
import type { Summary } from "./summary.ts";

type Row = readonly [name: string, text: string];

export function toTable(rows: readonly Row[]): string {
  const lines = rows.map(([name, text]) => `<tr><th>${escapeHtml(name)}</th><td>${escapeHtml(text)}</td></tr>`);
  return `<div class="table"><table><tbody>${lines.join("\n")}</tbody></table></div>`;
}

export function toVerificationHtml(verification: Verification): string {
  const { tables, remarks } = toVerdicts(verification);
  const notes = remarks.map((remark) => `<p class="notes">${escapeHtml(remark)}</p>`);
  return `<h2>What became of it</h2>\n${tables.map(toVerdictHtml).join("\n")}\n${notes.join("\n")}`;
}

function toVerdictHtml({ heading, columns, rows }: VerdictTable): string {
  const head = columns.map(({ title }) => `<th class="number">${escapeHtml(title)}</th>`).join("");
  const lines = rows.map(({ name, counts, broken }) => {
    const cells = columns.map(({ breaks }, at) => {
      const count = counts[at] ?? 0;
      return `<td class="number${breaks && broken && count > 0 ? " broken" : ""}">${toCount(count)}</td>`;
    });
    return `<tr><td>${escapeHtml(name)}</td>${cells.join("")}</tr>`;
  });
  const notes = rows.flatMap(({ name, notes: all }) => all.map((note) => `<li>${escapeHtml(`${name}: ${note}`)}</li>`));
  return `<div class="table verdicts"><table><tr><th>${heading}</th>${head}</tr>
${lines.join("\n")}</table></div>
${notes.length === 0 ? "" : `<ul class="notes">${notes.join("\n")}</ul>`}`;
}

/** By name, so that no password gets here. */
export function toParameterRows(options: Omit<SimOptions, "password">): readonly Row[] {
  return [
    ["broker", brokerUrl(options)],
    ["protocol", `MQTT ${options.protocolVersion === 5 ? "5" : "3.1.1"}, QoS ${options.qos}`],
    ["sessions", options.clean ? "clean" : "resumed"],
    ["profile", options.profile],
    ["payload", options.payload],
    ["topic", options.topic],
    ["rate", toRate(options)],
    ...options.phases.map(toPhaseRow),
    ["ramp", seconds(options.rampMs)],
    ["duration", options.durationMs === undefined ? "until the count" : seconds(options.durationMs)],
    ...(options.count === undefined ? [] : ([["count", `${options.count} per device`]] as const)),
    ["in flight", `${options.maxInFlight} per device at most`],
    ["keep alive", `${options.keepaliveSeconds} s`],
    ["seed", String(options.seed)],
    ...(options.clockMs === undefined ? [] : ([["clock from", new Date(options.clockMs).toISOString()]] as const)),
  ];
}

export const toMachineRows = (machine: Machine, summary: Summary): readonly Row[] => [
  ["processor", `${machine.cpu}, ${machine.cores} cores`],
  ["memory", `${machine.memoryGiB} GiB`],
  ["system", machine.system],
  ["Node", machine.node],
  ["simulator", `sluice-sim ${machine.version}, ${summary.threads} threads`],
  ["its CPU time", `${summary.workerCpuSeconds} s`],
  ["its memory", `${Math.round(summary.peakRssBytes / 2 ** 20)} MiB at most`],
];

const toRate = ({ ratePerDevice, jitter }: Pick<SimOptions, "ratePerDevice" | "jitter">): string =>
  `${ratePerDevice === undefined ? "the profile's" : `${tidy(ratePerDevice)} per device and second`}, jitter ${jitter}`;

function toPhaseRow({ name, durationMs, rate, faults }: Phase): Row {
  const parts = [
    durationMs === Infinity ? "" : seconds(durationMs),
    rate === 1 ? "" : `${tidy(rate)} times the rate`,
    ...faults.map(({ name: fault, share }) => `${fault} ${tidy(100 * share)} %`),
  ];
  return [name === "" ? "faults" : `phase ${name}`, parts.filter((part) => part !== "").join(", ") || "none"];
}

const seconds = (ms: number): string => `${ms / 1000} s`;

const tidy = (value: number): number => Number(value.toPrecision(4));
