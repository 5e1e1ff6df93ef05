// `npm run chaos`: a gateway with every sink that this machine can have, under load, while everything around it and it itself is killed,
// frozen, filled and cut off. Ends with the simulator's ledger held against every sink.

import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { Command, InvalidArgumentError } from "commander";
import { integer, number } from "../../devices-sim/arguments.ts";
import { PromiseBroken } from "./promise-broken.ts";
import { toReportPage, toReportText } from "./report.ts";
import { type ChaosOptions, runChaos } from "./run.ts";
import { filesOf } from "./simulator.ts";
import { findBroken } from "./verdict.ts";

interface Arguments {
  readonly minutes: number;
  readonly seed: number;
  readonly devices: number;
  readonly rate: number;
  readonly keep?: string;
  readonly html?: string;
}

const INTERRUPTED = 130;

const path = (text: string): string => {
  if (text === "") throw new InvalidArgumentError("expected a path.");
  return resolve(text);
};

const command = new Command("npm run chaos --")
  .description(
    "Kills, freezes, fills and cuts off a gateway and its sinks under load, and compares what every sink has.",
  )
  .option("--minutes <n>", "how long the devices send", number(0.1, 1_440), 10)
  .option("--seed <n>", "repeats what happens when", integer(0, 2 ** 32 - 1), Date.now() % 2 ** 32)
  .option("--devices <n>", "number of devices", integer(1, 10_000), 300)
  .option("--rate <n>", "messages per second of all devices", number(1, 10_000), 300)
  .option("--keep <folder>", "leave ledger, logs and the gateway's data there", path)
  .option("--html <file>", "write the run as one page", path)
  .addHelpText(
    "after",
    "\nExit code: 0 every promise was kept, 1 one was broken, 2 the run was not possible, 130 Ctrl-C.",
  )
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .parse();
const { minutes, seed, devices, rate, keep, html } = command.opts<Arguments>();

const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** Resolves to the exit code. */
async function chaos(options: ChaosOptions, signal: AbortSignal): Promise<number> {
  try {
    const report = await runChaos(options, say, signal);
    const { summary } = filesOf(options.dir);
    process.stdout.write(await toReportText(report, summary));
    if (html !== undefined) await writeFile(html, await toReportPage(report, summary));
    return findBroken(report).length === 0 ? 0 : 1;
  } catch (error) {
    if (signal.aborted) {
      say("ended before its time; nothing is left running");
      return INTERRUPTED;
    }
    const text = error instanceof Error ? error.message : String(error);
    if (error instanceof PromiseBroken) say(`BROKEN: ${text}\nchaos: seed ${seed}`);
    else process.stderr.write(`error: ${text}\n`);
    return error instanceof PromiseBroken ? 1 : 2;
  }
}

const interrupt = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(name, () => {
    if (!interrupt.signal.aborted) say("ending …");
    interrupt.abort();
  });
}
if (keep !== undefined) {
  await mkdir(keep, { recursive: true });
  if ((await readdir(keep)).length > 0) command.error(`error: option '--keep': ${keep} is not empty`);
}
const dir = keep ?? (await mkdtemp(join(tmpdir(), "sluice-chaos-")));
try {
  const options = { durationMs: minutes * 60_000, seed, devices, rate, dir, keep: keep !== undefined };
  process.exitCode = await chaos(options, interrupt.signal);
} finally {
  if (keep === undefined) await rm(dir, { recursive: true, force: true });
}
