// The benchmarks: `npm run bench -- ingest` (the default) or `journal`. Loopback only; stops by itself; ends only its own
// children.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { Command, InvalidArgumentError } from "commander";
import { runIngest, toRatio, toSpread, type Round, type Spread } from "./ingest.ts";
import { toRows, toTable as toJournalTable, toVerdicts } from "./journal-report.ts";
import { runJournal, type DiskTurn, type Turn } from "./journal.ts";
import { describeMachine, toText } from "./machine.ts";
import type { ServerName } from "./servers.ts";

const root = (relative: string): string => fileURLToPath(new URL(`../${relative}`, import.meta.url));

const serverNames: readonly ServerName[] = ["gateway", "aedes"];

interface IngestFlags {
  readonly connections: number;
  readonly window: number;
  readonly payload: number;
  readonly warmup: number;
  readonly seconds: number;
  readonly rounds: number;
  readonly servers: readonly ServerName[];
  readonly dataDir: string;
}

async function ingest(flags: IngestFlags): Promise<void> {
  await mkdir(flags.dataDir, { recursive: true });
  const machine = await describeMachine(flags.dataDir, ["aedes", "zod", "mqtt-packet"]);
  console.log(`${toText(machine)}\n`);
  console.log(
    `QoS 1, ${flags.connections} connections, window ${flags.window}, ${flags.payload} bytes of JSON, ` +
      `${flags.rounds} rounds of ${flags.seconds} s\n`,
  );
  const rounds = await runIngest(
    {
      connections: flags.connections,
      window: flags.window,
      payloadBytes: flags.payload,
      warmupMs: flags.warmup * 1000,
      measureMs: flags.seconds * 1000,
      rounds: flags.rounds,
      servers: flags.servers,
      dataDir: flags.dataDir,
    },
    (round) => console.log(toLine(round)),
    abortOnSignal(),
  );
  console.log(`\n${toTable(rounds)}`);
  const ratios = {
    messagesPerSecond: toRatio(rounds, (round) => round.messagesPerSecond),
    messagesPerCpuSecond: toRatio(rounds, (round) => round.messagesPerCpuSecond),
  };
  for (const [name, ratio] of Object.entries(ratios)) {
    if (ratio !== undefined) console.log(`gateway / aedes, ${name}: ${spread(ratio, 2)}`);
  }
  await writeResult("ingest", { machine, flags: withoutDataDir(flags), ratios, rounds });
}

interface JournalFlags {
  readonly payload: number;
  readonly seconds: number;
  readonly records: number;
  readonly rounds: number;
  readonly dataDir: string;
}

async function journal(flags: JournalFlags): Promise<void> {
  await mkdir(flags.dataDir, { recursive: true });
  const machine = await describeMachine(flags.dataDir, ["classic-level", "lmdb"]);
  console.log(`${toText(machine)}\n`);
  const turns = await runJournal(
    {
      rounds: flags.rounds,
      measureMs: flags.seconds * 1000,
      records: flags.records * 1000,
      payloadBytes: flags.payload,
      dataDir: flags.dataDir,
    },
    (turn) => console.log(toTurnLine(turn)),
    abortOnSignal(),
  );
  const rows = toRows(turns);
  const [table, verdicts] = [toJournalTable(rows), toVerdicts(rows)];
  console.log(`\n${table}\n\n${verdicts.join("\n")}`);
  await writeResult("journal", { machine, flags: withoutDataDir(flags), rows, turns });
  const howMuch = `${flags.rounds} rounds of ${flags.seconds} s each`;
  await writeSection("journal", `${toText(machine)}\n${howMuch}\n\n${table}\n\n- ${verdicts.join("\n- ")}`);
}

const toTurnLine = (turn: Turn | DiskTurn): string =>
  [
    `round ${turn.round}  ${turn.load.padEnd(13)} ${turn.store.padEnd(8)}`,
    `p50 ${turn.latencyMs.p50.toFixed(2)} p99 ${turn.latencyMs.p99.toFixed(2)} ms`.padEnd(26),
    turn.store === "disk" ? `${turn.bytes} B` : `${turn.mainThreadNsPerRecord} ns/record with the loop`,
  ].join("");

/** Where the files stood is the machine's business; their file system is in `machine`. */
function withoutDataDir<F extends { readonly dataDir: string }>({ dataDir: _dataDir, ...said }: F): Omit<F, "dataDir"> {
  return said;
}

async function writeResult(name: string, result: object): Promise<void> {
  const file = `bench/results/${name}.json`;
  await mkdir(root("bench/results"), { recursive: true });
  await writeFile(root(file), `${JSON.stringify({ name, ...result }, undefined, 2)}\n`);
  console.log(`\nwritten to ${file}`);
}

