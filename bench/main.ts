// The benchmarks: `npm run bench -- <name>`, `ingest` when none is named. Loopback only; each stops by itself and ends only
// its own children.

import { mkdir } from "node:fs/promises";
import { Command } from "commander";
import type { Benchmark, CommonFlags } from "./benchmark.ts";
import { idle } from "./idle.ts";
import { ingest, sparse } from "./ingest.ts";
import { journal } from "./journal-report.ts";
import { describeMachine, toText } from "./machine.ts";
import { peers } from "./peers.ts";
import { readSection, writeResult, writeSection } from "./results.ts";
import { sinks } from "./sinks.ts";
import { watch } from "./watch.ts";

const benchmarks: readonly Benchmark[] = [ingest, sparse, idle, watch, peers, journal, sinks];

interface Flags extends CommonFlags {
  readonly profile?: string;
}

async function run(benchmark: Benchmark, flags: Flags): Promise<void> {
  const { name, packages } = benchmark;
  await mkdir(flags.dataDir, { recursive: true });
  await readSection(name);
  const machine = await describeMachine(flags.dataDir, packages);
  const said = `${toText(machine)}\n${benchmark.describe(flags)}`;
  console.log(`${said}\n`);
  const { data, table, verdicts } = await benchmark.run(flags, (line) => console.log(line), abortOnSignal());
  console.log(`\n${table}\n\n${verdicts.join("\n")}`);
  if (flags.profile !== undefined) {
    console.log(`\nprofiles are in ${flags.profile}; the figures are not kept, because profiling slows the gateway`);
    return;
  }
  const { dataDir: _where, ...shown } = flags;
  const file = await writeResult(name, { machine, flags: shown, verdicts, ...data });
  const list = verdicts.map((verdict) => `- ${verdict}`);
  await writeSection(name, [said, "", table, "", ...list].join("\n").trimEnd());
  console.log(`\nwritten to ${file} and docs/benchmarks.md`);
}

/** Ctrl-C ends the children, gateway last, and removes its journal. */
function abortOnSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => controller.abort());
  return controller.signal;
}

const program = new Command("bench");
for (const benchmark of benchmarks) {
  const { name, description } = benchmark;
  const command = program.command(name, { isDefault: benchmark === ingest }).description(description);
  benchmark.addOptions(command);
  command.action((flags: Flags) => run(benchmark, flags));
}
try {
  await program.parseAsync();
} catch (error) {
  console.error(error instanceof Error && error.name === "AbortError" ? "interrupted" : String(error));
  process.exitCode = 1;
}
