// Connections that say nothing: how fast they are opened, and what each costs in memory.

import { setTimeout as sleep } from "node:timers/promises";
import { addServerOptions, runRounds, type Benchmark, type ServerFlags } from "./benchmark.ts";
import { openLoad } from "./load-client.ts";
import { readCpuSeconds, readFileLimit, readRssBytes } from "./process-stats.ts";
import { spreadOf, toRows, toTable, toVerdicts, type Figure, type Measured } from "./report.ts";
import type { Server, ServerName } from "./servers.ts";

interface IdleRound extends Measured {
  readonly server: ServerName;
  readonly connections: number;
  readonly connectSeconds: number;
  readonly connectCpuSeconds: number;
  readonly loadCpuSeconds: number;
  /** Of all processes of the server: before the first connection, and when all have been open for a while. */
  readonly rssBeforeBytes: number;
  readonly rssAfterBytes: number;
  readonly idleSeconds: number;
  readonly idleCpuSeconds: number;
}

const servers: readonly ServerName[] = ["gateway", "aedes", "mosquitto"];
/** Beside its connections a process has files of its own. */
const otherFiles = 500;
/** No message is sent. */
const payloadBytes = 150;
const kilobytes = ({ rssBeforeBytes, rssAfterBytes, connections }: IdleRound): number =>
  (rssAfterBytes - rssBeforeBytes) / connections / 1000;

const figures: readonly Figure<IdleRound>[] = [
  { name: "RSS per connection, kB", digits: 2, pick: kilobytes },
  { name: "RSS before, MB", digits: 1, pick: (round) => round.rssBeforeBytes / 1e6, compared: false },
  { name: "RSS after, MB", digits: 1, pick: (round) => round.rssAfterBytes / 1e6, compared: false },
  { name: "connects/s", digits: 0, pick: (round) => round.connections / round.connectSeconds },
  { name: "connects per server-CPU-s", digits: 0, pick: (round) => round.connections / round.connectCpuSeconds },
  {
    name: "load generator when connecting, cores",
    digits: 2,
    pick: (round) => round.loadCpuSeconds / round.connectSeconds,
    compared: false,
  },
  {
    name: "server when idle, cores",
    digits: 3,
    pick: (round) => round.idleCpuSeconds / round.idleSeconds,
    compared: false,
  },
];

export const idle: Benchmark<ServerFlags> = {
  name: "idle",
  description: "connections that send nothing: memory of each, and how fast they are opened",
  packages: ["aedes", "mqtt-packet", "zod", "mosquitto"],
  addOptions(command) {
    const defaults = { connections: 10_000, seconds: 5, rounds: 3, servers };
    addServerOptions(command, defaults, "how long they are idle until the memory is read");
  },
  describe: ({ connections, rounds, seconds }) =>
    `${connections} connections, ${rounds} rounds, memory read after ${seconds} s without a message`,
  async run(flags, say, signal) {
    const limit = readFileLimit();
    if (flags.connections + otherFiles > limit) {
      throw new Error(`a process may have ${limit} files open, too few: raise it with ulimit -n`);
    }
    const rounds = await runRounds(
      flags,
      async (server, name, number) => {
        const round = { server: name, round: number, ...(await measure(server, flags, signal)) };
        const perSecond = (round.connections / round.connectSeconds).toFixed(0);
        say(`round ${number}  ${name.padEnd(15)} ${kilobytes(round).toFixed(2)} kB each, ${perSecond} connects/s`);
        return round;
      },
      signal,
    );
    const rows = toRows(rounds, figures);
    const goal = { bound: { atMost: 20 }, unit: " kB", digits: 1 };
    const measured = spreadOf(rounds, kilobytes, "gateway");
    const verdicts = toVerdicts([{ what: "gateway, RSS of an idle connection", measured, ...goal }]);
    return { data: { rows, rounds }, table: toTable(rows), verdicts };
  },
};

async function measure(
  { port, pids }: Server,
  { connections, seconds }: ServerFlags,
  signal: AbortSignal,
): Promise<Omit<IdleRound, "server" | "round">> {
  const [rssBeforeBytes, cpuBefore] = [readRssBytes(pids), readCpuSeconds(pids)];
  await using load = await openLoad({ port, connections, window: 1, payloadBytes }, signal);
  const [cpuConnected, connectedMs] = [readCpuSeconds(pids), performance.now()];
  await sleep(seconds * 1000, undefined, { signal });
  await load.check();
  return {
    connections,
    connectSeconds: load.connected.seconds,
    connectCpuSeconds: cpuConnected - cpuBefore,
    loadCpuSeconds: load.connected.loadCpuSeconds,
    rssBeforeBytes,
    rssAfterBytes: readRssBytes(pids),
    idleSeconds: (performance.now() - connectedMs) / 1000,
    idleCpuSeconds: readCpuSeconds(pids) - cpuConnected,
  };
}