/** Replaces the figures in docs/benchmarks.md. */
async function writeSection(name: string, text: string): Promise<void> {
  const file = root("docs/benchmarks.md");
  const before = await readFile(file, "utf8");
  const [begin, end] = [`<!-- ${name}: written by the benchmark -->\n`, `<!-- /${name} -->`];
  const [from, to] = [before.indexOf(begin) + begin.length, before.indexOf(end)];
  if (from < begin.length || to < from) throw new Error(`docs/benchmarks.md has no section ${name}`);
  await writeFile(file, `${before.slice(0, from)}${text}\n${before.slice(to)}`);
}

/** Ctrl-C ends the children, gateway last, and removes its journal. */
function abortOnSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => controller.abort());
  return controller.signal;
}

const columns: readonly (readonly [title: string, digits: number, pick: (round: Round) => number])[] = [
  ["messages/s", 0, (round) => round.messagesPerSecond],
  ["messages per server-CPU-s", 0, (round) => round.messagesPerCpuSecond],
  ["server CPU cores", 2, (round) => round.serverCpuSeconds / round.seconds],
  ["load generator CPU cores", 2, (round) => round.loadCpuSeconds / round.seconds],
  ["PUBACK p50 ms, saturated", 1, (round) => round.pubackMs.p50],
  ["PUBACK p99 ms, saturated", 1, (round) => round.pubackMs.p99],
];

/** A row per figure and server: min / median / max of the rounds. */
function toTable(rounds: readonly Round[]): string {
  const rows = [`${"".padEnd(36)}${"min".padStart(10)}${"median".padStart(10)}${"max".padStart(10)}`];
  for (const [title, digits, pick] of columns) {
    for (const server of serverNames) {
      const own = rounds.filter((round) => round.server === server);
      if (own.length === 0) continue;
      const { min, median, max } = toSpread(own.map(pick));
      const cells = [min, median, max].map((value) => value.toFixed(digits).padStart(10));
      rows.push(`${server.padEnd(9)}${title.padEnd(27)}${cells.join("")}`);
    }
  }
  return `${rows.join("\n")}\n`;
}

const toLine = (round: Round): string =>
  [
    `round ${round.round}  ${round.server.padEnd(8)}`,
    `${round.messagesPerSecond} messages/s`.padStart(20),
    `${round.messagesPerCpuSecond} per server-CPU-s`.padStart(26),
    `   PUBACK p50 ${round.pubackMs.p50.toFixed(1)} p99 ${round.pubackMs.p99.toFixed(1)} ms`,
  ].join("");

const spread = ({ min, median, max }: Spread, digits: number): string =>
  `${median.toFixed(digits)} (${min.toFixed(digits)} to ${max.toFixed(digits)})`;

const integer =
  (low: number, high: number) =>
  (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= low && value <= high) return value;
    throw new InvalidArgumentError(`expected a whole number from ${low} to ${high}.`);
  };

function servers(text: string): readonly ServerName[] {
  const names = serverNames.filter((name) => text.split(",").includes(name));
  if (names.length === text.split(",").length) return names;
  throw new InvalidArgumentError(`expected names out of ${serverNames.join(",")}.`);
}

const program = new Command("bench");
program
  .command("ingest", { isDefault: true })
  .description("QoS 1 ingest of the gateway against bare Aedes, interleaved")
  .option("--connections <n>", "MQTT connections", integer(1, 9999), 1000)
  .option("--window <n>", "unacknowledged messages per connection", integer(1, 1000), 16)
  .option("--payload <bytes>", "size of a message", integer(150, 10_000), 150)
  .option("--warmup <s>", "seconds of load before the measured window", integer(0, 60), 2)
  .option("--seconds <s>", "the measured window", integer(1, 600), 8)
  .option("--rounds <n>", "measurements of each server", integer(1, 100), 3)
  .option("--servers <names>", "which to measure", servers, serverNames)
  .option("--data-dir <dir>", "where the gateway's journal goes; its disk is part of what is measured", root("data"))
  .action(ingest);
program
  .command("journal")
  .description(
    "the journal against LevelDB and LMDB: cost of an append, latency of a commit, reading back; interleaved",
  )
  .option("--payload <bytes>", "size of a message", integer(1, 10_000), 150)
  .option("--seconds <s>", "the measured window of a paced turn", integer(1, 600), 4)
  .option("--records <thousands>", "records of a turn at full speed, in thousands", integer(10, 10_000), 1500)
  .option("--rounds <n>", "measurements of each store", integer(1, 100), 5)
  .option("--data-dir <dir>", "where the stores go; its disk is part of what is measured", root("data"))
  .action(journal);
try {
  await program.parseAsync();
} catch (error) {
  console.error(error instanceof Error && error.name === "AbortError" ? "interrupted" : String(error));
  process.exitCode = 1;
}
