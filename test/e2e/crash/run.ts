// A crash run: a gateway under load is ended again and again, by SIGKILL or by the loss of its disk's power, and started
// again. One sink keeps up, the other one is held back over several lives. In the end both are checked.

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { kill } from "node:process";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { createRandom, type Random } from "../../../devices-sim/random.ts";
import { type GatewayProcess, launchGateway, type LogLine } from "../../gateway-process.ts";
import { findPort } from "../../servers/server.ts";
import type { LoopDisk } from "../disks.ts";
import { caughtUp, errorsOf } from "../observe.ts";
import { checkSink, type Verdict } from "./check.ts";
import { fleetConfig } from "./config.ts";
import { type Fleet, openFleet } from "./fleet.ts";

export interface CrashRunOptions {
  readonly dataDir: string;
  readonly crashes: number;
  /** `dataDir` is on it: each crash is a power cut. Without it each is a SIGKILL. */
  readonly disk?: LoopDisk;
  /** Of each kind; the gateway and the devices share the machine. */
  readonly devices: number;
  readonly seed: number;
  /** Told after each crash. */
  readonly onCrash?: (crashes: number, acknowledged: number) => void;
}

export interface CrashResult {
  readonly crashes: number;
  /** How many of them hit a gateway that was still starting. */
  readonly whileStarting: number;
  readonly verdicts: readonly Verdict[];
  /** Lines of level ERROR; after a power cut only those of later starts. */
  readonly errors: readonly LogLine[];
  readonly seed: number;
  readonly seconds: number;
}

const earlyChance = 0.15;
const earlyMs = 800;
/** A life ends when it has given so many acknowledgements at most. */
const longestLife = 2_000;
/** Of a crash, for the sink that is held back and for one that is not. */
const heldChance = { stays: 0.7, begins: 0.5 };
/** After a power cut. */
const survivalMs = 100;

const sinks = ["prompt", "held"];
const databaseOf = (dataDir: string, sink: string): string => join(dataDir, `${sink}.db`);

export async function runCrashes(options: CrashRunOptions): Promise<CrashResult> {
  const startedMs = performance.now();
  const { dataDir, crashes, devices, seed, disk } = options;
  const random = createRandom(seed);
  const mqttPort = await findPort();
  const launch = {
    dataDir,
    config: fleetConfig(Object.fromEntries(sinks.map((sink) => [sink, databaseOf(dataDir, sink)]))),
    mqttPort,
  };
  using fleet = openFleet({ port: mqttPort, devices, seed });
  using hold = createHold(databaseOf(dataDir, "held"));
  const errors: LogLine[] = [];
  let whileStarting = 0;
  for (let crash = 1; crash <= crashes; crash += 1) {
    const { running, end } = await launchGateway(launch);
    // Not in the first start: there is nothing yet that could be lost.
    const early = crash > 1 && random() < earlyChance;
    const gateway = early ? await Promise.race([running, delay(random() * earlyMs, undefined)]) : await running;
    if (gateway === undefined) whileStarting += 1;
    else await fleet.reaches(fleet.acknowledged() + Math.floor(random() * longestLife));
    if (disk !== undefined) hold.release();
    if (gateway !== undefined) errors.push(...errorsOf(gateway));
    if (disk !== undefined) await cutPower(disk, { gateway, fleet, random });
    await end("SIGKILL");
    await disk?.remount();
    hold.change(random);
    options.onCrash?.(crash, fleet.acknowledged());
  }
  hold.release();
  const gateway = await (await launchGateway(launch)).running;
  await fleet.settle();
  await caughtUp(gateway);
  errors.push(...errorsOf(gateway));
  await gateway.end("SIGTERM");
  const verdicts = sinks.flatMap((sink) => checkSink(sink, databaseOf(dataDir, sink), fleet.devices));
  return { crashes, whileStarting, verdicts, errors, seed, seconds: (performance.now() - startedMs) / 1000 };
}

/**
 * Either while no call is under way: then the gateway runs on for a moment, and must not acknowledge anything. Or at any
 * instant: then a sync that was under way may succeed or fail, and so the devices no longer listen.
 */
async function cutPower(
  disk: LoopDisk,
  { gateway, fleet, random }: { gateway: GatewayProcess | undefined; fleet: Fleet; random: Random },
): Promise<void> {
  const cut = await disk.openSwitch();
  if (gateway === undefined || random() < 0.5) {
    fleet.deafen();
    await cut();
    return;
  }
  await freeze(gateway.pid);
  await cut();
  kill(gateway.pid, "SIGCONT");
  await delay(random() * survivalMs);
}

/** Resolves when every thread of the process is stopped, outside of any system call. */
async function freeze(pid: number): Promise<void> {
  kill(pid, "SIGSTOP");
  for (const thread of await readdir(`/proc/${pid}/task`)) {
    while (!(await readFile(`/proc/${pid}/task/${thread}/stat`, "latin1")).includes(") T ")) await delay(1);
  }
}

/** Holds a sink back: as long as it lasts, another connection has the write lock of its database. */
function createHold(path: string): { change(random: Random): void; release(): void } & Disposable {
  let held: DatabaseSync | undefined;
  const release = (): void => {
    held?.close();
    held = undefined;
  };
  return {
    /** While the gateway is down. */
    change(random) {
      const keeps = random() < (held === undefined ? heldChance.begins : heldChance.stays);
      if (!keeps) release();
      else if (held === undefined) {
        held = new DatabaseSync(path);
        held.exec("BEGIN IMMEDIATE");
      }
    },
    release,
    [Symbol.dispose]: release,
  };
}
