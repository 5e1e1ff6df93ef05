// What the benchmark of sinks writes to: for each kind of sink the server that it needs, the sink itself, and the same library
// as one uses it without much thought. Both write the same readings, with the same durability unless docs/benchmarks.md says so.

import { once } from "node:events";
import { open } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Entry, Reading } from "../src/reading.ts";
import { files } from "../src/sinks/files/files.ts";
import { http } from "../src/sinks/http.ts";
import { mqtt } from "../src/sinks/mqtt.ts";
import { nats } from "../src/sinks/nats.ts";
import { redis } from "../src/sinks/redis.ts";
import type { SinkDefinition } from "../src/sinks/sink.ts";
import { sqlite } from "../src/sinks/sqlite.ts";
import { stdout } from "../src/sinks/stdout.ts";
import { startMosquitto } from "../test/servers/mosquitto.ts";
import { startNats } from "../test/servers/nats.ts";
import { startRedis } from "../test/servers/redis.ts";

/** Where a turn writes; everything in it is new. */
export interface Place {
  /** An empty folder. */
  readonly dir: string;
  /** Of the server on 127.0.0.1; 0: there is none. */
  readonly port: number;
}

/** The library used naively. */
export interface Naive extends AsyncDisposable {
  /** Resolves when it is written; the next reading waits for that. */
  readonly row?: (entry: Entry) => unknown;
  readonly batch: (entries: readonly Entry[]) => unknown;
}

export interface Target {
  readonly name: string;
  /** Whose versions are part of what is measured. */
  readonly packages: readonly string[];
  readonly start?: () => Promise<AsyncDisposable & { readonly port: number }>;
  readonly sink: (place: Place) => SinkDefinition;
  readonly naive: (place: Place) => Promise<Naive>;
  /** `naive` has no single rows. */
  readonly noRows?: true;
  /** The sink as a configuration says it, when a journal is to be drained into it. */
  readonly call?: (place: Place) => string;
}

/** The columns that all of them have. */
const toRow = ({ offset, reading }: Entry) => ({
  gateway: "bench",
  offset,
  stream: reading.stream,
  device: reading.deviceId,
  topic: reading.topic,
  time: reading.time,
  received_at: reading.receivedAt,
  data: JSON.stringify(reading.data),
});
const toLine = (entry: Entry): string => `${JSON.stringify({ ...toRow(entry), data: entry.reading.data })}\n`;
const toLines = (entries: readonly Entry[]): string => entries.map(toLine).join("");
const toData = ({ data }: Reading): string => JSON.stringify(data);

const sqliteTarget: Target = {
  name: "sqlite",
  packages: ["sqlite"],
  sink: ({ dir }) => sqlite({ path: join(dir, "telemetry.db") }),
  call: ({ dir }) => `sqlite({ path: ${JSON.stringify(join(dir, "telemetry.db"))} })`,
  async naive({ dir }) {
    const db = new DatabaseSync(join(dir, "naive.db"));
    db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
      CREATE TABLE readings (gateway TEXT, "offset" INTEGER, stream TEXT, device TEXT, topic TEXT, time INTEGER,
        received_at INTEGER, data TEXT, PRIMARY KEY (gateway, "offset"));
      CREATE INDEX by_device ON readings (stream, device, time)`);
    const insert = db.prepare("INSERT OR IGNORE INTO readings VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    const row = (entry: Entry): unknown => insert.run(...Object.values(toRow(entry)));
    return {
      row,
      batch(entries) {
        db.exec("BEGIN");
        entries.forEach(row);
        db.exec("COMMIT");
      },
      [Symbol.asyncDispose]: async () => db.close(),
    };
  },
};

const redisTarget: Target = {
  name: "redis",
  packages: ["@redis/client"],
  start: () => startRedis(),
  sink: ({ port }) => redis({ url: `redis://127.0.0.1:${port}` }),
  async naive({ port }) {
    const { createClient } = await import("@redis/client");
    const client = createClient({ url: `redis://127.0.0.1:${port}` });
    await client.connect();
    const TRIM = { strategy: "MAXLEN", strategyModifier: "~", threshold: 1_000_000 } as const;
    const row = (entry: Entry): unknown => {
      const fields = Object.fromEntries(Object.entries(toRow(entry)).map(([name, value]) => [name, String(value)]));
      return client.xAdd(`telemetry:${entry.reading.stream}`, "*", fields, { TRIM });
    };
    return {
      row,
      batch: (entries) => Promise.all(entries.map(row)),
      [Symbol.asyncDispose]: async () => client.destroy(),
    };
  },
};

const mqttTarget: Target = {
  name: "mqtt",
  packages: ["mqtt", "mosquitto"],
  start: () => startMosquitto({ lines: ["max_queued_messages 0", "max_inflight_messages 0"] }),
  sink: ({ port }) => mqtt({ url: `mqtt://127.0.0.1:${port}` }),
  async naive({ port }) {
    const { connectAsync } = await import("mqtt");
    const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { protocolVersion: 5 });
    const row = ({ offset, reading }: Entry): unknown => {
      const userProperties = { gateway: "bench", offset: String(offset) };
      return client.publishAsync(reading.topic, toData(reading), { qos: 1, properties: { userProperties } });
    };
    return {
      row,
      batch: (entries) => Promise.all(entries.map(row)),
      [Symbol.asyncDispose]: () => client.endAsync(),
    };
  },
};

