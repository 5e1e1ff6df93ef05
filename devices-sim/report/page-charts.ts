// The charts of the page: which there are, of what, and what they share.

import type { SimOptions } from "../options.ts";
import type { Chart, Lane, TimeAxis } from "./chart.ts";
import { sum, tenths } from "./numbers.ts";
import type { Percentiles, Point, TimelineData } from "./timeline.ts";

/** More kinds than this are shown as one. */
const MOST_LANES = 24;

/** A point is shown in the middle of its interval. */
export function toAxis({ points, marks }: TimelineData): TimeAxis {
  return {
    atMs: points.map(({ atMs, ms }) => atMs - Math.round(ms / 2)),
    endMs: Math.max(1, points.at(-1)?.atMs ?? 0, ...marks.map(({ atMs }) => atMs)),
    marks,
  };
}

export function toRateCharts(points: readonly Point[], { qos }: Pick<SimOptions, "qos">): readonly Chart[] {
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

export const toConnectionsChart = (points: readonly Point[], { devices }: Pick<SimOptions, "devices">): Chart => ({
  title: "Connections",
  unit: `devices of ${devices}`,
  scale: "linear",
  series: [
    { name: "connected", color: "acknowledged", filled: true, values: points.map(({ connected }) => connected) },
  ],
});

/** None at QoS 0. */
export const toInFlightCharts = (points: readonly Point[], { qos }: Pick<SimOptions, "qos">): readonly Chart[] =>
  qos === 0
    ? []
    : [
        {
          title: "In flight",
          unit: "messages without an answer yet",
          scale: "linear",
          series: [{ name: "in flight", color: "p99", filled: true, values: points.map(({ inFlight }) => inFlight) }],
        },
      ];

/** Faults first; the most frequent of each first. */
export function toLaneList(points: readonly Point[]): readonly Lane[] {
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
