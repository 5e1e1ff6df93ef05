// The servers that are compared: each in processes of its own, started fresh for every measurement, below its own folder.

import { fork, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { accepts, freePort, listenTo, pidOf, stop, untilReady } from "./child.ts";

export interface ServerOptions {
  /** The server's folder is made below it, and removed when the server is disposed. */
  readonly dataDir: string;
  /** Where the gateway writes a CPU profile of each of its threads when it ends. */
  readonly profileDir?: string | undefined;
}

export interface Server extends AsyncDisposable {
  /** MQTT on 127.0.0.1. */
  readonly port: number;
  /** All processes that are the server: their CPU time and memory are its. */
  readonly pids: readonly number[];
  /** Where its rows are, if it has a database. */
  readonly database?: Database;
  /** The values of a metric, added up over its labels; only of the gateway. */
  readMetric?(name: string): Promise<number>;
}

export interface Database {
  readonly file: string;
  /** SQL with one number: grows with each row and is cheap to ask. */
  readonly progress: string;
  readonly count: string;
}

export type ServerName = "gateway" | "gateway+sqlite" | "aedes" | "mosquitto" | "home-made" | "node";

/** Resolves when the server accepts connections; rejects with what it printed when it does not. */
export const openServer: Readonly<Record<ServerName, (options: ServerOptions) => Promise<Server>>> = {
  gateway: (options) => openGateway(options, []),
  "gateway+sqlite": (options) => openGateway(options, ["sqlite"]),
  aedes: () => openForked("bare-aedes.ts"),
  node: () => openForked("bare-node.ts"),
  mosquitto: (options) => openMosquitto(options),
  "home-made": openHomeMade,
};

/** Mosquitto at its best: nothing logged, nothing stored, no limit on what it queues, answers not held back by Nagle. */
const mosquittoSettings = [
  "allow_anonymous true",
  "persistence false",
  "max_inflight_messages 0",
  "max_queued_messages 0",
  "set_tcp_nodelay true",
  "log_dest none",
  "connection_messages false",
  "sys_interval 0",
];

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

async function makeDir(dataDir: string): Promise<string> {
  await mkdir(dataDir, { recursive: true });
  return mkdtemp(join(dataDir, "bench-"));
}

async function openForked(file: string): Promise<Server> {
  const child = fork(path(file));
  const [{ port }] = (await once(child, "message")) as [{ readonly port: number }];
  return { pids: [pidOf(child)], port, [Symbol.asyncDispose]: () => stop(child) };
}

/** The gateway with bench/gateway-config.ts, which makes the sinks that BENCH_SINKS names. */
async function openGateway({ dataDir, profileDir }: ServerOptions, sinks: readonly "sqlite"[]): Promise<Server> {
  const ownDir = await makeDir(dataDir);
  const [port, httpPort] = await Promise.all([freePort(), freePort()]);
  const profile = profileDir === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profileDir}`];
  const child = spawn(process.execPath, [...profile, path("../bin/sluice.js"), "start", path("gateway-config.ts")], {
    env: {
      ...process.env,
      BENCH_SINKS: sinks.join(","),
      SLUICE_MQTT_PORT: String(port),
      SLUICE_HTTP_PORT: String(httpPort),
      SLUICE_DATA_DIR: ownDir,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const close = async (): Promise<void> => {
    await stop(child);
    await rm(ownDir, { recursive: true, maxRetries: 5 });
  };
  try {
    await untilReady(child, "the gateway", () => isReady(httpPort), listenTo(child));
  } catch (error) {
    await close();
    throw error;
  }
  const database: Database = {
    file: join(ownDir, "telemetry.db"),
    progress: `SELECT "offset" FROM sluice_cursor`,
    count: "SELECT count(*) FROM readings",
  };
  return {
    port,
    pids: [pidOf(child)],
    ...(sinks.includes("sqlite") && { database }),
    readMetric: (name) => readMetric(httpPort, name),
    [Symbol.asyncDispose]: close,
  };
}

async function isReady(httpPort: number): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${httpPort}/readyz`)).status === 200;
  } catch {
    return false;
  }
}

async function readMetric(httpPort: number, name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
  const values = text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, "gm"));
  return values.reduce((total, [, value]) => total + Number(value), 0);
}

async function openMosquitto({ dataDir }: ServerOptions, settings = mosquittoSettings): Promise<Server> {
  const ownDir = await makeDir(dataDir);
  const port = await freePort();
  const file = join(ownDir, "mosquitto.conf");
  await writeFile(file, `${[`listener ${port} 127.0.0.1`, ...settings].join("\n")}\n`);
  const child = spawn("mosquitto", ["-c", file], { stdio: ["ignore", "pipe", "pipe"] });
  const said = listenTo(child);
  const { promise: missing, reject } = Promise.withResolvers<never>();
  child.once("error", (cause) => reject(new Error("mosquitto did not start: is it installed?", { cause })));
  const close = async (): Promise<void> => {
    if (child.pid !== undefined) await stop(child);
    await rm(ownDir, { recursive: true, maxRetries: 5 });
  };
  try {
    await Promise.race([untilReady(child, "mosquitto", () => accepts(port), said), missing]);
  } catch (error) {
    await close();
    throw error;
  }
  return { port, pids: [pidOf(child)], [Symbol.asyncDispose]: close };
}

/** What one builds without a gateway: Mosquitto, and a process that subscribes and writes: bench/home-made.ts. */
async function openHomeMade(options: ServerOptions): Promise<Server> {
  await using stack = new AsyncDisposableStack();
  const mosquitto = stack.use(await openMosquitto(options));
  const ownDir = await makeDir(options.dataDir);
  stack.defer(() => rm(ownDir, { recursive: true, maxRetries: 5 }));
  const file = join(ownDir, "telemetry.db");
  const child = fork(path("home-made.ts"), [String(mosquitto.port), file]);
  stack.defer(() => stop(child));
  const ended = once(child, "exit").then(() => {
    throw new Error("the home-made process ended before it had subscribed");
  });
  await Promise.race([once(child, "message"), ended]);
  const opened = stack.move();
  return {
    port: mosquitto.port,
    pids: [...mosquitto.pids, pidOf(child)],
    database: {
      file,
      progress: "SELECT coalesce(max(id), 0) FROM readings",
      count: "SELECT count(*) FROM readings",
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}
