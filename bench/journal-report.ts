// What the turns of the journal's benchmark say: each figure as min, median and max of the rounds, and the journal's
// ratio to each database within the same round.

import { addCommonOptions, integer, type Benchmark, type CommonFlags } from "./benchmark.ts";
import { runJournal, type DiskTurn, type Load, type Turn } from "./journal.ts";
import { formatSpread, markdownTable, toSpread, type Spread } from "./report.ts";

interface JournalFlags extends CommonFlags {
  readonly payload: number;
  readonly seconds: number;
  /** In thousands. */
  readonly records: number;
}

export const journal: Benchmark<JournalFlags> = {
  name: "journal",
  description:
    "the journal against LevelDB and LMDB: cost of an append, latency of a commit, reading back; interleaved",
  packages: ["classic-level", "lmdb"],
  addOptions(command) {
    command
      .option("--payload <bytes>", "size of a message", integer(1, 10_000), 150)
      .option("--seconds <s>", "the measured window of a paced turn", integer(1, 600), 4)
      .option("--records <thousands>", "records of a turn at full speed, in thousands", integer(10, 10_000), 1500);
    addCommonOptions(command, 5);
  },
  describe: ({ rounds, seconds }) => `${rounds} rounds of ${seconds} s each`,
  async run({ rounds, seconds, records, payload, dataDir }, say, signal) {
    const options = { rounds, measureMs: seconds * 1000, records: records * 1000, payloadBytes: payload, dataDir };
    const turns = await runJournal(options, (turn) => say(toLine(turn)), signal);
    const rows = toRows(turns);
    return { data: { rows, turns }, table: toTable(rows), verdicts: toVerdicts(rows) };
  },
};

const toLine = (turn: Turn | DiskTurn): string =>
  [
    `round ${turn.round}  ${turn.load.padEnd(13)} ${turn.store.padEnd(8)}`,
    `p50 ${turn.latencyMs.p50.toFixed(2)} p99 ${turn.latencyMs.p99.toFixed(2)} ms`.padEnd(26),
    turn.store === "disk" ? `${turn.bytes} B` : `${turn.mainThreadNsPerRecord} ns/record with the loop`,
  ].join("");

interface Row {
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

function toRows(turns: readonly AnyTurn[]): readonly Row[] {
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
  const ownValues = of("journal");
  const ratios = values.flatMap((value, round) => {
    const own = ownValues[round];
    return own === undefined ? [] : own / value;
  });
  const row = { load, figure: name, store, digits, spread: toSpread(values) };
  return store === "journal" || ratios.length === 0 ? [row] : [{ ...row, journalRatio: toSpread(ratios) }];
}

function toTable(rows: readonly Row[]): string {
  return markdownTable([
    ["load", "figure", "store", "min", "median", "max", "journal / it"],
    ...rows.map(({ load, figure, store, digits, spread: { min, median, max }, journalRatio: ratio }) => [
      load,
      figure,
      store,
      ...[min, median, max].map((value) => value.toFixed(digits)),
      ratio === undefined ? "" : formatSpread(ratio, 2),
    ]),
  ]);
}

/** What the goals say of it, from the medians. The sync of 3 × max(sync, 2 ms) is the bare disk's p50. */
function toVerdicts(rows: readonly Row[]): readonly string[] {
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
