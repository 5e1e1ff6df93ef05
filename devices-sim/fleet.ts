// The devices of one run, spread over worker threads: starts them, adds up what they report, ends them.

import { Worker } from "node:worker_threads";
import { createLatency } from "./latency.ts";
import type { SimOptions } from "./options.ts";
import type { Progress } from "./report/live.ts";
import { toSummary, type Summary } from "./report/summary.ts";
import { nowMs, Timeline, type TimelineData } from "./report/timeline.ts";
import { toPhaseStarts } from "./scenarios/scenario.ts";
import { addCounters, type Counters } from "./tally.ts";
import type { Report, WorkerCommand, WorkerData, WorkerMessage } from "./worker.ts";

/** How a run ended. Except for "finished", no device was or stayed connected and there is nothing to sum up. */
export type Ending =
  | { readonly kind: "finished"; readonly summary: Summary; readonly timeline: TimelineData }
  /** No device could connect within `giveUpMs`; `detail` has the errors. */
  | { readonly kind: "unreachable"; readonly detail: string }
  /** The broker refused a device's credentials before any device was connected. */
  | { readonly kind: "credentials-refused"; readonly detail: string }
  /** The broker's certificate is not to be trusted, or the broker does not trust a device's, before any device was connected. */
  | { readonly kind: "certificate-refused"; readonly detail: string }
  /** A worker thread died: a defect of the simulator. */
  | { readonly kind: "crashed"; readonly detail: string };

export interface Fleet extends AsyncDisposable {
  /** Never rejects. All threads are gone when it resolves. */
  readonly ended: Promise<Ending>;
  /** Stops publishing, waits up to `drainMs` for acknowledgements, disconnects. Again: does nothing. */
  stop(): void;
  /** Puts this on the time line, as something that happens now. */
  mark(text: string): void;
  /** The state of the run, at most a quarter of a second old. */
  progress(): Progress;
}

interface Thread {
  /** From 0. */
  readonly number: number;
  readonly worker: Worker;
  /** The last second's reports, oldest first; a rate is what lies between first and last. */
  readonly reports: Report[];
  state: "loading" | "ready" | "finished";
}

/** Four a second come from each thread, so these span a second. */
const REPORTS_KEPT = 5;

