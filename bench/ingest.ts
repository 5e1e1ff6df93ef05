// Ingest at QoS 1, from the socket to the PUBACK: how many messages a second and for a second of the server's CPU, and how
// long a PUBACK takes at a part of the highest rate. `ingest` has many messages in each read, `sparse` has one.

import { addLoadOptions, integer, runRounds, type Benchmark, type LoadFlags } from "./benchmark.ts";
import { DRAIN_MS, openLoad } from "./load-client.ts";
import {
  messagesPerCpuSecond,
  messagesPerSecond,
  saturatedFigures,
  toCautions,
  toLine,
  type Saturated,
} from "./load-figures.ts";
import type { LoadResult } from "./load-protocol.ts";
import { spreadOf, toRatio, toRows, toTable, toVerdicts, type Figure, type Goal, type Spread } from "./report.ts";
import type { Server, ServerName } from "./servers.ts";

interface IngestRound extends Saturated {
  readonly server: ServerName;
  readonly paced: LoadResult;
}

interface IngestFlags extends LoadFlags {
  /** Percent of the rate that the server took when it was saturated. */
  readonly paced: number;
  /** Messages that a connection sends at once when paced; by default its window. */
  readonly burst?: number;
}

interface IngestDefaults {
  readonly name: string;
  readonly description: string;
  readonly connections: number;
  readonly window: number;
  readonly servers: readonly ServerName[];
  readonly toGoals: (rounds: readonly IngestRound[], flags: IngestFlags) => readonly Goal[];
}

const goalPercent = 60;

const figures: readonly Figure<IngestRound>[] = [
  ...saturatedFigures,
  { name: "PUBACK p50 ms, paced", digits: 1, pick: (round) => round.paced.pubackMs.p50, compared: false },
  { name: "PUBACK p99 ms, paced", digits: 1, pick: (round) => round.paced.pubackMs.p99, compared: false },
  { name: "of it the generator, p99 ms", digits: 1, pick: (round) => round.paced.lateMs?.p99, compared: false },
  { name: "messages per server-CPU-s, paced", digits: 0, pick: (round) => messagesPerCpuSecond(round.paced) },
];

export const ingest = createIngest({
  name: "ingest",
  description: "QoS 1 ingest of the gateway against bare Aedes and bare Mosquitto",
  connections: 1000,
  window: 16,
  servers: ["gateway", "aedes", "mosquitto"],
  toGoals: (rounds, { paced, burst, window }) => [
    ...toIngestGoals(rounds),
    {
      what: `gateway, PUBACK p99 at ${goalPercent} % of the rate`,
      measured:
        paced === goalPercent && (burst ?? window) === window
          ? spreadOf(rounds, (round) => round.paced.pubackMs.p99, "gateway")
          : undefined,
      bound: { atMost: 10 },
      unit: " ms",
      digits: 1,
    },
  ],
});

export const sparse = createIngest({
  name: "sparse",
  description: "the same with one message in flight on each of many connections: one message per read",
  connections: 5000,
  window: 1,
  servers: ["gateway", "aedes", "mosquitto", "node"],
  toGoals: (rounds) => [{ ...timesPerCpuSecond(rounds, "aedes"), bound: { atLeast: 1.5 } }],
});

/** Also those of `peers`. */
export function toIngestGoals(rounds: readonly Saturated[]): readonly Goal[] {
  return [
    { ...timesPerCpuSecond(rounds, "aedes"), bound: { atLeast: 2.2 } },
    { ...timesPerCpuSecond(rounds, "mosquitto"), bound: { atLeast: 1.8 } },
  ];
}

function timesPerCpuSecond(rounds: readonly Saturated[], other: ServerName): Omit<Goal, "bound"> {
  const measured: Spread | undefined = toRatio(
    rounds,
    ({ saturated }) => messagesPerCpuSecond(saturated),
    "gateway",
    other,
  );
  return { what: `messages per server-CPU-second, gateway / ${other}`, measured, unit: " ×", digits: 2 };
}

function createIngest({
  name,
  description,
  connections,
  window,
  servers,
  toGoals,
}: IngestDefaults): Benchmark<IngestFlags> {
  return {
    name,
    description,
    packages: ["aedes", "mqtt-packet", "zod", "mosquitto"],
    addOptions(command) {
      addLoadOptions(command, { connections, window, warmup: 2, seconds: 4, rounds: 3, servers });
      command
        .option("--paced <percent>", "of the saturated rate that is sent when paced", integer(1, 100), goalPercent)
        .option(
          "--burst <n>",
          "messages that a connection sends at once when paced (default: its window)",
          integer(1, 1000),
        );
    },
    describe: (flags) =>
      `QoS 1, ${flags.connections} connections, window ${flags.window}, ${flags.payload} bytes of JSON; ` +
      `${flags.rounds} rounds of ${flags.seconds} s saturated and ${flags.seconds} s paced: ${flags.paced} % of that rate ` +
      `in bursts of ${flags.burst ?? flags.window}`,
    async run(flags, say, signal) {
      const rounds = await runRounds(
        flags,
        async (server, serverName, number) => {
          const round = { server: serverName, round: number, ...(await measure(server, flags, signal)) };
          const { p50, p99 } = round.paced.pubackMs;
          say(`${toLine(round)}, paced ${p50.toFixed(1)} and ${p99.toFixed(1)} ms`);
          return round;
        },
        signal,
      );
      const rows = toRows(rounds, figures);
      const verdicts = [...toVerdicts(toGoals(rounds, flags)), ...toCautions(rounds)];
      return { data: { rows, rounds }, table: toTable(rows), verdicts };
    },
  };
}

async function measure(
  server: Server,
  { connections, window, payload, warmup, seconds, paced, burst = window }: IngestFlags,
  signal: AbortSignal,
): Promise<Pick<IngestRound, "saturated" | "paced">> {
  await using load = await openLoad({ port: server.port, connections, window, payloadBytes: payload }, signal);
  const phase = { warmupMs: warmup * 1000, measureMs: seconds * 1000, pids: server.pids, drainMs: DRAIN_MS };
  const saturated = await load.saturate(phase);
  const perSecond = (paced / 100) * messagesPerSecond(saturated);
  return { saturated, paced: await load.pace({ ...phase, warmupMs: 1000, perSecond, burst }) };
}