const natsTarget: Target = {
  name: "nats",
  packages: ["@nats-io/jetstream"],
  async start() {
    const server = await startNats();
    const [{ connect }, { jetstreamManager }] = await importNats();
    const connection = await connect({ servers: `127.0.0.1:${server.port}` });
    const manager = await jetstreamManager(connection);
    await manager.streams.add({ name: "telemetry", subjects: ["telemetry.>"] });
    await connection.close();
    return server;
  },
  sink: ({ port }) => nats({ servers: [`nats://127.0.0.1:${port}`] }),
  async naive({ port }) {
    const [{ connect }, { jetstream }] = await importNats();
    const connection = await connect({ servers: `127.0.0.1:${port}` });
    const client = jetstream(connection);
    const row = (entry: Entry): unknown =>
      client.publish(`telemetry.${entry.reading.stream}.${entry.reading.deviceId}`, toLine(entry), {
        msgID: `bench/${entry.offset}`,
      });
    return {
      row,
      batch: (entries) => Promise.all(entries.map(row)),
      [Symbol.asyncDispose]: () => connection.close(),
    };
  },
};

const importNats = async () => Promise.all([import("@nats-io/transport-node"), import("@nats-io/jetstream")]);

const httpTarget: Target = {
  name: "http",
  packages: [],
  async start() {
    const server = createServer((request, response) => {
      request.resume().once("end", () => response.writeHead(204).end());
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    return {
      port: (server.address() as AddressInfo).port,
      async [Symbol.asyncDispose]() {
        server.closeAllConnections();
        server.close();
      },
    };
  },
  sink: ({ port }) => http({ url: `http://127.0.0.1:${port}/` }),
  async naive({ port }) {
    const post = async (body: string): Promise<void> => {
      const response = await fetch(`http://127.0.0.1:${port}/`, { method: "POST", body });
      await response.arrayBuffer();
    };
    return {
      row: (entry) => post(toLine(entry)),
      batch: (entries) => post(toLines(entries)),
      async [Symbol.asyncDispose]() {},
    };
  },
};

const ndjsonTarget: Target = {
  name: "ndjson",
  packages: [],
  sink: ({ dir }) => files({ path: dir }),
  async naive({ dir }) {
    const file = await open(join(dir, "readings.ndjson"), "a");
    return {
      row: (entry) => file.appendFile(toLine(entry)),
      batch: (entries) => file.appendFile(toLines(entries)),
      async [Symbol.asyncDispose]() {
        await file.sync();
        await file.close();
      },
    };
  },
};

/** A file cannot be appended to: each batch makes one. */
const parquetTarget: Target = {
  name: "parquet",
  packages: ["hyparquet-writer"],
  noRows: true,
  sink: ({ dir }) => files({ path: dir, format: "parquet" }),
  async naive({ dir }) {
    const { parquetWriteBuffer } = await import("hyparquet-writer");
    let written = 0;
    return {
      async batch(entries) {
        const rows = entries.map(toRow);
        const [first] = rows;
        const names = Object.keys(first ?? {}) as (keyof ReturnType<typeof toRow>)[];
        const buffer = parquetWriteBuffer({
          columnData: names.map((name) => ({
            name,
            data: rows.map((row) => row[name]),
            type: typeof first?.[name] === "number" ? "DOUBLE" : "STRING",
          })),
        });
        written += 1;
        const file = await open(join(dir, `${written}.parquet`), "wx");
        await file.writeFile(new Uint8Array(buffer));
        await file.close();
      },
      async [Symbol.asyncDispose]() {},
    };
  },
};

const print = (text: string): Promise<void> =>
  new Promise((resolve) => void process.stdout.write(text, () => resolve()));

/** Its reader, the process that started the turn, takes everything. */
const stdoutTarget: Target = {
  name: "stdout",
  packages: [],
  sink: () => stdout(),
  async naive() {
    return {
      row: (entry) => print(toLine(entry)),
      batch: (entries) => print(toLines(entries)),
      async [Symbol.asyncDispose]() {},
    };
  },
};

export const targets: readonly Target[] = [
  sqliteTarget,
  redisTarget,
  mqttTarget,
  natsTarget,
  httpTarget,
  ndjsonTarget,
  parquetTarget,
  stdoutTarget,
];
