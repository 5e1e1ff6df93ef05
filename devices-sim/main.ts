// The simulator's process: arguments, signals, output, exit code.

import { access, constants, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { brokerUrl } from "./connection/dialer.ts";
import { openFleet, type Ending, type Fleet } from "./fleet.ts";
import { beginRun } from "./ledger/run.ts";
import { openRejectionWatch } from "./ledger/watch.ts";
import { loadProfile } from "./profiles/load.ts";
import { parseOptions, type OutputOptions, type SimOptions, type VerifyOptions } from "./options.ts";
import { openLive } from "./report/live.ts";
import { describeMachine } from "./report/machine.ts";
import { toLedgerPage } from "./report/ledger-page.ts";
import { toPage } from "./report/page.ts";
import { readRecordedRun } from "./report/recorded-run.ts";
import { toExitCode, toText } from "./report/summary.ts";
import { parseVerifyOptions } from "./verify/options.ts";
import { toVerificationText } from "./verify/report.ts";
import { IncomparableError } from "./verify/row.ts";
import { checkTargets, verify, type Verification, type VerifyRequest } from "./verify/verify.ts";

/** A terminal and npm both deliver one Ctrl-C: signals this close together count as one. */
const SAME_SIGNAL_MS = 500;

/** Resolves to the exit code when every device is disconnected, sinks are verified and the summary is written. */
async function run(sim: SimOptions, output: OutputOptions, { targets, waitMs }: VerifyOptions): Promise<number> {
  const profile = await loadProfile(sim.profile);
  if (profile.kind === "wrong") {
    process.stderr.write(`error: option '--profile': ${profile.problem}\n`);
    return 2;
  }
  await checkFolders(output);
  await checkTargets(targets);
  const endRun = sim.ledger === undefined ? undefined : await beginRun(sim.ledger, sim);
  await using watch =
    sim.ledger !== undefined && sim.watchRejected ? await openRejectionWatch(sim.ledger, sim) : undefined;
  await using fleet = openFleet(sim);
  stopOnSignal(fleet);
  await using _metrics = await openMetrics(fleet, output);
  const live = output.quiet ? undefined : openLive(() => fleet.progress(), sim, streamFor(output));
  const ending = await fleet.ended;
  live?.[Symbol.dispose]();
  if (ending.kind !== "finished") return explain(ending, sim);
  const { summary, timeline } = ending;
  await watch?.settled(summary.invalidSent);
  await watch?.[Symbol.asyncDispose]();
  await endRun?.();
  const isVerified = sim.ledger !== undefined && (sim.watchRejected || targets.length > 0);
  const compared = isVerified ? await compare({ dir: sim.ledger, targets, waitMs }, output).catch(asValue) : undefined;
  const verification = compared instanceof IncomparableError ? undefined : compared;
  const machine = await describeMachine();
  const result = { ...summary, timeline, machine, ...(verification !== undefined && { verification }) };
  const text = `${toText(summary)}${verification === undefined ? "" : `\n${toVerificationText(verification)}`}`;
  await report(result, text, output);
  if (output.html !== undefined) await writeFile(output.html, await toPage({ options: sim, summary, ...result }));
  if (compared instanceof IncomparableError) throw compared;
  return verification?.kept === false ? 1 : toExitCode(summary);
}

/** A sink that the gateway made during the run cannot be compared: the run is reported all the same, before that is told. */
function asValue(error: unknown): IncomparableError {
  if (error instanceof IncomparableError) return error;
  throw error;
}

/** Rejects when a file could not be written after the run: that is known before it. */
async function checkFolders({ json, html }: OutputOptions): Promise<void> {
  for (const [option, path] of Object.entries({ json, html })) {
    if (typeof path !== "string") continue;
    await access(dirname(path), constants.W_OK).catch((cause: NodeJS.ErrnoException) => {
      throw new Error(`--${option} ${path} cannot be written: ${cause.code}`, { cause });
    });
  }
}

async function openMetrics(fleet: Fleet, output: OutputOptions): Promise<AsyncDisposable | undefined> {
  if (output.metricsPort === undefined) return undefined;
  const { serveMetrics } = await import("./report/metrics.ts");
  const server = await serveMetrics(output.metricsPort, () => fleet.progress());
  if (!output.quiet) streamFor(output).write(`metrics at ${server.url}\n`);
  return server;
}

/** `sluice-sim verify`. Resolves to the exit code. */
async function runVerify(request: VerifyRequest, output: OutputOptions): Promise<number> {
  await checkFolders(output);
  const verification = await compare(request, output);
  await report(verification, toVerificationText(verification), output);
  if (output.html !== undefined) {
    await writeFile(output.html, await toLedgerPage(request.dir, await readRecordedRun(request.dir), verification));
  }
  return verification.kept ? 0 : 1;
}

const compare = (request: VerifyRequest, output: OutputOptions): Promise<Verification> =>
  verify({
    ...request,
    ...(!output.quiet && { onTarget: (name: string) => streamFor(output).write(`comparing with ${name}\n`) }),
  });

/** Where people look while standard output may be taken by JSON. */
const streamFor = ({ json }: OutputOptions): NodeJS.WriteStream => (json === true ? process.stderr : process.stdout);

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

function explain(ending: Exclude<Ending, { readonly kind: "finished" }>, sim: SimOptions): 1 {
  process.stderr.write(`error: ${explanations[ending.kind](brokerUrl(sim), ending.detail)}
`);
  return 1;
}

async function report(result: object, text: string, output: OutputOptions): Promise<void> {
  const json = `${JSON.stringify(result)}\n`;
  if (output.json === true) process.stdout.write(json);
  else if (output.json !== undefined) await writeFile(output.json, json);
  if (!output.quiet && output.json !== true) process.stdout.write(text);
}

/** What each bad ending means, for the person at the terminal. */
const explanations: Readonly<Record<Exclude<Ending["kind"], "finished">, (broker: string, detail: string) => string>> =
  {
    unreachable: (broker, detail) =>
      `no device could connect to ${broker}: ${detail}. Is a broker running there, and is that the port for ${broker.split(":", 1)[0]}? (--url)`,
    "credentials-refused": (broker, detail) =>
      `${broker} refused the credentials of ${detail}. Give others with --username and --password, or --credentials.`,
    "certificate-refused": (broker, detail) => `no device can connect to ${broker}: ${detail}.`,
    crashed: (_broker, detail) => `the simulator failed: ${detail}`,
  };

/** Resolves to the exit code. */
async function main([first, ...others]: readonly string[]): Promise<number> {
  const parsed = first === "verify" ? parseVerifyOptions(others) : parseOptions(process.argv.slice(2));
  if (parsed.kind === "run") return await run(parsed.sim, parsed.output, parsed.verify);
  if (parsed.kind === "verify") return await runVerify(parsed.request, parsed.output);
  (parsed.exitCode === 0 ? process.stdout : process.stderr).write(parsed.text);
  return parsed.exitCode;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`error: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = error instanceof IncomparableError ? 2 : 1;
}
