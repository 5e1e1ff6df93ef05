// What every benchmark is, and what those have in common that put a load on servers.

import { fileURLToPath } from "node:url";
import { type Command, InvalidArgumentError } from "commander";
import { openServer, type Server, type ServerName } from "./servers.ts";

export interface Benchmark<Flags = unknown> {
  /** Its argument on the command line, its file in bench/results and its section in docs/benchmarks.md. */
  readonly name: string;
  readonly description: string;
  /** Whose versions are part of what is measured. */
  readonly packages: readonly string[];
  addOptions(command: Command): void;
  /** Above the figures: what was run. */
  describe(flags: Flags): string;
  /** Says a line for each measurement. Throws when a server or the load generator fails, and when aborted. */
  run(flags: Flags, say: (line: string) => void, signal: AbortSignal): Promise<Report>;
}

export interface Report {
  /** For bench/results. */
  readonly data: object;
  /** Markdown. */
  readonly table: string;
  /** What the goals say of it; what else has to be known to read the figures. */
  readonly verdicts: readonly string[];
}

/** What every benchmark takes. */
export interface CommonFlags {
  readonly rounds: number;
  readonly dataDir: string;
}

/** Those that need servers with connections. */
export interface ServerFlags extends CommonFlags {
  readonly connections: number;
  readonly seconds: number;
  readonly servers: readonly ServerName[];
  readonly profile?: string;
}

export interface LoadFlags extends ServerFlags {
  readonly window: number;
  readonly payload: number;
  /** Seconds. */
  readonly warmup: number;
}

export function addCommonOptions(command: Command, rounds: number): void {
  command
    .option("--rounds <n>", "measurements of each server or store", integer(1, 100), rounds)
    .option(
      "--data-dir <dir>",
      "where journals and databases go; its disk is part of what is measured",
      fileURLToPath(new URL("../data", import.meta.url)),
    );
}

/** `defaults.servers` are all that there are for this benchmark. */
export function addServerOptions(
  command: Command,
  defaults: Pick<ServerFlags, "connections" | "seconds" | "servers" | "rounds">,
  seconds: string,
): void {
  const parseServers = (text: string): readonly ServerName[] => {
    const names = text.split(",");
    const found = defaults.servers.filter((name) => names.includes(name));
    if (found.length === names.length) return found;
    throw new InvalidArgumentError(`expected names out of ${defaults.servers.join(",")}.`);
  };
  command
    .option("--connections <n>", "MQTT connections", integer(1, 15_000), defaults.connections)
    .option("--seconds <s>", seconds, integer(1, 600), defaults.seconds)
    .option("--servers <names>", "which to measure", parseServers, defaults.servers)
    .option("--profile <dir>", "write CPU profiles of the gateway there; such figures are not kept");
  addCommonOptions(command, defaults.rounds);
}

export function addLoadOptions(command: Command, defaults: Omit<LoadFlags, "dataDir" | "profile" | "payload">): void {
  addServerOptions(command, defaults, "the measured window");
  command
    .option("--window <n>", "unacknowledged messages per connection", integer(1, 1000), defaults.window)
    .option("--payload <bytes>", "size of a message", integer(150, 10_000), 150)
    .option("--warmup <s>", "seconds of load before the measured window", integer(0, 60), defaults.warmup);
}

/** The servers take turns (A B C A B C …), each time as a new process, so that what else the machine does hits all. */
export async function runRounds<Round>(
  { rounds, servers, dataDir, profile }: ServerFlags,
  measure: (server: Server, name: ServerName, round: number) => Promise<Round>,
  signal: AbortSignal,
): Promise<readonly Round[]> {
  const measured: Round[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    for (const name of servers) {
      signal.throwIfAborted();
      await using server = await openServer[name]({ dataDir, profileDir: profile });
      measured.push(await measure(server, name, round));
    }
  }
  return measured;
}

export const integer =
  (low: number, high: number) =>
  (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= low && value <= high) return value;
    throw new InvalidArgumentError(`expected a whole number from ${low} to ${high}.`);
  };
