// The gateway against what stands in its place: bare brokers for the ingest, and for everything up to the row in a database
// the stack that one builds oneself (bench/home-made.ts).

import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { addLoadOptions, runRounds, type Benchmark, type LoadFlags } from "./benchmark.ts";
import { toIngestGoals } from "./ingest.ts";
import { DRAIN_MS, openLoad, type Load } from "./load-client.ts";
import { saturatedFigures, toCaution, toCautions, toLine, toNoise, type Saturated } from "./load-figures.ts";
import { readCpuSeconds, readMachineSeconds, readThreadSeconds, toThreadSeconds } from "./process-stats.ts";
import { spreadOf, toRatio, toRows, toTable, toVerdicts, type Figure, type Goal, type Measured } from "./report.ts";
import type { Database, Server, ServerName } from "./servers.ts";

/** From the first message until the last row that came. */
interface Stored {
  readonly acknowledged: number;
  readonly rows: number;
  readonly seconds: number;
  /** Of them, the load. */
  readonly loadSeconds: number;
  readonly serverCpuSeconds: number;
  readonly threadSeconds: Readonly<Record<string, number>>;
  /** Of everything else on the machine but the load generator and this process. */
  readonly otherCpuSeconds: number;
}

type PeersRound = Measured & { readonly server: ServerName } & Partial<Pick<Saturated, "saturated">> & {
    readonly stored?: Stored;
  };

const servers: readonly ServerName[] = ["gateway", "aedes", "mosquitto", "gateway+sqlite", "home-made"];
const POLL_MS = 20;
/** No row for so long: no more will come. */
const GIVE_UP_MS = 10_000;
const OPEN_MS = 20_000;

const isSaturated = (round: PeersRound): round is PeersRound & Saturated => round.saturated !== undefined;
const rowsPerCpuSecond = ({ stored }: PeersRound): number | undefined =>
  stored && stored.rows / stored.serverCpuSeconds;

const figures: readonly Figure<PeersRound>[] = [
  ...saturatedFigures.map(({ pick, ...figure }): Figure<PeersRound> => ({
    ...figure,
    pick: (round) => (isSaturated(round) ? pick(round) : undefined),
  })),
  { name: "rows/s until the last row", digits: 0, pick: ({ stored }) => stored && stored.rows / stored.seconds },
  { name: "rows per server-CPU-s", digits: 0, pick: rowsPerCpuSecond },
  { name: "acknowledged and not in the database", digits: 0, pick: lost, compared: false },
  { name: "behind when the load ended, s", digits: 1, pick: behindSeconds, compared: false },
];

export const peers: Benchmark<LoadFlags> = {
  name: "peers",
  description: "ingest against bare brokers, and rows in SQLite against Mosquitto with a process that subscribes",
  packages: ["aedes", "mqtt", "mqtt-packet", "zod", "mosquitto", "sqlite"],
  addOptions(command) {
    addLoadOptions(command, { connections: 1000, window: 16, warmup: 2, seconds: 4, rounds: 3, servers });
  },
  describe: (flags) =>
    `QoS 1, ${flags.connections} connections, window ${flags.window}, ${flags.payload} bytes of JSON; ` +
    `${flags.rounds} rounds of ${flags.seconds} s`,
  async run(flags, say, signal) {
    const rounds = await runRounds(
      flags,
      async (server, name, number) => {
        const round: PeersRound = { server: name, round: number, ...(await measure(server, flags, signal)) };
        say(isSaturated(round) ? toLine(round) : toStoredLine(round));
        return round;
      },
      signal,
    );
    const rows = toRows(rounds, figures);
    const saturated = rounds.filter(isSaturated);
    const noise = rounds.flatMap(({ server, round, stored }) =>
      stored === undefined ? [] : toNoise(`${server}, round ${round}`, stored.otherCpuSeconds / stored.seconds),
    );
    const verdicts = [...toVerdicts(toGoals(rounds, saturated)), ...toCautions(saturated), ...noise.map(toCaution)];
    return { data: { rows, rounds }, table: toTable(rows), verdicts };
  },
};

async function measure(
  server: Server,
  { connections, window, payload, warmup, seconds }: LoadFlags,
  signal: AbortSignal,
): Promise<Partial<Pick<PeersRound, "saturated" | "stored">>> {
  await using load = await openLoad({ port: server.port, connections, window, payloadBytes: payload }, signal);
  const phase = { warmupMs: warmup * 1000, measureMs: seconds * 1000, pids: server.pids, drainMs: DRAIN_MS };
  if (server.database === undefined) return { saturated: await load.saturate(phase) };
  using db = await openReadOnly(server.database);
  return { stored: await measureRows({ database: server.database, db, load, ...phase }, signal) };
}

