// Every sink that can be had on this machine: its server, its call in the configuration, and how to see what it has.

import { join } from "node:path";
import { createClient } from "@redis/client";
import { hasPostgres, startPostgres } from "../servers/postgres.ts";
import { queryInflux, startInflux } from "../servers/influx.ts";
import { startKafka } from "../servers/kafka.ts";
import { startMosquitto } from "../servers/mosquitto.ts";
import { startNats } from "../servers/nats.ts";
import { startRedis } from "../servers/redis.ts";
import { isInstalled, type Server } from "../servers/server.ts";
import { readClosed } from "../sinks/closed-files.ts";
import { startReadingServer } from "./http-server.ts";

/** What happens to a server. */
export type Outage = Pick<Server, "start" | "stop" | "freeze" | "thaw">;

export interface Destination {
  /** Name of the sink. */
  readonly sink: string;
  /** The sink's call in the configuration. */
  readonly call: string;
  /** Undefined: it writes files. */
  readonly outage?: Outage;
  /** false: it would lose what it has, and is frozen instead. */
  readonly canBeKilled: boolean;
  /** It keeps its position with the readings, where a start looks for it. */
  readonly keepsPosition: boolean;
  /** For `sluice-sim verify`. */
  readonly target?: string;
  /** Undefined: nobody can tell. */
  readonly found?: () => Promise<Found | undefined>;
}

/** The offsets that a sink has, which the ledger cannot compare. */
export interface Found {
  /** How often each is there. */
  readonly offsets: ReadonlyMap<number, number>;
  /** Each may be there once only. */
  readonly isOnce: boolean;
}

export interface Destinations extends AsyncDisposable {
  readonly all: readonly Destination[];
  /** A sentence about each that is left out. */
  readonly missing: readonly string[];
}

/** Soon again, and a frozen server is noticed. */
const PATIENCE = "retry: { minimumMs: 20, maximumMs: 1_000 }, timeoutMs: 5_000";
const STREAM = "climate";
const STREAM_LENGTH = 100_000_000;
const DATABASE = "telemetry";

type Opened = Destination & { readonly server?: AsyncDisposable };

interface Kind {
  readonly program: string;
  readonly package: string;
  readonly isThere: () => boolean;
  readonly open: () => Promise<Opened>;
}

/** Those with a server whose program may be missing. */
const kinds: readonly Kind[] = [
  { program: "postgres", package: "postgresql", isThere: hasPostgres, open: openPostgres },
  toKind("redis-server", "redis-server", openRedis),
  toKind("nats-server", "nats-server", openNats),
  toKind("mosquitto", "mosquitto", openMosquitto),
  toKind("influxd", "influxdb", openInflux),
  toKind("kcat", "kcat", openKafka),
];

function toKind(program: string, debian: string, open: Kind["open"]): Kind {
  return { program, package: debian, isThere: () => isInstalled(program), open };
}

