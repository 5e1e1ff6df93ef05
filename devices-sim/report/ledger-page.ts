// What a ledger knows of its run, and what became of it, as the same kind of page as a run's.

import { brokerUrl } from "../connection/dialer.ts";
import type { Verification } from "../verify/verify.ts";
import { toChart, toLanes, type Chart } from "./chart.ts";
import { toCount } from "./numbers.ts";
import { toAxis, toInFlightCharts, toLaneList, toRateCharts } from "./page-charts.ts";
import { toDocument, toFigureList, toMinute, toVerdictLine, type Figure } from "./page-frame.ts";
import { toParameterRows, toTable, toVerificationHtml } from "./page-tables.ts";
import type { RecordedRun } from "./recorded-run.ts";

/** Resolves to the text of the file. `dir` is the ledger's folder. */
export function toLedgerPage(dir: string, recorded: RecordedRun, verification: Verification): Promise<string> {
  const { run, timeline } = recorded;
  // The ledger leaves out the path of a WebSocket: it may have a secret.
  const options = { ...run.options, path: "/" };
  const axis = toAxis(timeline);
  const rates = toRateCharts(timeline.points, options).filter(hasData);
  const levels = toInFlightCharts(timeline.points, options).filter(hasData);
  const lanes = toLaneList(timeline.points);
  const verdict = verification.kept ? "Every promise was kept." : "A promise was broken.";
  return toDocument({
    title: `${options.devices} simulated devices`,
    subtitle: `${brokerUrl(options)}, ${toMinute(run.startedAt)}, as the ledger has it`,
    charts: [...rates, ...levels],
    lanes,
    axis,
    body: `${toVerdictLine([verdict], verification.kept)}
${toFigureList(toFigures(recorded))}
<main>
${toVerificationHtml(verification)}
${[...rates, ...levels].map((chart) => toChart(chart, axis)).join("\n")}
${lanes.length === 0 ? "" : toLanes("Faults on purpose", lanes, axis)}
<div class="pair"><section><h2>Parameters</h2>
${toTable(toParameterRows(options))}</section>
<section><h2>Ledger</h2>
${toTable(toLedgerRows(dir, recorded, verification))}</section></div>
</main>`,
  });
}

const hasData = ({ series }: Chart): boolean => series.some(({ values }) => values.some((value) => value !== null));

function toFigures({ run, counts, pubackMs }: RecordedRun): readonly Figure[] {
  const { qos } = run.options;
  return [
    ["sent", toCount(counts.sent), `at QoS ${qos}, ${toCount(counts.spoilt)} spoilt on purpose`],
    ...(qos === 0
      ? []
      : ([
          ["acknowledged", toCount(counts.acknowledged), `${toCount(counts.unanswered)} without an answer`],
          ["sent again", toCount(counts.sentAgain), "by MQTT, or on purpose"],
        ] as const)),
    ...(counts.refused === 0 ? [] : ([["refused", toCount(counts.refused), "with an error of MQTT 5"]] as const)),
    ...(pubackMs === null
      ? []
      : ([
          [
            `${qos === 1 ? "PUBACK" : "PUBCOMP"}, median`,
            `${pubackMs.p50} ms`,
            `p99 ${pubackMs.p99} ms, max ${pubackMs.max} ms`,
          ],
        ] as const)),
    ["devices", toCount(counts.devices), "are in the ledger"],
  ];
}

const toLedgerRows = (
  dir: string,
  { run, timeline }: RecordedRun,
  { damagedLines }: Verification,
): readonly (readonly [name: string, text: string])[] => [
  ["folder", dir],
  ["began", new Date(run.startedAt).toISOString()],
  ["ended", run.endedAt === undefined ? "never: the simulator was killed" : new Date(run.endedAt).toISOString()],
  ["a point", `${timeline.stepMs / 1000} s`],
  ["damaged lines", toCount(damagedLines)],
];
