// The benchmark's side of the load generator.

import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type {
  ConnectRequest,
  ConnectResult,
  LoadAnswer,
  LoadRequest,
  LoadResult,
  PaceRequest,
  SaturateRequest,
} from "./load-protocol.ts";

/** Long enough for the longest queue that a benchmark makes. */
export const DRAIN_MS = 15_000;

/** A generator with its connections. All but `connected` take one call at a time and throw what the generator found. */
export interface Load extends AsyncDisposable {
  readonly pid: number;
  readonly connected: ConnectResult;
  saturate(request: Omit<SaturateRequest, "kind">): Promise<LoadResult>;
  pace(request: Omit<PaceRequest, "kind">): Promise<LoadResult>;
  /** Throws when a connection is no longer open. */
  check(): Promise<void>;
}

/** Resolves when all connections are open. Disposing closes them. */
export async function openLoad(request: Omit<ConnectRequest, "kind">, signal: AbortSignal): Promise<Load> {
  const child = fork(fileURLToPath(new URL("load.ts", import.meta.url)));
  const onAbort = (): void => void child.kill("SIGKILL");
  signal.addEventListener("abort", onAbort);
  const exit = once(child, "exit");
  const ended = exit.then((): LoadAnswer => ({ kind: "failed", reason: "the load generator ended early" }));
  const close = async (): Promise<void> => {
    signal.removeEventListener("abort", onAbort);
    if (child.connected) child.disconnect();
    await exit;
  };
  const ask = async (question: LoadRequest): Promise<Exclude<LoadAnswer, { kind: "failed" }>> => {
    signal.throwIfAborted();
    const message = once(child, "message").then(([said]) => said as LoadAnswer);
    child.send(question);
    const answer = await Promise.race([message, ended]);
    signal.throwIfAborted();
    if (answer.kind === "failed") throw new Error(answer.reason);
    return answer;
  };
  const measure = async (question: SaturateRequest | PaceRequest): Promise<LoadResult> => {
    const answer = await ask(question);
    if (answer.kind !== "measured") throw new Error("the load generator answered another request");
    return answer.result;
  };
  try {
    const answer = await ask({ kind: "connect", ...request });
    if (answer.kind !== "connected" || child.pid === undefined) throw new Error("the load generator did not connect");
    return {
      pid: child.pid,
      connected: answer.result,
      saturate: (question) => measure({ kind: "saturate", ...question }),
      pace: (question) => measure({ kind: "pace", ...question }),
      async check() {
        await ask({ kind: "check" });
      },
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
