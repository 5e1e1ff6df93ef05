// What the sinks take: each against the same library used naively, row by row and in simple batches; and for the databases how
// fast a gateway drains its journal into them. Sinks and ways take turns within a round, each turn in a process of its own with
// a server of its own.

import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, loadavg } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Command, InvalidArgumentError } from "commander";
import { addCommonOptions, integer, type Benchmark, type CommonFlags } from "./benchmark.ts";
import { toCaution } from "./load-figures.ts";
import { spreadOf, toRows, toTable, toVerdicts, type Comparison, type Figure, type Measured } from "./report.ts";
import { measureDrain, type DrainResult } from "./sinks-drain.ts";
import { toPlace, type Target } from "./sinks-target.ts";
import { targets } from "./sinks-targets.ts";
import { ways, type TurnMessage, type TurnResult, type TurnSetup, type Way } from "./sinks-turn.ts";

interface SinksFlags extends CommonFlags {
  readonly seconds: number;
  readonly sinks: readonly string[];
  /** In thousands. */
  readonly records: number;
}

/** `server`: target and way. */
type Round = Measured & (TurnResult | DrainResult);

const drainWay = "gateway";
const names = targets.map(({ name }) => name);
const labelOf = (target: string, way: string): string => `${target}: ${way}`;

export const sinks: Benchmark<SinksFlags> = {
  name: "sinks",
  description: "each sink against the same library row by row and in simple batches; a journal drained; interleaved",
  packages: [...new Set(targets.flatMap(({ packages }) => packages))],
  addOptions(command: Command) {
    command
      .option("--seconds <s>", "the measured window of a turn", integer(1, 60), 3)
      .option("--sinks <names>", "which to measure", parseNames, names)
      .option(
        "--records <thousands>",
        "records of the journal that is drained, in thousands",
        integer(100, 20_000),
        1500,
      );
    addCommonOptions(command, 3);
  },
  describe: ({ rounds, seconds, records }) =>
    `${rounds} rounds of ${seconds} s each; readings with 150 bytes of JSON of 1,000 devices; naive batches of 500; a journal of ${records},000 records`,
  async run(flags, say, signal) {
    const cautions = toCautions();
    const rounds: Round[] = [];
    const chosen = targets.filter(({ name }) => flags.sinks.includes(name));
    for (let round = 1; round <= flags.rounds; round += 1) {
      for (const target of chosen) {
        for (const way of [...ways, drainWay] as const) {
          signal.throwIfAborted();
          const result = await measure(target, way, flags, signal);
          if (result === undefined) continue;
          const measured = { server: labelOf(target.name, way), round, ...result };
          say(toLine(measured));
          rounds.push(measured);
        }
      }
    }
    const rows = toRows(rounds, figures, comparison);
    return {
      data: { rows, rounds },
      table: toTable(rows, comparison),
      verdicts: [...toVerdicts(goals(rounds)), ...cautions],
    };
  },
};

function parseNames(text: string): readonly string[] {
  const asked = text.split(",");
  if (asked.every((name) => names.includes(name))) return asked;
  throw new InvalidArgumentError(`expected names out of ${names.join(",")}.`);
}

/** undefined: there is no such way to write to it. */
async function measure(
  target: Target,
  way: Way | typeof drainWay,
  { dataDir, seconds, records }: SinksFlags,
  signal: AbortSignal,
): Promise<TurnResult | undefined> {
  if (way === drainWay) {
    if (target.call === undefined) return undefined;
    return measureDrain({ target: target.name, records: records * 1000, dataDir }, signal);
  }
  if (way === "row by row" && target.noRows === true) return undefined;
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(dataDir, "bench-"));
  stack.defer(() => rm(dir, { recursive: true, maxRetries: 5 }));
  const server = target.start === undefined ? undefined : stack.use(await target.start());
  return await runTurn({ target: target.name, way, place: toPlace(dir, server), measureMs: seconds * 1000 }, signal);
}

async function runTurn(setup: TurnSetup, signal: AbortSignal): Promise<TurnResult> {
  const file = fileURLToPath(new URL("sinks-turn.ts", import.meta.url));
  const child = fork(file, { signal, stdio: ["ignore", "pipe", "inherit", "ipc"] });
  child.stdout?.resume();
  const exit = once(child, "exit");
  child.send(setup);
  const answer = await Promise.race([
    once(child, "message").then(([message]) => message as TurnMessage),
    exit.then((): TurnMessage => ({ kind: "failed", reason: "its process ended early" })),
  ]);
  await exit;
  if (answer.kind === "failed") throw new Error(`${labelOf(setup.target, setup.way)}: ${answer.reason}`);
  return answer.result;
}

const perSecond = ({ readings, seconds }: Round): number => readings / seconds;

const figures: readonly Figure<Round>[] = [
  { name: "readings/s", digits: 0, pick: perSecond },
  { name: "readings per CPU-s", digits: 0, pick: ({ readings, cpuSeconds }) => readings / cpuSeconds },
];

/** The sink against what one would write oneself; the gateway's drain has nothing beside it. */
const comparison: Comparison = {
  title: "sink / it",
  of(server) {
    const [target = "", way] = server.split(": ");
    const sink = labelOf(target, "sink");
    return way === "sink" || way === drainWay ? undefined : [sink, server];
  },
};

const goals = (rounds: readonly Round[]) =>
  [
    { target: "sqlite", atLeast: 250_000 },
    { target: "sqlite by time", atLeast: 250_000 },
    { target: "sqlite without index", atLeast: 250_000 },
    { target: "postgres", atLeast: 80_000 },
  ].map(({ target, atLeast }) => ({
    what: `journal drained into ${target} in its own thread`,
    measured: spreadOf(rounds, perSecond, labelOf(target, drainWay)),
    bound: { atLeast },
    unit: " readings/s",
    digits: 0,
  }));

/** Before the run: with servers of their own the turns cannot tell later what is somebody else's. */
function toCautions(): readonly string[] {
  const [load = 0] = loadavg();
  if (load < availableParallelism() / 2) return [];
  return [
    toCaution(
      `the machine was busy already (load average ${load.toFixed(1)}): look at readings per CPU-s, not at readings/s`,
    ),
  ];
}

const toLine = (round: Round): string =>
  [
    `round ${round.round}  ${round.server.padEnd(22)}`,
    `${perSecond(round).toFixed(0)} readings/s`.padStart(18),
    `${(round.readings / round.cpuSeconds).toFixed(0)} per CPU-s`.padStart(20),
    "threadSeconds" in round ? `   ${JSON.stringify(round.threadSeconds)}` : "",
  ].join("");
