// Ingest at QoS 1: how many messages a second, and how many for a second of the server's CPU, from socket to PUBACK.
// The servers take turns (A B A B …) within one run, so that what else the machine does hits both.

import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { LoadMessage, LoadOptions, LoadResult } from "./load.ts";
import { openServer, type ServerName } from "./servers.ts";

export interface IngestOptions extends Omit<LoadOptions, "port" | "serverPid"> {
  readonly servers: readonly ServerName[];
  readonly rounds: number;
  /** Below it each gateway gets a folder of its own for its journal; removed afterwards. */
  readonly dataDir: string;
}

/** One measurement. */
export interface Round extends LoadResult {
  readonly server: ServerName;
  readonly round: number;
  readonly messagesPerSecond: number;
  readonly messagesPerCpuSecond: number;
}

export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** Calls `onRound` after each measurement. Throws when a server or a PUBACK fails, and when aborted. */
export async function runIngest(
  options: IngestOptions,
  onRound: (round: Round) => void,
  signal: AbortSignal,
): Promise<readonly Round[]> {
  const rounds: Round[] = [];
  for (let number = 1; number <= options.rounds; number += 1) {
    for (const name of options.servers) {
      await using server = await openServer[name](options.dataDir);
      signal.throwIfAborted();
      const { servers: _servers, rounds: _rounds, dataDir: _dataDir, ...load } = options;
      const result = await runLoad({ ...load, port: server.port, serverPid: server.pid }, signal);
      const round = {
        server: name,
        round: number,
        messagesPerSecond: Math.round(result.messages / result.seconds),
        messagesPerCpuSecond: Math.round(result.messages / result.serverCpuSeconds),
        ...result,
      };
      rounds.push(round);
      onRound(round);
    }
  }
  return rounds;
}

export function toSpread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (index: number): number => sorted[index] ?? Number.NaN;
  const middle = (sorted.length - 1) / 2;
  return { min: at(0), median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2, max: at(sorted.length - 1) };
}

/** gateway / aedes, round by round: neighbours in time, so the spread says how far to trust it. */
export function toRatio(rounds: readonly Round[], pick: (round: Round) => number): Spread | undefined {
  const of = (server: ServerName): number[] => rounds.filter((round) => round.server === server).map(pick);
  const aedes = of("aedes");
  const ratios = of("gateway").flatMap((value, index) => {
    const other = aedes[index];
    return other === undefined ? [] : value / other;
  });
  return ratios.length === 0 ? undefined : toSpread(ratios);
}

async function runLoad(load: LoadOptions, signal: AbortSignal): Promise<LoadResult> {
  const child = fork(fileURLToPath(new URL("load.ts", import.meta.url)), { signal });
  const exit = once(child, "exit");
  child.send(load);
  const answer = await Promise.race([
    once(child, "message").then(([message]) => message as LoadMessage),
    exit.then((): LoadMessage => ({ kind: "failed", reason: "the load generator ended early" })),
  ]);
  await exit;
  if (answer.kind === "failed") throw new Error(answer.reason);
  return answer.result;
}
