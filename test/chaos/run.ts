// A chaos run from its first server to its verdict. Whatever happens, nothing is left running or mounted.

import { cp, readFile } from "node:fs/promises";
import { join } from "node:path";
import { execPath } from "node:process";
import { DatabaseSync } from "node:sqlite";
import type { Summary } from "../../devices-sim/report/summary.ts";
import type { Verification } from "../../devices-sim/verify/verify.ts";
import type { Disk } from "../e2e/disks.ts";
import { run } from "../e2e/tools.ts";
import { type Destination, openDestinations } from "./destinations.ts";
import { openSmallDisk } from "./disk.ts";
import { caughtUp, type ChaosGateway, openChaosGateway } from "./gateway.ts";
import { play } from "./play.ts";
import { PromiseBroken } from "./promise-broken.ts";
import type { ChaosReport, Happened } from "./report.ts";
import { createScript, shortestMs } from "./script.ts";
import { filesOf, launcher, type Simulator, startSimulator, whenConnected } from "./simulator.ts";
import { countFound, type Counted, type Figures } from "./verdict.ts";

export interface ChaosOptions {
  /** How long the devices send. */
  readonly durationMs: number;
  readonly seed: number;
  readonly devices: number;
  /** Messages per second of all devices. */
  readonly rate: number;
  /** Ledger, logs and reports; the gateway's data without a disk of its own. */
  readonly dir: string;
  /** The gateway's data is there afterwards too. */
  readonly keep: boolean;
}

