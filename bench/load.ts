// The load generator: a child process with many connections that answers one request after the other. It fails when a
// PUBACK is missing, of another message or out of order, and when the server closes a connection.

import { createHistogram, performance, type RecordableHistogram } from "node:perf_hooks";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { unreachable } from "../src/errors.ts";
import { Connection, type Totals } from "./load-connection.ts";
import type {
  ConnectRequest,
  ConnectResult,
  LoadAnswer,
  LoadRequest,
  LoadResult,
  PaceRequest,
  Percentiles,
  SaturateRequest,
} from "./load-protocol.ts";
import { readCpuSeconds, readMachineSeconds, readThreadSeconds, toThreadSeconds } from "./process-stats.ts";

/** Connections that wait for their CONNACK at the same time: fewer than any server's backlog. */
const CONNECT_AT_ONCE = 64;
/** Client addresses are 127.0.0.2 and on, each with so many connections: no fleet comes from one address. */
const CONNECTIONS_PER_ADDRESS = 1000;
const LOOK_MS = 50;

const totals: Totals = {
  sent: 0,
  acknowledged: 0,
  sending: false,
  measuring: false,
  latency: createHistogram(),
  late: createHistogram(),
};
const connections: Connection[] = [];
let connect: ConnectResult = { seconds: 0, loadCpuSeconds: 0 };
let windows = 0;
const { promise: failed, reject } = Promise.withResolvers<never>();
failed.catch(() => {});
const fail = (reason: string): void => reject(new Error(reason));

async function connectAll(request: ConnectRequest): Promise<ConnectResult> {
  const startedMs = performance.now();
  const startedCpu = process.cpuUsage();
  const { connections: wanted, port, window, payloadBytes } = request;
  windows = wanted * window;
  let opened = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const open = (): void => {
    const number = connections.length + 1;
    const from = `127.0.0.${2 + Math.floor((number - 1) / CONNECTIONS_PER_ADDRESS)}`;
    const name = `bench-${String(number).padStart(5, "0")}`;
    connections.push(new Connection({ name, port, from, window, payloadBytes, totals, connected, fail }));
  };
  const connected = (): void => {
    opened += 1;
    if (opened === wanted) resolve();
    else if (connections.length < wanted) open();
  };
  for (let index = 0; index < Math.min(CONNECT_AT_ONCE, wanted); index += 1) open();
  await promise;
  connect = { seconds: (performance.now() - startedMs) / 1000, loadCpuSeconds: cpuSecondsSince(startedCpu) };
  return connect;
}

async function saturate(request: SaturateRequest): Promise<LoadResult> {
  return run(request, () => {
    for (const connection of connections) connection.saturate();
  });
}

async function pace(request: PaceRequest): Promise<LoadResult> {
  const { perSecond, burst } = request;
  const betweenMs = (burst / perSecond) * 1000;
  const everyMs = betweenMs * connections.length;
  using stack = new DisposableStack();
  const result = await run(request, () => {
    const startMs = performance.now();
    for (const [index, connection] of connections.entries()) {
      connection.follow({ firstMs: startMs + index * betweenMs, everyMs, burst });
    }
    let bursts = 0;
    const timer = setInterval(() => {
      if (!totals.sending) return;
      const due = Math.floor((performance.now() - startMs) / betweenMs) + 1;
      for (; bursts < due; bursts += 1) connections[bursts % connections.length]?.sendBurst();
    }, 1);
    stack.defer(() => clearInterval(timer));
  });
  return { ...result, lateMs: toPercentiles(totals.late) };
}

/** Starts the load, measures a window of it, stops and waits for the last acknowledgement. */
async function run(request: SaturateRequest | PaceRequest, start: () => void): Promise<LoadResult> {
  const before = { sent: totals.sent, acknowledged: totals.acknowledged };
  totals.sending = true;
  start();
  await sleep(request.warmupMs);
  const measured = await measure(request);
  totals.sending = false;
  const deadlineMs = performance.now() + request.drainMs;
  while (totals.acknowledged < totals.sent && performance.now() < deadlineMs) await sleep(5);
  const missing = totals.sent - totals.acknowledged;
  if (missing > 0 && request.mayStall !== true) fail(`${missing} messages were never acknowledged`);
  const [sent, acknowledged] = [totals.sent - before.sent, totals.acknowledged - before.acknowledged];
  return { ...measured, sent, acknowledged };
}

async function measure({ measureMs, pids }: SaturateRequest | PaceRequest): Promise<Omit<LoadResult, "sent">> {
  totals.latency.reset();
  totals.late.reset();
  totals.measuring = true;
  const threads = readThreadSeconds(pids);
  const server = readCpuSeconds(pids);
  const machine = readMachineSeconds();
  const startedMs = performance.now();
  const startedCpu = process.cpuUsage();
  const before = totals.acknowledged;
  let leastInFlight = windows;
  while (performance.now() - startedMs < measureMs) {
    await sleep(Math.min(LOOK_MS, Math.max(1, measureMs - (performance.now() - startedMs))));
    leastInFlight = Math.min(leastInFlight, totals.sent - totals.acknowledged);
  }
  const messages = totals.acknowledged - before;
  const seconds = (performance.now() - startedMs) / 1000;
  const loadCpuSeconds = cpuSecondsSince(startedCpu);
  const serverCpuSeconds = readCpuSeconds(pids) - server;
  const otherCpuSeconds = readMachineSeconds() - machine - serverCpuSeconds - loadCpuSeconds;
  totals.measuring = false;
  return {
    messages,
    seconds,
    serverCpuSeconds,
    threadSeconds: toThreadSeconds(threads, readThreadSeconds(pids)),
    loadCpuSeconds,
    otherCpuSeconds: Math.max(0, otherCpuSeconds),
    pubackMs: toPercentiles(totals.latency),
    leastInFlight: leastInFlight / windows,
    acknowledged: messages,
  };
}

function cpuSecondsSince(started: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(started);
  return (user + system) / 1e6;
}

function toPercentiles(histogram: RecordableHistogram): Percentiles {
  return { p50: histogram.percentile(50) / 1000, p99: histogram.percentile(99) / 1000, max: histogram.max / 1000 };
}

async function answer(request: LoadRequest): Promise<LoadAnswer> {
  switch (request.kind) {
    case "connect":
      return { kind: "connected", result: await connectAll(request) };
    case "check":
      // What came in before the request is dealt with first: a connection that was closed has failed by then.
      await nextTurn();
      return { kind: "connected", result: connect };
    case "saturate":
      return { kind: "measured", result: await saturate(request) };
    case "pace":
      return { kind: "measured", result: await pace(request) };
    default:
      return unreachable(request);
  }
}

const failure = (error: unknown): LoadAnswer => ({ kind: "failed", reason: String(error) });

process.on("message", (request: LoadRequest) => {
  void Promise.race([failed, answer(request)])
    .catch(failure)
    .then((said) => process.send?.(said));
});
// The benchmark is done with it, or gone.
process.on("disconnect", () => {
  for (const connection of connections) connection.close();
  setTimeout(() => process.exit(0), 100);
});
