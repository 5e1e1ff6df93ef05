// A thread with its share of the fleet: every `threads`-th device, so that the ramp stays even.

import type { RecordableHistogram } from "node:perf_hooks";
import { parentPort, workerData, type MessagePort } from "node:worker_threads";
import { createDialer } from "./connection/dialer.ts";
import type { Refused } from "./connection/failure.ts";
import { createIdentities } from "./connection/identities.ts";
import { Device, type DeviceParts } from "./device.ts";
import { faults } from "./faults/built-in.ts";
import { DeviceFaults } from "./faults/device-faults.ts";
import type { Fault } from "./faults/fault.ts";
import { LedgerWriter } from "./ledger/writer.ts";
import type { SimOptions } from "./options.ts";
import { payloads } from "./payloads/built-in.ts";
import { createSensor } from "./profiles/built-in.ts";
import { loadProfile } from "./profiles/load.ts";
import type { Profile } from "./profiles/profile.ts";
import { createRandom } from "./random.ts";
import { nowMs } from "./report/timeline.ts";
import type { Phase } from "./scenarios/scenario.ts";
import { Rhythm } from "./rhythm.ts";
import { Schedule } from "./schedule.ts";
import { Tally, type Counters } from "./tally.ts";

/** What the fleet gives a thread. `thread` is its number from 0. */
export interface WorkerData {
  readonly options: SimOptions;
  readonly thread: number;
}

export type WorkerCommand =
  /** All threads are ready: the ramp begins. */
  | { readonly kind: "start" }
  /** No more messages, wait for acknowledgements, disconnect, "finished". */
  | { readonly kind: "stop" };

export type WorkerMessage =
  /** The thread is loaded and waits for "start". */
  | { readonly kind: "ready" }
  /** The first device has a connection. */
  | { readonly kind: "connected" }
  | { readonly kind: `${Refused}-refused`; readonly detail: string }
  /** Every `REPORT_MS`. */
  | { readonly kind: "report"; readonly report: Report }
  /** The last message: everything is closed. Its report is from before. */
  | { readonly kind: "finished"; readonly report: Report };

export interface Report {
  readonly counters: Counters;
  /** Acknowledgement times in microseconds since the report before. */
  readonly latency: RecordableHistogram;
  /** When, by `nowMs`. */
  readonly atMs: number;
  /** CPU time of this thread, user and system. */
  readonly cpuSeconds: number;
}

const REPORT_MS = 250;

if (parentPort !== null) {
  const data = workerData as WorkerData;
  const loaded = await loadProfile(data.options.profile);
  if (loaded.kind === "wrong") throw new Error(loaded.problem);
  runThread(parentPort, data, loaded.profile);
}

