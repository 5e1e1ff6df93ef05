// Child processes of the benchmarks: found to be ready, ended in order, and what they said kept for the error message.

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const READY_MS = 20_000;
const STOP_MS = 15_000;
const ASK_EACH_MS = 25;
const saidCharacters = 4000;

/** SIGTERM, and SIGKILL to a child that does not listen. */
export async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
  const exit = once(child, "exit");
  child.kill("SIGTERM");
  await exit;
  clearTimeout(timer);
}

export function pidOf({ pid }: ChildProcess): number {
  if (pid === undefined) throw new Error("the child process did not start");
  return pid;
}

/** The last that it wrote to its standard output and error, which must be pipes. */
export function listenTo(child: ChildProcess): () => string {
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk) => {
      said = (said + String(chunk)).slice(-saidCharacters);
    });
  }
  return () => said;
}

/** Asks until the answer is yes. Rejects, and ends the child, when it ends by itself or takes too long. */
export async function untilReady(
  child: ChildProcess,
  name: string,
  isReady: () => Promise<boolean>,
  said: () => string,
): Promise<void> {
  const deadlineMs = performance.now() + READY_MS;
  while (!(await isReady())) {
    if (child.exitCode !== null || child.signalCode !== null || performance.now() > deadlineMs) {
      await stop(child);
      throw new Error(`${name} did not become ready; it said:\n${said()}`);
    }
    await sleep(ASK_EACH_MS);
  }
}

/** True when something listens there. */
export function accepts(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ host: "127.0.0.1", port });
  socket.once("connect", () => resolve(true));
  socket.once("error", () => resolve(false));
  return promise.finally(() => socket.destroy());
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
