// The servers that are compared: each a child process of its own, started fresh for every measurement.

import { spawn, fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";

export interface Server extends AsyncDisposable {
  readonly pid: number;
  /** MQTT on 127.0.0.1. */
  readonly port: number;
}

export type ServerName = "gateway" | "aedes";

/** Resolves when the server accepts connections; throws with what it printed when it does not. */
export const openServer: Readonly<Record<ServerName, (dataDir: string) => Promise<Server>>> = {
  gateway: openGateway,
  aedes: openAedes,
};

const READY_MS = 20_000;
const STOP_MS = 15_000;

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

async function openAedes(): Promise<Server> {
  const child = fork(path("bare-aedes.ts"));
  const [{ port }] = (await once(child, "message")) as [{ readonly port: number }];
  return { pid: pidOf(child), port, [Symbol.asyncDispose]: () => stop(child) };
}

/** The gateway with bench/gateway-config.ts and an empty data directory below `dataDir`, which it leaves behind. */
async function openGateway(dataDir: string): Promise<Server> {
  await mkdir(dataDir, { recursive: true });
  const ownDir = await mkdtemp(`${dataDir}/bench-`);
  const [port, httpPort] = await Promise.all([freePort(), freePort()]);
  const child = spawn(process.execPath, [path("../bin/sluice.js"), "start", path("gateway-config.ts")], {
    env: {
      ...process.env,
      SLUICE_MQTT_PORT: String(port),
      SLUICE_HTTP_PORT: String(httpPort),
      SLUICE_DATA_DIR: ownDir,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      said = (said + String(chunk)).slice(-4000);
    });
  }
  const close = async (): Promise<void> => {
    await stop(child);
    await rm(ownDir, { recursive: true });
  };
  const deadlineMs = performance.now() + READY_MS;
  while (!(await isReady(httpPort))) {
    if (child.exitCode !== null || performance.now() > deadlineMs) {
      await close();
      throw new Error(`the gateway did not become ready; it said:\n${said}`);
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
  }
  return { pid: pidOf(child), port, [Symbol.asyncDispose]: close };
}

async function isReady(httpPort: number): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${httpPort}/readyz`)).status === 200;
  } catch {
    return false;
  }
}

/** SIGTERM, and SIGKILL to a child that does not listen. */
async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
  const exit = once(child, "exit");
  child.kill("SIGTERM");
  await exit;
  clearTimeout(timer);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

function pidOf({ pid }: ChildProcess): number {
  if (pid === undefined) throw new Error("the child process did not start");
  return pid;
}