/** Rejects with a PromiseBroken, with the signal's reason when it aborts, and with another error when the run was not possible. */
export async function runChaos(
  { durationMs, seed, devices, rate, dir, keep }: ChaosOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<ChaosReport> {
  await using opened = new AsyncDisposableStack();
  const disk = await openDisk(dir, Math.ceil((durationMs / 1_000) * rate), opened, say);
  const dataDir = join(disk?.path ?? dir, "data");
  const { all, missing } = opened.use(await openDestinations(dataDir));
  for (const one of missing) say(`without a sink: ${one}`);
  signal.throwIfAborted();
  const servers = all.filter(({ outage }) => outage !== undefined);
  const scriptOptions = { seed, durationMs, servers, hasDisk: disk !== undefined };
  if (durationMs < shortestMs(scriptOptions)) {
    throw new RangeError(`everything once takes ${(shortestMs(scriptOptions) / 60_000).toFixed(2)} minutes at least`);
  }
  const script = createScript(scriptOptions);
  const gateway = opened.use(await openChaosGateway({ dataDir, logDir: dir, calls: all.map(({ call }) => call) }));
  signal.throwIfAborted();
  say(`a gateway with the sinks ${all.map(({ sink }) => sink).join(", ")}; ${script.length} events; seed ${seed}`);
  const simulator = opened.use(
    await startSimulator({ dir, mqttPort: gateway.mqttPort, devices, rate, durationMs, seed, script }),
  );
  const happened: Happened[] = [];
  await whenConnected(gateway, simulator, signal);
  const firstMs = performance.now();
  const tell = (text: string): void => {
    happened.push({ at: Date.now(), text });
    say(`${((performance.now() - firstMs) / 1_000).toFixed(1).padStart(6)} s  ${text}`);
  };
  const stage = { gateway, destinations: all, disk, tell };
  const devicesCode = await untilDevicesEnd(simulator, gateway, (either) => play(script, stage, either), signal);
  tell("the devices have ended");
  const figures = await settle(gateway, all, tell, signal);
  await gateway.stop();
  say("the gateway has stopped; comparing");
  const verification = await verifyLedger(dir, all, join(dataDir, "rejects.db"), signal);
  const counted = await countAll(all, join(dataDir, "telemetry.db"));
  const uncounted = all
    .filter(({ sink, target }) => target === undefined && !counted.some((one) => one.sink === sink))
    .map(({ sink }) => sink);
  if (keep && disk !== undefined) await cp(dataDir, join(dir, "data"), { recursive: true });
  const summary = JSON.parse(await readFile(filesOf(dir).summary, "utf8")) as Summary;
  const played = script.filter(({ kind }) => kind === "reconnect-storm").length;
  const storms = { played, cut: summary.faults["reconnect-storm"] ?? 0 };
  return {
    seed,
    simulatorArgs: simulator.args,
    happened,
    devicesCode,
    storms,
    verification,
    counted,
    uncounted,
    figures,
  };
}

async function openDisk(
  dir: string,
  messages: number,
  opened: AsyncDisposableStack,
  say: (line: string) => void,
): Promise<Disk | undefined> {
  const disk = await openSmallDisk(dir, messages);
  if (typeof disk !== "string") return opened.use(disk);
  say(`without a full disk: ${disk}`);
  return undefined;
}

/** Plays meanwhile. Resolves to the simulator's exit code when both are over. */
async function untilDevicesEnd(
  { finished }: Simulator,
  { endedByItself }: ChaosGateway,
  playing: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<number | null> {
  const stop = new AbortController();
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  const played = playing(AbortSignal.any([signal, stop.signal]));
  const both = Promise.all([finished, played]).then(([{ code, stderr }]) => {
    if (stderr !== "") throw new Error(`the simulator says: ${stderr}`);
    return code;
  });
  try {
    return await Promise.race([both, endedByItself, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
    stop.abort();
    await played.catch(() => {});
    both.catch(() => {}); // the first failure counts
  }
}

/** Waits until every sink has everything. */
async function settle(
  gateway: ChaosGateway,
  destinations: readonly Destination[],
  tell: (text: string) => void,
  signal: AbortSignal,
): Promise<readonly Figures[]> {
  const startMs = performance.now();
  const sinks = await caughtUp(gateway, signal);
  const dropped = await gateway.dropped();
  const waited = ((performance.now() - startMs) / 1_000).toFixed(1);
  tell(
    `every sink has everything, after ${waited} s more; the gateway kept ${dropped} messages from the frozen subscriber`,
  );
  return sinks
    .filter(({ kind }) => kind === "sink")
    .map(({ name, lagRecords }) => {
      const { unexplained, ...account } = gateway.account(name);
      const keepsPosition = destinations.find(({ sink }) => sink === name)?.keepsPosition === true;
      return { sink: name, lag: lagRecords, ...account, unexplained: keepsPosition ? undefined : unexplained };
    });
}

async function verifyLedger(
  dir: string,
  destinations: readonly Destination[],
  rejects: string,
  signal: AbortSignal,
): Promise<Verification> {
  const targets = destinations.flatMap(({ target }) => (target === undefined ? [] : [target]));
  const args = ["verify", "--ledger", filesOf(dir).ledger, "--json", "--quiet", ...targets, `rejects:${rejects}`];
  const { child, finished } = run(execPath, [launcher, ...args]);
  const end = (): void => void child.kill("SIGKILL");
  signal.addEventListener("abort", end, { once: true });
  const { stdout, stderr } = await finished;
  signal.removeEventListener("abort", end);
  signal.throwIfAborted();
  if (stdout === "") throw new Error(`the ledger cannot be compared: ${stderr}`);
  return JSON.parse(stdout) as Verification;
}

/** SQLite has been compared with the ledger: its offsets are those that every other sink must have. */
async function countAll(destinations: readonly Destination[], database: string): Promise<readonly Counted[]> {
  using db = new DatabaseSync(database, { readOnly: true });
  const offsets = new Set(
    db
      .prepare(`SELECT "offset" FROM readings`)
      .all()
      .map((row) => Number(row["offset"])),
  );
  const counted: Counted[] = [];
  for (const { sink, found } of destinations) {
    const there = await found?.().catch((cause: unknown) => {
      throw new PromiseBroken(`${sink} cannot be read: ${String(cause)}`);
    });
    if (there !== undefined) counted.push(countFound(sink, offsets, there));
  }
  return counted;
}
