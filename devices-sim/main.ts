// The simulator's process: arguments, signals, output, exit code.

import { writeFile } from "node:fs/promises";
import { openFleet, type Ending, type Fleet } from "./fleet.ts";
import { loadProfile } from "./profiles/load.ts";
import { parseOptions, type OutputOptions, type SimOptions } from "./options.ts";
import { toExitCode, toProgressLine, toText } from "./report.ts";

/** A terminal and npm both deliver one Ctrl-C: signals this close together count as one. */
const SAME_SIGNAL_MS = 500;

/** Resolves to the exit code when every device is disconnected and the summary is written. */
async function run(sim: SimOptions, output: OutputOptions): Promise<number> {
  const profile = await loadProfile(sim.profile);
  if (profile.kind === "wrong") {
    process.stderr.write(`error: option '--profile': ${profile.problem}\n`);
    return 2;
  }
  await using fleet = openFleet(sim);
  stopOnSignal(fleet);
  const progress = output.quiet
    ? undefined
    : showProgress(fleet, output.json === true ? process.stderr : process.stdout);
  const ending = await fleet.ended;
  progress?.[Symbol.dispose]();
  return report(ending, sim, output);
}

function stopOnSignal(fleet: Fleet): void {
  let firstMs: number | undefined;
  const onSignal = (): void => {
    const nowMs = performance.now();
    if (firstMs === undefined) {
      firstMs = nowMs;
      fleet.stop();
    } else if (nowMs - firstMs > SAME_SIGNAL_MS) {
      process.exit(130);
    }
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
}

/** On a terminal one line that is rewritten, elsewhere a line a second. */
function showProgress(fleet: Fleet, out: NodeJS.WriteStream): Disposable {
  const timer = setInterval(() => {
    const line = toProgressLine(fleet.progress());
    out.write(out.isTTY ? `\r${line.slice(0, out.columns - 1)}\u001B[K` : `${line}\n`);
  }, 1000);
  return {
    [Symbol.dispose]: () => {
      clearInterval(timer);
      if (out.isTTY) out.write("\r\u001B[K");
    },
  };
}

async function report(ending: Ending, { host, port }: SimOptions, output: OutputOptions): Promise<number> {
  if (ending.kind !== "finished") {
    process.stderr.write(`error: ${explanations[ending.kind](`${host}:${port}`, ending.detail)}\n`);
    return 1;
  }
  const { summary } = ending;
  const json = `${JSON.stringify(summary)}\n`;
  if (output.json === true) process.stdout.write(json);
  else if (output.json !== undefined) await writeFile(output.json, json);
  if (!output.quiet && output.json !== true) process.stdout.write(toText(summary));
  return toExitCode(summary);
}

/** What each bad ending means, for the person at the terminal. */
const explanations: Readonly<Record<Exclude<Ending["kind"], "finished">, (broker: string, detail: string) => string>> =
  {
    unreachable: (broker, detail) =>
      `no device could connect to ${broker}: ${detail}. Is the broker running there? (--url)`,
    "credentials-refused": (broker, detail) =>
      `${broker} refused the credentials of ${detail}. Give others with --username and --password.`,
    crashed: (_broker, detail) => `the simulator failed: ${detail}`,
  };

const parsed = parseOptions(process.argv.slice(2));
if (parsed.kind === "told") {
  (parsed.exitCode === 0 ? process.stdout : process.stderr).write(parsed.text);
  process.exitCode = parsed.exitCode;
} else {
  process.exitCode = await run(parsed.sim, parsed.output);
}
