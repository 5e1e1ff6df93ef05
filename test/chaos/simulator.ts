// The devices of a chaos run: the simulator as a process, with a ledger, and a scenario that has the reconnect storms of the script.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execPath } from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import type { PhaseDefinition } from "../../devices-sim/scenarios/scenario.ts";
import { type Finished, run } from "../e2e/tools.ts";
import { type ChaosGateway, readMetric } from "./gateway.ts";
import type { ChaosEvent } from "./script.ts";

export interface SimulatorOptions {
  /** Its ledger and what it reports. */
  readonly dir: string;
  readonly mqttPort: number;
  readonly devices: number;
  /** Messages per second of all devices. */
  readonly rate: number;
  readonly durationMs: number;
  readonly seed: number;
  readonly script: readonly ChaosEvent[];
}

export interface Simulator extends AsyncDisposable {
  /** What it was given, for the report. */
  readonly args: readonly string[];
  readonly finished: Promise<Finished>;
}

export interface Ledger {
  readonly ledger: string;
  readonly summary: string;
}

export const launcher = join(import.meta.dirname, "../../bin/sluice-sim.js");

export const filesOf = (dir: string): Ledger => ({ ledger: join(dir, "ledger"), summary: join(dir, "simulator.json") });

const ENDS_WITHIN_MS = 15_000;
/** The storm comes so long after its phase began, and the phase ends before the next. */
const STORM_AFTER_MS = 1_000;
const STORM_MS = 1_500;

/** What is wrong with messages all the time: rejected for each reason, sent twice, late and again. */
const faults: PhaseDefinition["faults"] = {
  "malformed-json": 0.01,
  "hostile-bytes": 0.01,
  "wrong-type": 0.005,
  "missing-seq": 0.005,
  empty: 0.005,
  "out-of-range": 0.005,
  "impossible-time": 0.005,
  "wrong-topic": 0.005,
  duplicate: 0.01,
  "dup-resend": 0.001,
  "out-of-order": 0.01,
};

/** Phases for the simulator: a storm at each time that the script has one. */
export function toPhases(script: readonly ChaosEvent[], durationMs: number): readonly PhaseDefinition[] {
  const phases: PhaseDefinition[] = [];
  let endMs = 0;
  const add = (name: string, untilMs: number, more: PhaseDefinition["faults"] = {}): void => {
    if (untilMs > endMs) phases.push({ name, duration: `${untilMs - endMs}ms`, faults: { ...faults, ...more } });
    endMs = Math.max(endMs, untilMs);
  };
  for (const { kind, atMs } of script) {
    if (kind !== "reconnect-storm") continue;
    add("calm", atMs - STORM_AFTER_MS);
    add("storm", endMs + STORM_MS, { "reconnect-storm": { share: 1, every: `${STORM_AFTER_MS}ms` } });
  }
  add("calm", durationMs);
  return phases;
}

export async function startSimulator(options: SimulatorOptions): Promise<Simulator> {
  const { dir, mqttPort, devices, rate, durationMs, seed, script } = options;
  const scenario = join(dir, "scenario.ts");
  await writeFile(
    scenario,
    `export default ${JSON.stringify({ phases: toPhases(script, durationMs) }, undefined, 2)};\n`,
  );
  const { ledger, summary } = filesOf(dir);
  const given = {
    url: `mqtt://127.0.0.1:${mqttPort}`,
    protocol: 5,
    qos: 1,
    devices,
    "total-rate": rate,
    ramp: "2s",
    duration: `${durationMs}ms`,
    reconnect: "500ms",
    scenario,
    seed,
    ledger,
  };
  const args = ["--no-clean", ...Object.entries(given).flatMap(([name, value]) => [`--${name}`, String(value)])];
  const { child, finished } = run(execPath, [launcher, ...args, "--json", summary, "--quiet"]);
  return {
    args,
    finished,
    async [Symbol.asyncDispose]() {
      child.kill("SIGINT");
      const patience = new AbortController();
      const killed = delay(ENDS_WITHIN_MS, undefined, { signal: patience.signal }).then(
        () => child.kill("SIGKILL"),
        () => false,
      );
      await finished;
      patience.abort();
      await killed;
    },
  };
}

/** Resolves when the first device is connected: the clock of the script begins. Rejects when the simulator ends before that. */
export async function whenConnected(
  gateway: ChaosGateway,
  { finished }: Simulator,
  signal: AbortSignal,
): Promise<void> {
  let ended: Finished | undefined;
  void finished.then((result) => {
    ended = result;
  });
  while ((await readMetric(gateway, "broker_clients_connected")) === 0) {
    if (ended !== undefined) throw new Error(`the simulator ended with ${ended.code}: ${ended.stderr}${ended.stdout}`);
    await delay(20, undefined, { signal });
  }
}
