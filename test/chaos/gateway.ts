// The gateway of a chaos run: killed and started again on the same port, with the figures of all its lives.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type GatewayProcess, launchGateway, type LaunchedGateway } from "../gateway-process.ts";
import { findPort } from "../servers/server.ts";
import { type Account, createAccounts, type SinkFigures } from "./accounts.ts";
import { PromiseBroken } from "./promise-broken.ts";

export interface ChaosGateway extends AsyncDisposable {
  readonly mqttPort: number;
  /** What was seen of a sink. */
  account(sink: string): Account;
  /** Rejects when it ends without being told to. */
  readonly endedByItself: Promise<never>;
  /** SIGKILL; the next life begins after a while. Rejects when it does not begin. */
  kill(downMs: number, signal: AbortSignal): Promise<void>;
  /** GET of its HTTP port. Rejects when it does not answer. */
  ask(path: string): Promise<{ readonly status: number; readonly text: string }>;
  /** All that read the journal. Accounts remember it. */
  look(): Promise<readonly SinkFigures[]>;
  /** Messages that it kept from subscribers which do not read, in all lives. */
  dropped(): Promise<number>;
  /** In order. */
  stop(): Promise<void>;
}

export interface ChaosGatewayOptions {
  readonly dataDir: string;
  /** Where the log of each life goes. */
  readonly logDir: string;
  readonly calls: readonly string[];
}

const MIB = 2 ** 20;
/** A frozen subscriber is at its limit within seconds. */
const SUBSCRIBER_BYTES = 65_536;
const PATIENCE_MS = 60_000;

const toConfig = (calls: readonly string[]): string => `
import { defineGateway, defineStream, files, http, influx, json, kafka, mqtt, nats, postgres, redis, sqlite, tcp, z } from "sluice";
const climate = defineStream({
  name: "climate", topic: "devices/{device}/telemetry", codec: json,
  schema: z.looseObject({ ts: z.int(), seq: z.int(), metrics: z.record(z.string(), z.number()) }),
  time: (data) => data.ts,
});
export default defineGateway({
  listeners: [tcp()],
  streams: [climate],
  sinks: [
    ${calls.join(",\n    ")},
  ],
  journal: { maxBytes: ${64 * MIB}, segmentBytes: ${MIB} },
  limits: { subscriberQueueBytes: ${SUBSCRIBER_BYTES} },
});
`;

/** The processes of a gateway, one after the other. */
interface Lives {
  /** The last that has run. */
  readonly process: GatewayProcess | undefined;
  readonly endedByItself: Promise<never>;
  /** Rejects when it does not run. */
  start(): Promise<void>;
  /** Resolves to its exit code or signal when its log is written; undefined: it was never started. */
  end(signal: NodeJS.Signals): Promise<number | string | undefined>;
}

interface LivesOptions extends ChaosGatewayOptions {
  readonly mqttPort: number;
}

function createLives({ dataDir, logDir, calls, mqttPort }: LivesOptions): Lives {
  const options = { dataDir, config: toConfig(calls), mqttPort, env: { SLUICE_LOG_LEVEL: "info" } };
  const ended = Promise.withResolvers<never>();
  ended.promise.catch(() => {}); // told to whoever awaits it
  let launched: LaunchedGateway | undefined;
  let life: GatewayProcess | undefined;
  let lives = 0;
  let isTold = false;
  return {
    get process() {
      return life;
    },
    endedByItself: ended.promise,
    async start() {
      isTold = false;
      launched = await launchGateway(options);
      const running = await launched.running.catch((cause: unknown) => {
        throw new PromiseBroken(`the gateway does not start: ${String(cause)}`);
      });
      void running.ended.then((code) => {
        if (!isTold) ended.reject(new PromiseBroken(`the gateway ended by itself with ${code}`));
      });
      life = running;
      lives += 1;
    },
    async end(signal) {
      isTold = true;
      const code = await launched?.end(signal);
      const lines = life?.log.map((line) => `${JSON.stringify(line)}\n`) ?? [];
      await writeFile(join(logDir, `gateway-${lives}.log`), lines.join(""));
      return code;
    },
  };
}

export async function openChaosGateway(given: ChaosGatewayOptions): Promise<ChaosGateway> {
  const mqttPort = await findPort();
  const lives = createLives({ ...given, mqttPort });
  const accounts = createAccounts();
  let droppedBefore = 0;

  async function start(): Promise<void> {
    await lives.start();
    accounts.beginLife();
    await gateway.look();
  }

  const gateway: ChaosGateway = {
    mqttPort,
    account: (sink) => accounts.of(sink),
    endedByItself: lives.endedByItself,
    async kill(downMs, signal) {
      await gateway.look();
      droppedBefore = await gateway.dropped();
      await lives.end("SIGKILL");
      await delay(downMs, undefined, { signal });
      await start();
    },
    async ask(path) {
      try {
        if (lives.process === undefined) throw new TypeError("it has never run");
        return await lives.process.fetch(path);
      } catch (cause) {
        throw new PromiseBroken(`the gateway does not answer ${path}: ${String(cause)}`);
      }
    },
    async look() {
      const { text } = await gateway.ask("/");
      const { consumers } = JSON.parse(text) as { readonly consumers: readonly SinkFigures[] };
      accounts.take(consumers);
      return consumers;
    },
    dropped: async () => droppedBefore + (await readMetric(gateway, "broker_publish_messages_dropped")),
    async stop() {
      await gateway.look();
      const code = await lives.end("SIGTERM");
      if (code !== 0) throw new PromiseBroken(`the gateway was told to stop, and ended with ${code}`);
    },
    async [Symbol.asyncDispose]() {
      await lives.end("SIGKILL");
    },
  };
  try {
    await start();
  } catch (cause) {
    await gateway[Symbol.asyncDispose]();
    throw cause;
  }
  return gateway;
}

/** Resolves when every sink has everything, and the figures of then. */
export async function caughtUp(gateway: ChaosGateway, signal: AbortSignal): Promise<readonly SinkFigures[]> {
  const deadlineMs = performance.now() + PATIENCE_MS;
  for (;;) {
    const sinks = await gateway.look();
    const behind = sinks.filter(({ lagRecords }) => lagRecords > 0);
    if (behind.length === 0) return sinks;
    if (performance.now() > deadlineMs)
      throw new PromiseBroken(`${PATIENCE_MS / 1_000} s after the end: ${behind.map(describe).join("; ")}`);
    await delay(100, undefined, { signal });
  }
}

const describe = ({ name, state, lagRecords, lastError }: SinkFigures): string =>
  `${name} is ${state} with a lag of ${lagRecords}${lastError === undefined ? "" : ` (${lastError})`}`;

/** Waits until /readyz says so; how long it took. */
export async function untilReady(gateway: ChaosGateway, isReady: boolean, signal: AbortSignal): Promise<number> {
  const startMs = performance.now();
  for (;;) {
    const { status, text } = await gateway.ask("/readyz");
    const afterMs = performance.now() - startMs;
    if ((status === 200) === isReady) return afterMs;
    if (afterMs > PATIENCE_MS)
      throw new PromiseBroken(`after ${PATIENCE_MS / 1_000} s /readyz says ${status}: ${text}`);
    await delay(50, undefined, { signal });
  }
}

/** The sum over all labels of a metric; 0 when it has no sample. */
export async function readMetric(gateway: ChaosGateway, name: string): Promise<number> {
  const { text } = await gateway.ask("/metrics");
  const samples = [...text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, "gm"))];
  return samples.reduce((sum, [, value]) => sum + Number(value), 0);
}
