// What a chaos run tells people: as text, and as the page of the simulator's run with what happened meanwhile.

import { readFile } from "node:fs/promises";
import { parseOptions } from "../../devices-sim/options.ts";
import { escapeHtml } from "../../devices-sim/report/chart.ts";
import type { Machine } from "../../devices-sim/report/machine.ts";
import { toPage } from "../../devices-sim/report/page.ts";
import { type Summary, toText } from "../../devices-sim/report/summary.ts";
import type { TimelineData } from "../../devices-sim/report/timeline.ts";
import { toVerificationText } from "../../devices-sim/verify/report.ts";
import { type Findings, findBroken, toTables } from "./verdict.ts";

export interface Happened {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly text: string;
}

export interface ChaosReport extends Findings {
  readonly seed: number;
  readonly simulatorArgs: readonly string[];
  readonly happened: readonly Happened[];
}

type SimulatorReport = Summary & { readonly timeline: TimelineData; readonly machine: Machine };

const readSummary = async (file: string): Promise<SimulatorReport> =>
  JSON.parse(await readFile(file, "utf8")) as SimulatorReport;

/** `summaryFile`: what the simulator said as JSON. Ends with a line end. */
export async function toReportText(report: ChaosReport, summaryFile: string): Promise<string> {
  const broken = findBroken(report);
  return [
    "\n",
    toText(await readSummary(summaryFile)),
    "\n",
    toTables(report),
    "\n",
    toVerificationText(report.verification),
    "\n",
    ...broken.map((sentence) => `BROKEN: ${sentence}\n`),
    `chaos: ${broken.length === 0 ? "all zeros" : `${broken.length} promises broken`}, seed ${report.seed}\n`,
  ].join("");
}

export async function toReportPage(report: ChaosReport, summaryFile: string): Promise<string> {
  const { timeline, machine, ...summary } = await readSummary(summaryFile);
  const parsed = parseOptions(report.simulatorArgs);
  if (parsed.kind !== "run") throw new TypeError(parsed.text);
  const events = report.happened.map(({ at, text }) => ({ atMs: Math.max(0, at - summary.startedAt), text }));
  const marks = [...timeline.marks, ...events].toSorted((a, b) => a.atMs - b.atMs);
  const page = await toPage({
    options: parsed.sim,
    summary,
    timeline: { ...timeline, marks },
    machine,
    verification: report.verification,
  });
  const tables = escapeHtml([toTables(report), ...findBroken(report).map((sentence) => `${sentence}\n`)].join("\n"));
  return page.replace("</main>", () => `<h2>Sinks that the ledger cannot read</h2>\n<pre>${tables}</pre>\n</main>`);
}
