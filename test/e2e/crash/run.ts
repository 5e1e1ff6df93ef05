// A crash run: a gateway under load is ended again and again, by SIGKILL or by the loss of its disk's power, and started
// again. One sink keeps up, the other one is held back over several lives. In the end both are checked.

import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { createRandom, type Random } from "../../../devices-sim/random.ts";
import { type GatewayProcess, launchGateway, type LogLine } from "../../gateway-process.ts";
import type { LoopDisk } from "../disks.ts";
import { checkSink, type Verdict } from "./check.ts";
import { findPort, openFleet } from "./fleet.ts";

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
  readonly seconds: number;
}

const errorLevel = 50;
const earlyChance = 0.15;
const earlyMs = 800;
/** A life ends when it has given so many acknowledgements at most. */
const longestLife = 2_000;
/** Of a crash, for the sink that is held back and for one that is not. */
const heldChance = { stays: 0.7, begins: 0.5 };
const pollMs = 50;

/** Small segments, so that many a crash hits their change; `again` is for devices that send twice what was not acknowledged. */
const config = (dataDir: string): string => `
import { defineGateway, defineStream, json, sqlite, tcp, z } from "sluice";
const schema = z.looseObject({ ts: z.int(), seq: z.int(), metrics: z.record(z.string(), z.number()) });
const dedupe = { key: (data) => String(data.seq), window: 100_000 };
export default defineGateway({
  listeners: [tcp()],
  streams: [
    defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema, time: (data) => data.ts }),
    defineStream({ name: "again", topic: "again/{device}/telemetry", codec: json, schema, time: (data) => data.ts }),
  ],
  sinks: [${["prompt", "held"].map((name) => `sqlite({ name: "${name}", path: ${JSON.stringify(databaseOf(dataDir, name))} })`).join(", ")}],
  journal: { maxBytes: 256 * 2 ** 20, segmentBytes: 2 ** 20 },
});`;

const databaseOf = (dataDir: string, sink: string): string => join(dataDir, `${sink}.db`);

export async function runCrashes(options: CrashRunOptions): Promise<CrashResult> {
  const startedMs = performance.now();
  const { dataDir, crashes, devices, seed, disk } = options;
  const random = createRandom(seed);
  const mqttPort = await findPort();
  const launch = { dataDir, config: config(dataDir), mqttPort };
  using fleet = openFleet({ port: mqttPort, devices, seed });
  using hold = createHold(databaseOf(dataDir, "held"));
  const errors: LogLine[] = [];
  let whileStarting = 0;
  for (let crash = 1; crash <= crashes; crash += 1) {
    const { running, end } = await launchGateway(launch);
    // Not in the first start: there is nothing yet that could be lost.
    const early = crash > 1 && random() < earlyChance;
    const gateway = await Promise.race([running, ...(early ? [delay(random() * earlyMs)] : [])]);
    if (gateway === undefined) whileStarting += 1;
    else await fleet.reaches(fleet.acknowledged() + Math.floor(random() * longestLife));
    if (disk !== undefined) hold.release();
    if (gateway !== undefined) errors.push(...gateway.log.filter(isError));
    await cut(disk, random);
    await end("SIGKILL");
    await disk?.remount();
    hold.change(random);
    options.onCrash?.(crash, fleet.acknowledged());
  }
  hold.release();
  const gateway = await (await launchGateway(launch)).running;
  await fleet.settle();
  await caughtUp(gateway);
  errors.push(...gateway.log.filter(isError));
  await gateway.end("SIGTERM");
  const verdicts = ["prompt", "held"].flatMap((sink) => checkSink(sink, databaseOf(dataDir, sink), fleet.devices));
  return { crashes, whileStarting, verdicts, errors, seconds: (performance.now() - startedMs) / 1000 };
}

const isError = ({ level }: LogLine): boolean => Number(level) >= errorLevel;

/** The power goes, and the gateway runs on for a moment: it must not acknowledge anything then. */
async function cut(disk: LoopDisk | undefined, random: Random): Promise<void> {
  if (disk === undefined) return;
  await disk.cutPower();
  await delay(random() * 100);
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

/** Resolves when both sinks have everything. */
async function caughtUp(gateway: GatewayProcess): Promise<void> {
  for (;;) {
    const { text } = await gateway.fetch("/metrics");
    const lags = [...text.matchAll(/^gateway_sink_lag_records\{.*\} (\d+)$/gm)].map(([, lag]) => Number(lag));
    if (lags.length === 2 && lags.every((lag) => lag === 0)) return;
    await delay(pollMs);
  }
}