interface RowsOptions {
  readonly pids: readonly number[];
  readonly database: Database;
  readonly db: DatabaseSync;
  readonly load: Load;
  readonly warmupMs: number;
  readonly measureMs: number;
  readonly drainMs: number;
}

async function measureRows(options: RowsOptions, signal: AbortSignal): Promise<Stored> {
  const { pids, database, db, load, warmupMs, measureMs, drainMs } = options;
  const read = (sql: string): number => Number(Object.values(db.prepare(sql).get() ?? {})[0] ?? 0);
  const look = (): Mark => ({
    rows: read(database.progress),
    ms: performance.now(),
    cpuSeconds: readCpuSeconds(pids),
    otherCpuSeconds: readMachineSeconds() - readCpuSeconds([...pids, load.pid, process.pid]),
    threadSeconds: readThreadSeconds(pids),
  });
  const warm = await load.saturate({ warmupMs: 0, measureMs: warmupMs, pids, drainMs });
  await untilSettled(look, warm.acknowledged, signal);
  const [before, first] = [read(database.count), look()];
  const { acknowledged } = await load.saturate({ warmupMs: 0, measureMs, pids, drainMs });
  const loadSeconds = (performance.now() - first.ms) / 1000;
  const last = await untilSettled(look, warm.acknowledged + acknowledged, signal);
  return {
    acknowledged,
    rows: read(database.count) - before,
    seconds: Math.max(loadSeconds, (last.ms - first.ms) / 1000),
    loadSeconds,
    serverCpuSeconds: last.cpuSeconds - first.cpuSeconds,
    threadSeconds: toThreadSeconds(first.threadSeconds, last.threadSeconds),
    otherCpuSeconds: last.otherCpuSeconds - first.otherCpuSeconds,
  };
}

interface Mark {
  readonly rows: number;
  readonly ms: number;
  readonly cpuSeconds: number;
  readonly otherCpuSeconds: number;
  readonly threadSeconds: Readonly<Record<string, number>>;
}

/** Resolves with the last progress, when it is all there or has long stood still. */
async function untilSettled(look: () => Mark, expected: number, signal: AbortSignal): Promise<Mark> {
  let last = look();
  while (last.rows < expected && performance.now() - last.ms < GIVE_UP_MS) {
    await sleep(POLL_MS, undefined, { signal });
    const now = look();
    if (now.rows !== last.rows) last = now;
  }
  return last;
}

/** The file and its tables are made by the server, which may accept connections before. */
async function openReadOnly({ file, count }: Database): Promise<DatabaseSync> {
  const deadlineMs = performance.now() + OPEN_MS;
  for (;;) {
    try {
      const db = new DatabaseSync(file, { readOnly: true, timeout: 1000 });
      db.prepare(count).get();
      return db;
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      await sleep(POLL_MS);
    }
  }
}

function lost({ stored }: PeersRound): number | undefined {
  return stored && stored.acknowledged - stored.rows;
}

function behindSeconds({ stored }: PeersRound): number | undefined {
  return stored && stored.seconds - stored.loadSeconds;
}

function toStoredLine(round: PeersRound): string {
  const { rows, seconds, serverCpuSeconds } = round.stored ?? { rows: 0, seconds: 0, serverCpuSeconds: 0 };
  return [
    `round ${round.round}  ${round.server.padEnd(15)}`,
    `${(rows / seconds).toFixed(0)} rows/s`.padStart(18),
    `${(rows / serverCpuSeconds).toFixed(0)} per server-CPU-s`.padStart(26),
    `   ${lost(round) ?? 0} lost, ${(behindSeconds(round) ?? 0).toFixed(1)} s behind`,
  ].join("");
}

function toGoals(rounds: readonly PeersRound[], saturated: readonly Saturated[]): readonly Goal[] {
  return [
    ...toIngestGoals(saturated),
    {
      what: "rows per server-CPU-second, gateway+sqlite / home-made",
      measured: toRatio(rounds, rowsPerCpuSecond, "gateway+sqlite", "home-made"),
      bound: { atLeast: 4 },
      unit: " ×",
      digits: 2,
    },
    {
      what: "gateway+sqlite, acknowledged and not in the database",
      measured: spreadOf(rounds, lost, "gateway+sqlite"),
      bound: { atMost: 0 },
      unit: "",
      digits: 0,
    },
  ];
}
