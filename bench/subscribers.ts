// Those who watch: `mosquitto_sub -t '#'`, one that reads and one that has stopped.

import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { pidOf, stop } from "./child.ts";

export interface Subscribers extends AsyncDisposable {
  /** `mosquitto_sub` processes, both. */
  readonly pids: readonly number[];
  /** Messages that the live one has got. */
  received(): number;
}

/** Retained, so that whoever has subscribed gets it. No stream's topic. */
const readyTopic = "bench/ready";
/** What is written for each message: this and a line feed. */
const mark = "x";
const READY_MS = 10_000;

/** Resolves when both have subscribed and one of them is stopped. */
export async function openSubscribers(port: number): Promise<Subscribers> {
  const retained = spawn("mosquitto_pub", ["-p", String(port), "-t", readyTopic, "-r", "-q", "1", "-m", "ready"]);
  const [code] = (await once(retained, "exit")) as [number | null];
  if (code !== 0) throw new Error(`mosquitto_pub could not publish to ${readyTopic}`);
  await using stack = new AsyncDisposableStack();
  const [live, stopped] = [stack.use(openSubscriber(port)), stack.use(openSubscriber(port))];
  await Promise.all([live.ready, stopped.ready]);
  process.kill(stopped.pid, "SIGSTOP");
  const opened = stack.move();
  return {
    pids: [live.pid, stopped.pid],
    received: () => live.received() - 1,
    async [Symbol.asyncDispose]() {
      process.kill(stopped.pid, "SIGCONT");
      await opened.disposeAsync();
    },
  };
}

interface Subscriber extends AsyncDisposable {
  readonly pid: number;
  readonly ready: Promise<void>;
  received(): number;
}

function openSubscriber(port: number): Subscriber {
  const child = spawn("mosquitto_sub", ["-p", String(port), "-t", "#", "-F", mark], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let bytes = 0;
  child.stdout.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
  });
  return {
    pid: pidOf(child),
    ready: firstByte(child.stdout),
    received: () => Math.floor(bytes / `${mark}\n`.length),
    [Symbol.asyncDispose]: () => stop(child),
  };
}

async function firstByte(output: Readable): Promise<void> {
  await once(output, "data", { signal: AbortSignal.timeout(READY_MS) });
}