/** Starts the devices as soon as all threads are loaded. Disposing stops the threads without asking: call `stop()` for an orderly end. */
export function openFleet(options: SimOptions): Fleet {
  let startMs = nowMs();
  const { promise: ended, resolve } = Promise.withResolvers<Ending>();
  const latency = createLatency();
  const timeline = new Timeline(options.threads);
  const threads = Array.from({ length: options.threads }, (_, thread) => openThread({ options, thread }));
  const timers: NodeJS.Timeout[] = [];
  let anyConnected = false;
  let allConnected = false;
  let stoppedMs: number | undefined;
  let over = false;

  const mark = (text: string): void => timeline.mark(nowMs(), text);
  const command = (kind: WorkerCommand["kind"]): void => {
    for (const { worker } of threads) worker.postMessage({ kind } satisfies WorkerCommand);
  };
  const stop = (): void => {
    if (stoppedMs !== undefined) return;
    stoppedMs = nowMs();
    mark("the devices stop");
    command("stop");
  };
  const begin = (): void => {
    if (stoppedMs !== undefined) return;
    startMs = nowMs();
    timeline.start(startMs);
    timers.push(setTimeout(giveUp, options.giveUpMs));
    if (options.durationMs !== undefined) timers.push(setTimeout(stop, options.durationMs));
    command("start");
  };
  const end = async (ending: Ending): Promise<void> => {
    if (over) return;
    over = true;
    for (const timer of timers) clearTimeout(timer);
    await Promise.all(threads.map(({ worker }) => worker.terminate()));
    resolve(ending);
  };
  const lastReports = (): Report[] => threads.flatMap(({ reports }) => reports.at(-1) ?? []);
  const connectedNow = (): number => lastReports().reduce((total, { counters }) => total + counters.connected, 0);
  const markPhases = (untilMs: number): void => {
    for (const { atMs, name } of toPhaseStarts(options.phases, untilMs)) timeline.mark(startMs + atMs, `phase ${name}`);
  };
  const finish = (): void => {
    const reports = lastReports();
    const durationMs = (stoppedMs ?? nowMs()) - startMs;
    // The timer is late by some milliseconds: in these no phase began.
    markPhases(Math.min(durationMs, options.durationMs ?? Infinity));
    const summary = toSummary({
      options,
      counters: addCounters(reports.map(({ counters }) => counters)),
      latency,
      startedAt: startMs,
      durationMs,
      workerCpuSeconds: reports.reduce((total, { cpuSeconds }) => total + cpuSeconds, 0),
      peakRssBytes: process.resourceUsage().maxRSS * 1024,
    });
    void end({ kind: "finished", summary, timeline: timeline.data });
  };
  const giveUp = (): void => {
    if (anyConnected || stoppedMs !== undefined) return;
    const { errors } = addCounters(lastReports().map(({ counters }) => counters));
    const detail = Object.values(errors).map(({ last }) => last);
    void end({ kind: "unreachable", detail: detail.join("; ") || "no answer" });
  };

  const onMessage = (thread: Thread, message: WorkerMessage): void => {
    switch (message.kind) {
      case "ready":
        thread.state = "ready";
        if (threads.every(({ state }) => state === "ready")) begin();
        break;
      case "connected":
        anyConnected = true;
        break;
      case "credentials-refused":
      case "certificate-refused":
        if (!anyConnected) void end({ kind: message.kind, detail: message.detail });
        break;
      case "report":
      case "finished":
        latency.add(message.report.latency);
        thread.reports.push(message.report);
        if (thread.reports.length > REPORTS_KEPT) thread.reports.shift();
        timeline.take(thread.number, message.report);
        if (message.kind === "finished") {
          thread.state = "finished";
          timeline.finish(thread.number);
        }
        if (!allConnected && connectedNow() === options.devices) {
          allConnected = true;
          mark("all devices are connected");
        }
        if (threads.every(({ state }) => state === "finished")) finish();
    }
  };
  for (const thread of threads) {
    thread.worker.on("message", (message: WorkerMessage) => onMessage(thread, message));
    thread.worker.on("error", (error) => void end({ kind: "crashed", detail: String(error) }));
    thread.worker.on("exit", () => {
      if (thread.state !== "finished") void end({ kind: "crashed", detail: "a worker thread ended early" });
    });
  }

  return {
    ended,
    stop,
    mark,
    progress: () => {
      const { points } = timeline.data;
      return toProgress({ threads, devices: options.devices, elapsedMs: nowMs() - startMs, points });
    },
    [Symbol.asyncDispose]: () => end({ kind: "crashed", detail: "disposed" }),
  };
}

/** A young generation that stays small: with V8's own bound 5,000 devices took 470 MiB, with this one 293; 10,000 busy ones 1,141 and 861. */
const resourceLimits = { maxYoungGenerationSizeMb: 12 };

function openThread(workerData: WorkerData): Thread {
  const worker = new Worker(new URL("worker.ts", import.meta.url), { workerData, resourceLimits });
  return { number: workerData.thread, worker, reports: [], state: "loading" };
}

function toProgress(state: {
  readonly threads: readonly Thread[];
  readonly devices: number;
  readonly elapsedMs: number;
  readonly points: Progress["points"];
}): Progress {
  const latency = createLatency();
  let sentPerSecond = 0;
  let acknowledgedPerSecond = 0;
  const all: Counters[] = [];
  for (const { reports, state: threadState } of state.threads) {
    const last = reports.at(-1);
    if (last === undefined) continue;
    all.push(last.counters);
    const [first, ...later] = reports;
    if (threadState === "finished" || first === undefined || later.length === 0) continue;
    const seconds = (last.atMs - first.atMs) / 1000;
    sentPerSecond += (last.counters.sent - first.counters.sent) / seconds;
    acknowledgedPerSecond += (last.counters.acknowledged - first.counters.acknowledged) / seconds;
    for (const report of later) latency.add(report.latency);
  }
  const counters = addCounters(all);
  return { ...state, counters, sentPerSecond, acknowledgedPerSecond, latency };
}
