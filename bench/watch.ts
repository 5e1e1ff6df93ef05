// What watching costs: ingest with one `mosquitto_sub -t '#'` that reads and one that has stopped, against the same
// server without them.

import { setTimeout as sleep } from "node:timers/promises";
import { addLoadOptions, runRounds, type Benchmark, type LoadFlags } from "./benchmark.ts";
import { openLoad } from "./load-client.ts";
import {
  messagesPerCpuSecond,
  messagesPerSecond,
  saturatedFigures,
  toCautions,
  toLine,
  type Saturated,
} from "./load-figures.ts";
import { readCpuSeconds } from "./process-stats.ts";
import { toRatio, toRows, toTable, toVerdicts, type Comparison, type Figure, type Goal } from "./report.ts";
import type { Server, ServerName } from "./servers.ts";
import { openSubscribers } from "./subscribers.ts";

interface WatchRound extends Saturated {
  /** The rest only with subscribers, over the whole load: what the live one got of each message, what was dropped for both. */
  readonly receivedShare?: number;
  readonly received?: number;
  readonly dropped?: number;
  readonly subscriberCpuSeconds?: number;
}

/** Each watched server against itself. */
const comparison: Comparison = {
  title: "with / without",
  of: (server, measured) => {
    const alone = measured.find((name) => server === watched(name));
    return alone === undefined ? undefined : [server, alone];
  },
};

const servers: readonly ServerName[] = ["gateway", "aedes"];
/** A server that has not acknowledged everything by then has stalled. */
const STALL_MS = 5_000;
const STILL_MS = 250;
const watched = (name: string): string => `${name} watched`;

const figures: readonly Figure<WatchRound>[] = [
  ...saturatedFigures,
  {
    name: "never acknowledged",
    digits: 0,
    pick: ({ saturated }) => saturated.sent - saturated.acknowledged,
    compared: false,
  },
  { name: "subscribers, CPU s", digits: 2, pick: (round) => round.subscriberCpuSeconds, compared: false },
  { name: "of 100 messages the live one got", digits: 1, pick: percent, compared: false },
  { name: "dropped for both, and counted", digits: 0, pick: (round) => round.dropped, compared: false },
];

export const watch: Benchmark<LoadFlags> = {
  name: "watch",
  description: "ingest with one live and one stopped mosquitto_sub -t '#' against ingest without them",
  packages: ["aedes", "mqtt-packet", "zod", "mosquitto"],
  addOptions(command) {
    addLoadOptions(command, { connections: 1000, window: 16, warmup: 2, seconds: 5, rounds: 3, servers });
  },
  describe: (flags) =>
    `QoS 1, ${flags.connections} connections, window ${flags.window}, ${flags.payload} bytes of JSON; ` +
    `${flags.rounds} rounds of ${flags.seconds} s, each without and with the subscribers`,
  async run(flags, say, signal) {
    const twice = { ...flags, servers: flags.servers.flatMap((name) => [name, name]) };
    const seen = new Set<string>();
    const rounds = await runRounds(
      twice,
      async (server, name, number) => {
        const again = seen.has(`${name} ${number}`);
        seen.add(`${name} ${number}`);
        const measured = await (again ? measureWatched : measureAlone)(server, flags, signal);
        const round: WatchRound = { server: again ? watched(name) : name, round: number, ...measured };
        const share = percent(round);
        say(`${toLine(round)}${share === undefined ? "" : `, the live one got ${share.toFixed(1)} %`}`);
        return round;
      },
      signal,
    );
    const alone = rounds.filter(({ receivedShare }) => receivedShare === undefined);
    const verdicts = [...toVerdicts(toGoals(rounds)), ...toCautions(alone)];
    const rows = toRows(rounds, figures, comparison);
    return { data: { rows, rounds }, table: toTable(rows, comparison), verdicts };
  },
};

type Measured = Omit<WatchRound, "server" | "round">;

async function measureAlone(server: Server, flags: LoadFlags, signal: AbortSignal): Promise<Measured> {
  const { connections, window, payload, warmup, seconds } = flags;
  await using load = await openLoad({ port: server.port, connections, window, payloadBytes: payload }, signal);
  const phase = { warmupMs: warmup * 1000, measureMs: seconds * 1000, pids: server.pids };
  return { saturated: await load.saturate({ ...phase, drainMs: STALL_MS, mayStall: true }) };
}

async function measureWatched(server: Server, flags: LoadFlags, signal: AbortSignal): Promise<Measured> {
  await using subscribers = await openSubscribers(server.port);
  const { saturated } = await measureAlone(server, flags, signal);
  const received = await untilStill(() => subscribers.received(), signal);
  const subscriberCpuSeconds = readCpuSeconds(subscribers.pids);
  const dropped = await server.readMetric?.("broker_publish_messages_dropped");
  return {
    saturated,
    received,
    receivedShare: received / saturated.acknowledged,
    subscriberCpuSeconds,
    ...(dropped !== undefined && { dropped }),
  };
}

/** What the live one has got when it gets no more. */
async function untilStill(received: () => number, signal: AbortSignal): Promise<number> {
  const deadlineMs = performance.now() + STALL_MS;
  let last = -1;
  while (received() !== last && performance.now() < deadlineMs) {
    last = received();
    await sleep(STILL_MS, undefined, { signal });
  }
  return received();
}

function percent({ receivedShare }: WatchRound): number | undefined {
  return receivedShare === undefined ? undefined : receivedShare * 100;
}

function toGoals(rounds: readonly WatchRound[]): readonly Goal[] {
  const goal = { bound: { atLeast: 0.8 }, unit: " ×", digits: 2 };
  const what = "with / without subscribers, gateway, messages";
  const ratio = (pick: Figure<WatchRound>["pick"]): Goal["measured"] =>
    toRatio(rounds, pick, watched("gateway"), "gateway");
  return [
    { ...goal, what: `${what}/s`, measured: ratio(({ saturated }) => messagesPerSecond(saturated)) },
    {
      ...goal,
      what: `${what} per server-CPU-second`,
      measured: ratio(({ saturated }) => messagesPerCpuSecond(saturated)),
    },
  ];
}
