// The gateway of a chaos run: killed and started again on the same port, with the figures of all its lives.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type GatewayProcess, launchGateway, type LaunchedGateway } from "../gateway-process.ts";
import { findPort } from "../servers/server.ts";
import { PromiseBroken } from "./promise-broken.ts";

/** What the gateway says of a sink, since it started. */
export interface SinkFigures {
  readonly name: string;
  readonly kind: string;
  readonly state: string;
  readonly position: number;
  readonly lagRecords: number;
  readonly delivered: number;
  readonly parked: number;
  readonly passed: number;
  readonly expired: number;
  readonly lastError?: string;
}

/** Of all lives together. */
export interface Losses {
  readonly parked: number;
  readonly expired: number;
}

export interface ChaosGateway extends AsyncDisposable {
  readonly mqttPort: number;
  readonly lives: number;
  /** The process that runs now. */
  readonly now: GatewayProcess;
  /** By sink, up to the last look. */
  readonly losses: ReadonlyMap<string, Losses>;
  /** Records of this life that the sink's cursor has passed, up to the last look, and that are counted as nothing. */
  unexplained(sink: string): number;
  /** Rejects when it ends without being told to. */
  readonly endedByItself: Promise<never>;
  /** SIGKILL; the next life begins after a while. Rejects when it does not begin. */
  kill(downMs: number, signal: AbortSignal): Promise<void>;
  /** GET of its HTTP port. Rejects when it does not answer. */
  ask(path: string): Promise<{ readonly status: number; readonly text: string }>;
  /** All that read the journal. Counts what sinks have lost. */
  look(): Promise<readonly SinkFigures[]>;
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
});
`;

export async function openChaosGateway({ dataDir, logDir, calls }: ChaosGatewayOptions): Promise<ChaosGateway> {
  const options = { dataDir, config: toConfig(calls), mqttPort: await findPort(), env: { SLUICE_LOG_LEVEL: "info" } };
  const ended = Promise.withResolvers<never>();
  ended.promise.catch(() => {}); // told to whoever awaits it
  const losses = new Map<string, Losses>();
  let launched: LaunchedGateway | undefined;
  let life: GatewayProcess | undefined;
  let before: ReadonlyMap<string, Losses> = new Map();
  /** By sink: its position less what is counted, at the first and at the last look of this life. */
  const uncounted = new Map<string, { readonly first: number; readonly last: number }>();
  let lives = 0;
  let isTold = false;

  async function start(): Promise<void> {
    isTold = false;
    launched = await launchGateway(options);
    const running = await launched.running.catch((cause: unknown) => {
      throw new PromiseBroken(`the gateway does not start: ${String(cause)}`);
    });
    life = running;
    lives += 1;
    uncounted.clear();
    await look();
    void running.ended.then((code) => {
      if (!isTold) ended.reject(new PromiseBroken(`the gateway ended by itself with ${code}`));
    });
  }

  async function end(signal: NodeJS.Signals): Promise<number | string | undefined> {
    isTold = true;
    const code = await launched?.end(signal);
    const lines = life?.log.map((line) => `${JSON.stringify(line)}\n`) ?? [];
    await writeFile(join(logDir, `gateway-${lives}.log`), lines.join(""));
    before = new Map(losses);
    return code;
  }

  function now(): GatewayProcess {
    if (life === undefined) throw new TypeError("it has been started");
    return life;
  }

  const ask: ChaosGateway["ask"] = (path) =>
    now()
      .fetch(path)
      .catch((cause: unknown) => {
        throw new PromiseBroken(`the gateway does not answer ${path}: ${String(cause)}`);
      });

  async function look(): Promise<readonly SinkFigures[]> {
    const { consumers } = JSON.parse((await ask("/")).text) as { readonly consumers: readonly SinkFigures[] };
    const sinks = consumers.filter(({ kind }) => kind === "sink");
    for (const { name, position, delivered, parked, passed, expired } of sinks) {
      const earlier = before.get(name) ?? { parked: 0, expired: 0 };
      losses.set(name, { parked: earlier.parked + parked, expired: earlier.expired + expired });
      const rest = position - delivered - parked - passed - expired;
      uncounted.set(name, { first: uncounted.get(name)?.first ?? rest, last: rest });
    }
    return consumers;
  }

  const gateway: ChaosGateway = {
    mqttPort: options.mqttPort,
    get lives() {
      return lives;
    },
    get now() {
      return now();
    },
    losses,
    unexplained(sink) {
      const { first, last } = uncounted.get(sink) ?? { first: 0, last: 0 };
      return Math.abs(last - first);
    },
    endedByItself: ended.promise,
    async kill(downMs, signal) {
      await look();
      await end("SIGKILL");
      await delay(downMs, undefined, { signal });
      await start();
    },
    ask,
    look,
    async stop() {
      await look();
      const code = await end("SIGTERM");
      if (code !== 0) throw new PromiseBroken(`the gateway was told to stop, and ended with ${code}`);
    },
    async [Symbol.asyncDispose]() {
      await end("SIGKILL");
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