function runThread(port: MessagePort, { options, thread }: WorkerData, profile: Profile): void {
  const tally = new Tally();
  const schedule = new Schedule();
  const devices: Device[] = [];
  const ledger = options.ledger === undefined ? undefined : new LedgerWriter(options.ledger, thread);
  let active = 0;
  let ending: { readonly settled: () => void } | undefined;

  const post = (message: WorkerMessage): void => port.postMessage(message);
  const report = (): Report => {
    const { user, system } = process.threadCpuUsage();
    return {
      counters: tally.counters(),
      latency: tally.takeLatency(),
      atMs: nowMs(),
      cpuSeconds: (user + system) / 1e6,
    };
  };
  const timer = setInterval(() => post({ kind: "report", report: report() }), REPORT_MS);

  const end = async (): Promise<void> => {
    if (ending !== undefined) return;
    for (const device of devices) device.stop();
    schedule.close();
    await new Promise<void>((resolve) => {
      const timeout = setTimeout(resolve, options.drainMs);
      const settled = (): void => {
        if (tally.inFlight > 0) return;
        clearTimeout(timeout);
        resolve();
      };
      ending = { settled };
      settled();
    });
    clearInterval(timer);
    const last = report();
    await Promise.all(devices.map((device) => device.close()));
    ledger?.[Symbol.dispose]();
    post({ kind: "finished", report: last });
    port.close();
  };

  let greeted = false;
  const events = {
    connected: (): void => {
      if (!greeted) post({ kind: "connected" });
      greeted = true;
    },
    refused: (what: Refused, detail: string): void => post({ kind: `${what}-refused`, detail }),
    settled: (): void => ending?.settled(),
    done: (): void => {
      active -= 1;
      if (active === 0) void end();
    },
  };

  // Before the ramp begins: certificates of 10,000 devices take seconds to read.
  const identityOf = createIdentities(options);
  const dialOf = createDialer(options);
  const callers = devicesOf(options, thread).map((index) => {
    const identity = identityOf(index);
    return { index, identity, dial: dialOf(identity.device, index) };
  });

  /** Phases follow each other by the schedule's clock, so that they do not drift apart from those of other threads. */
  const enter = (number: number, startMs: number): void => {
    const phase = options.phases[number % options.phases.length];
    if (phase === undefined) return;
    for (const device of devices) device.enter(phase, number, startMs);
    const endMs = startMs + phase.durationMs;
    if (endMs === Infinity) return;
    schedule.at(endMs, () => {
      enter(number + 1, endMs);
      return undefined;
    });
  };

  const start = (): void => {
    const startMs = schedule.now();
    for (const { index, ...caller } of callers) {
      const startsAtMs = (options.rampMs * index) / options.devices;
      const device = createDevice(index, profile, { ...caller, startsAtMs, options, schedule, tally, events, ledger });
      devices.push(device);
      active += 1;
      schedule.at(startMs + startsAtMs, () => {
        device.connect();
        return undefined;
      });
    }
    enter(0, startMs);
  };
  port.on("message", ({ kind }: WorkerCommand) => {
    if (kind === "start") start();
    else void end();
  });
  post({ kind: "ready" });
}

/** The numbers of a thread's devices, from 0. */
function devicesOf({ devices, threads }: SimOptions, thread: number): readonly number[] {
  return Array.from({ length: Math.ceil((devices - thread) / threads) }, (_, at) => thread + at * threads);
}

function createDevice(
  index: number,
  profile: Profile,
  {
    ledger,
    startsAtMs,
    ...shared
  }: Pick<DeviceParts, "identity" | "dial" | "options" | "schedule" | "tally" | "events"> & {
    readonly startsAtMs: number;
    readonly ledger: LedgerWriter | undefined;
  },
): Device {
  const { options, identity } = shared;
  const id = identity.device;
  const intervalMs = options.ratePerDevice === undefined ? profile.intervalMs : 1000 / options.ratePerDevice;
  const topic = options.topic.replaceAll("{device}", id);
  const deviceLedger = ledger?.openDevice(id, topic);
  const { seed, phases } = options;
  const sensor = createSensor(profile, seed, index);
  return new Device({
    ...shared,
    rhythm: new Rhythm({
      options,
      sensor,
      intervalMs,
      pace: intervalMs / profile.intervalMs,
      startsAtMs,
      random: createRandom(seed, index, 2),
    }),
    ledger: deviceLedger,
    encoder: payloads[options.payload].open({ id, topic, metrics: profile.metrics }),
    sensor,
    faults: new DeviceFaults({
      seed,
      index,
      schedule: shared.schedule,
      onFault(name) {
        shared.tally.fault(name);
        deviceLedger?.fault(name);
      },
    }),
    will: phases.some(needsWill) ? { topic: `${topic}/status`, payload: "offline" } : undefined,
    reconnectRandom: createRandom(seed, index, 3),
  });
}

function needsWill({ faults: plans }: Phase): boolean {
  return plans.some(({ name }) => {
    const fault: Fault = faults[name];
    return fault.kind === "connection" && fault.needsWill === true;
  });
}
