// What the turns of the journal's benchmark say: each figure as min, median and max of the rounds, and the journal's
// ratio to each database within the same round.

import { toSpread, type Spread } from "./ingest.ts";
import type { DiskTurn, Load, Turn } from "./journal.ts";

export interface Row {
  readonly load: Load;
  readonly figure: string;
  readonly store: Turn["store"] | DiskTurn["store"];
  readonly digits: number;
  readonly spread: Spread;
  /** The journal's value divided by this store's. */
  readonly journalRatio?: Spread;
}

type AnyTurn = Turn | DiskTurn;

interface Figure {
  readonly name: string;
  readonly digits: number;
  /** Undefined: the turn does not have it. `turns` are those of the same load, for a figure that is a difference. */
  readonly pick: (turn: AnyTurn, turns: readonly AnyTurn[]) => number | undefined;
}

const p50Figure = "commit p50, ms";
const p99Figure = "commit p99, ms";
const figures: readonly Figure[] = [
  { name: "main thread, µs/record net", digits: 2, pick: netMicroseconds },
  { name: p50Figure, digits: 2, pick: (turn) => latency(turn)?.p50 },
  { name: p99Figure, digits: 2, pick: (turn) => latency(turn)?.p99 },
  { name: "durable, M records/s", digits: 2, pick: (turn) => millions(turn, (full) => full.recordsPerSecond) },
  { name: "read back, M records/s", digits: 2, pick: (turn) => millions(turn, (full) => full.readRecordsPerSecond) },
  { name: "on disk, B/record", digits: 0, pick: (turn) => atFullSpeed(turn)?.diskBytesPerRecord },
];

const leastSyncMs = 2;
const goalFactor = 3;

export function toRows(turns: readonly AnyTurn[]): readonly Row[] {
  const loads = [...new Set(turns.map(({ load }) => load))];
  return loads.flatMap((load) =>
    figures.flatMap((figure) => {
      const own = turns.filter((turn) => turn.load === load);
      const names = [...new Set(own.map(({ store }) => store))];
      return names.flatMap((store) => toRow(load, figure, store, own));
    }),
  );
}

function toRow(load: Load, { name, digits, pick }: Figure, store: Row["store"], turns: readonly AnyTurn[]): Row[] {
  const of = (wanted: Row["store"]): number[] =>
    turns.flatMap((turn) => (turn.store === wanted ? (pick(turn, turns) ?? []) : []));
  const values = of(store);
  if (values.length === 0) return [];
  const journal = of("journal");
  const ratios = values.flatMap((value, round) => {
    const own = journal[round];
    return own === undefined ? [] : own / value;
  });
  const row = { load, figure: name, store, digits, spread: toSpread(values) };
  return store === "journal" || ratios.length === 0 ? [row] : [{ ...row, journalRatio: toSpread(ratios) }];
}

/** A table in Markdown that can be read as it is. */
export function toTable(rows: readonly Row[]): string {
  const cells = [
    ["load", "figure", "store", "min", "median", "max", "journal / it"],
    ...rows.map(({ load, figure, store, digits, spread: { min, median, max }, journalRatio: ratio }) => [
      load,
      figure,
      store,
      ...[min, median, max].map((value) => value.toFixed(digits)),
      ratio === undefined ? "" : `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)})`,
    ]),
  ];
  const widths = (cells[0] ?? []).map((_, column) => Math.max(...cells.map((line) => line[column]?.length ?? 0)));
  const lines = cells.map((line) => `| ${line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`);
  lines.splice(1, 0, `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`);
  return lines.join("\n");
}

/** What the goals say of it, from the medians. The sync of 3 × max(sync, 2 ms) is the bare disk's p50. */
export function toVerdicts(rows: readonly Row[]): readonly string[] {
  const median = (load: Load, figure: string, store: Row["store"]): number =>
    rows.find((row) => row.load === load && row.figure === figure && row.store === store)?.spread.median ?? Number.NaN;
  const loads = [...new Set(rows.map(({ load }) => load))];
  return loads.flatMap((load) => {
    const [p50, p99] = [median(load, p50Figure, "journal"), median(load, p99Figure, "journal")];
    const said = `${load}: commit p99 ${p99.toFixed(2)} ms`;
    if (load.startsWith("hung")) {
      const paced: Load = `paced ${Number(load.slice("hung ".length))}`;
      const [otherP50, otherP99] = [median(paced, p50Figure, "journal"), median(paced, p99Figure, "journal")];
      return `${said}, p50 ${p50.toFixed(2)} ms; without hung file operations ${otherP99.toFixed(2)} and ${otherP50.toFixed(2)} ms`;
    }
    const sync = median(load, p50Figure, "disk");
    if (Number.isNaN(sync)) return [];
    const goal = goalFactor * Math.max(sync, leastSyncMs);
    return `${said}, goal below 3 × max(${sync.toFixed(2)} ms, 2 ms) = ${goal.toFixed(2)} ms`;
  });
}

/** Without what the loop costs that makes the messages. */
function netMicroseconds(turn: AnyTurn, turns: readonly AnyTurn[]): number | undefined {
  if (turn.store === "disk" || turn.store === "nothing") return undefined;
  const loop = turns.find(({ store, round }) => store === "nothing" && round === turn.round);
  if (loop === undefined || loop.store === "disk") return undefined;
  return (turn.mainThreadNsPerRecord - loop.mainThreadNsPerRecord) / 1000;
}

const latency = (turn: AnyTurn): Turn["latencyMs"] | undefined =>
  turn.store === "nothing" || turn.load === "full" ? undefined : turn.latencyMs;

const atFullSpeed = (turn: AnyTurn): Turn | undefined =>
  turn.store === "disk" || turn.store === "nothing" || turn.load !== "full" ? undefined : turn;

function millions(turn: AnyTurn, pick: (full: Turn) => number | undefined): number | undefined {
  const full = atFullSpeed(turn);
  const perSecond = full === undefined ? undefined : pick(full);
  return perSecond === undefined ? undefined : perSecond / 1e6;
}