/** Starts every server at once. `dataDir`: of the gateway, whose disk has the files. Rejects when one does not start. */
export async function openDestinations(dataDir: string): Promise<Destinations> {
  const there = kinds.filter(({ isThere }) => isThere());
  const missing = kinds
    .filter((kind) => !there.includes(kind))
    .map((kind) => `${kind.program} is missing: install Debian's ${kind.package}`);
  await using stack = new AsyncDisposableStack();
  const started = await Promise.allSettled([...there.map(({ open }) => open()), openHttp()]);
  const opened = started.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  for (const { server } of opened) if (server !== undefined) stack.use(server);
  const failed = started.find((one) => one.status === "rejected");
  if (failed !== undefined) throw failed.reason;
  const kept = stack.move();
  return {
    all: [openSqlite(dataDir), openNdjson(dataDir), openParquet(dataDir), ...opened],
    missing,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

const toCall = (type: string, settings: string): string =>
  `${type}({ ${settings}${settings === "" ? "" : ", "}${PATIENCE} })`;

const openSqlite = (dataDir: string): Destination => ({
  sink: "sqlite",
  call: toCall("sqlite", ""),
  keepsPosition: true,
  canBeKilled: false,
  target: `sqlite:${join(dataDir, "telemetry.db")}`,
});

const openNdjson = (dataDir: string): Destination => ({
  sink: "ndjson",
  call: toCall(
    "files",
    `name: "ndjson", path: ${JSON.stringify(join(dataDir, "ndjson"))}, compression: "gzip", rotate: { timeMs: 2_000 }`,
  ),
  keepsPosition: true,
  canBeKilled: false,
  target: `ndjson:${join(dataDir, "ndjson")}`,
});

const openParquet = (dataDir: string): Destination => ({
  sink: "parquet",
  call: toCall(
    "files",
    `name: "parquet", path: ${JSON.stringify(join(dataDir, "parquet"))}, format: "parquet", rotate: { timeMs: 5_000 }`,
  ),
  keepsPosition: true,
  canBeKilled: false,
  async found() {
    const closed = await readClosed(join(dataDir, "parquet"));
    return { offsets: await count(closed.flatMap(({ rows }) => rows.map((row) => row["offset"]))), isOnce: true };
  },
});

async function openPostgres(): Promise<Opened> {
  const server = await startPostgres();
  return {
    sink: "postgres",
    call: toCall("postgres", `host: "127.0.0.1", port: ${server.port}, user: "postgres", database: "postgres"`),
    server,
    outage: server,
    keepsPosition: true,
    canBeKilled: true,
    target: `postgres://postgres@127.0.0.1:${server.port}/postgres`,
  };
}

async function openRedis(): Promise<Opened> {
  const server = await startRedis();
  const url = `redis://127.0.0.1:${server.port}`;
  return {
    sink: "redis",
    call: toCall("redis", `url: "${url}", key: "telemetry", maxLength: ${STREAM_LENGTH}`),
    server,
    outage: server,
    keepsPosition: true,
    canBeKilled: true,
    found: async () => ({ offsets: await count(readRedis(url)), isOnce: true }),
  };
}

async function* readRedis(url: string): AsyncGenerator {
  const client = createClient({ url });
  await client.connect();
  try {
    for (let from = "-"; ;) {
      const page = (await client.xRange("telemetry", from, "+", { COUNT: 10_000 })) ?? [];
      const last = page.at(-1);
      if (last === undefined) return;
      for (const { message } of page) yield message["offset"];
      from = `(${last.id}`;
    }
  } finally {
    client.destroy();
  }
}

async function openNats(): Promise<Opened> {
  const server = await startNats();
  const url = `nats://127.0.0.1:${server.port}`;
  return {
    sink: "nats",
    call: toCall("nats", `servers: ["${url}"], stream: "TELEMETRY", create: {}`),
    server,
    outage: server,
    keepsPosition: false,
    canBeKilled: true,
    target: `${url}?stream=TELEMETRY`,
  };
}

/** It acknowledges before it writes: killed, it may lose messages, and only the gateway's own figures count. */
async function openMosquitto(): Promise<Opened> {
  const server = await startMosquitto({ lines: ["persistence true", "autosave_interval 1"] });
  return {
    sink: "mqtt",
    call: toCall("mqtt", `url: "mqtt://127.0.0.1:${server.port}"`),
    server,
    outage: server,
    keepsPosition: false,
    canBeKilled: true,
  };
}

async function openInflux(): Promise<Opened> {
  const server = await startInflux();
  try {
    await queryInflux(server, `CREATE DATABASE ${DATABASE}`);
  } catch (cause) {
    await server[Symbol.asyncDispose]();
    throw cause;
  }
  return {
    sink: "influx",
    call: toCall(
      "influx",
      `url: "http://127.0.0.1:${server.port}", api: "v1", database: "${DATABASE}", distinct: true`,
    ),
    server,
    outage: server,
    keepsPosition: false,
    canBeKilled: true,
    async found() {
      const points = await queryInflux(server, `SELECT "offset" FROM ${STREAM}`, { database: DATABASE });
      return { offsets: await count(points.map((point) => point["offset"])), isOnce: true };
    },
  };
}

/** The mock keeps what it has in memory, and the last 5 MB of each partition only. */
async function openKafka(): Promise<Opened> {
  const server = await startKafka();
  return {
    sink: "kafka",
    call: toCall("kafka", `brokers: ["127.0.0.1:${server.port}"]`),
    server,
    outage: server,
    keepsPosition: false,
    canBeKilled: false,
    async found() {
      const records = await server.read(`telemetry.${STREAM}`);
      const firsts = records.filter(({ partition }, at) => partition !== records[at - 1]?.partition);
      if (firsts.some(({ offset }) => offset !== 0)) return undefined;
      const documents = records.map(({ payload }) => JSON.parse(payload) as Readonly<Record<string, unknown>>);
      return { offsets: await count(documents.map((document) => document["offset"])), isOnce: false };
    },
  };
}

async function openHttp(): Promise<Opened> {
  const server = await startReadingServer();
  return {
    sink: "http",
    call: toCall("http", `url: "http://127.0.0.1:${server.port}/", gzip: false`),
    server,
    outage: server,
    keepsPosition: false,
    canBeKilled: true,
    found: () => Promise.resolve({ offsets: server.taken, isOnce: false }),
  };
}

async function count(found: Iterable<unknown> | AsyncIterable<unknown>): Promise<ReadonlyMap<number, number>> {
  const offsets = new Map<number, number>();
  for await (const one of found) {
    const offset = Number(one);
    offsets.set(offset, (offsets.get(offset) ?? 0) + 1);
  }
  return offsets;
}
