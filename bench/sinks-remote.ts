// Sinks that write to a server. Each turn has a new one, which the process that starts the turn starts and ends.

import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Entry } from "../src/reading.ts";
import { http } from "../src/sinks/http.ts";
import { influx } from "../src/sinks/influx.ts";
import { kafka } from "../src/sinks/kafka.ts";
import { mqtt } from "../src/sinks/mqtt.ts";
import { nats } from "../src/sinks/nats.ts";
import { postgres } from "../src/sinks/postgres/postgres.ts";
import { redis } from "../src/sinks/redis.ts";
import { queryInflux, startInflux } from "../test/servers/influx.ts";
import { startKafka } from "../test/servers/kafka.ts";
import { startMosquitto } from "../test/servers/mosquitto.ts";
import { startNats } from "../test/servers/nats.ts";
import { startPostgres } from "../test/servers/postgres.ts";
import { startRedis } from "../test/servers/redis.ts";
import { toData, toLine, toLines, toRow, type Place, type Target } from "./sinks-target.ts";

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

const importNats = async () => Promise.all([import("@nats-io/transport-node"), import("@nats-io/jetstream")]);

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

/** Of librdkafka's mock of a broker, which stores in memory. */
const kafkaTarget: Target = {
  name: "kafka",
  packages: ["@platformatic/kafka"],
  start: () => startKafka(),
  sink: ({ port }) => kafka({ brokers: [`127.0.0.1:${port}`] }),
  async naive({ port }) {
    const { Producer, stringSerializers } = await import("@platformatic/kafka");
    const options = { clientId: "bench", bootstrapBrokers: [`127.0.0.1:${port}`], autocreateTopics: true };
    const producer = new Producer({ ...options, serializers: stringSerializers });
    const send = (entries: readonly Entry[]): unknown =>
      producer.send({
        messages: entries.map((entry) => ({
          topic: `telemetry.${entry.reading.stream}`,
          key: entry.reading.deviceId,
          value: toLine(entry),
          headers: { gateway: "bench", offset: String(entry.offset) },
          timestamp: BigInt(entry.reading.time),
        })),
        acks: -1,
      });
    return { row: (entry) => send([entry]), batch: send, [Symbol.asyncDispose]: () => producer.close() };
  },
};

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

/** Numbers are fields, the device is a tag. */
function toPoint({ offset, reading }: Entry): string {
  const { metrics, ...others } = reading.data as Readonly<Record<string, Readonly<Record<string, number>>>>;
  const fields = Object.entries({ ...others, ...metrics, offset }).map(([name, value]) => `${name}=${String(value)}`);
  return `${reading.stream},device=${reading.deviceId} ${fields.join(",")} ${reading.time}\n`;
}

const influxTarget: Target = {
  name: "influx",
  packages: [],
  async start() {
    const server = await startInflux();
    await queryInflux(server, "CREATE DATABASE telemetry");
    return server;
  },
  sink: ({ port }) => influx({ url: `http://127.0.0.1:${port}`, api: "v1", database: "telemetry" }),
  async naive({ port }) {
    const post = async (body: string): Promise<void> => {
      const url = `http://127.0.0.1:${port}/write?db=telemetry&precision=ms`;
      const response = await fetch(url, { method: "POST", body });
      if (!response.ok) throw new Error(await response.text());
      await response.arrayBuffer();
    };
    return {
      row: (entry) => post(toPoint(entry)),
      batch: (entries) => post(entries.map(toPoint).join("")),
      async [Symbol.asyncDispose]() {},
    };
  },
};

/** Of the columns that `toValues` gives. */
const columns = [1, 2, 3, 4, 5, 6, 7, 8];

const toValues = (entry: Entry): readonly unknown[] => {
  const { time, received_at: receivedAt, ...row } = toRow(entry);
  return [...Object.values(row), new Date(time), new Date(receivedAt)];
};

/** Its Unix socket, which is what a database on the same machine is reached by. */
const toSocket = ({ serverDir, port }: Place) => ({
  host: serverDir,
  port,
  user: "postgres",
  database: "postgres",
});

const postgresTarget: Target = {
  name: "postgres",
  packages: ["pg"],
  start: () => startPostgres({ settings: ["fsync=on", "shared_buffers=256MB", "max_wal_size=4GB"] }),
  sink: (place) => postgres(toSocket(place)),
  call: (place) => `postgres(${JSON.stringify(toSocket(place))})`,
  async naive(place) {
    const { Client } = await import("pg");
    const client = new Client(toSocket(place));
    await client.connect();
    await client.query(`CREATE TABLE naive (gateway text, "offset" bigint, stream text, device text, topic text,
      time timestamptz, received_at timestamptz, data jsonb, PRIMARY KEY (gateway, "offset"));
      CREATE INDEX ON naive (device, time)`);
    const insert = (entries: readonly Entry[]): Promise<unknown> => {
      const values = entries.flatMap(toValues);
      const places = entries.map(
        (_, row) => `(${columns.map((column) => `$${row * columns.length + column}`).join()})`,
      );
      const text = `INSERT INTO naive (gateway, "offset", stream, device, topic, data, time, received_at)
        VALUES ${places.join()} ON CONFLICT DO NOTHING`;
      return client.query({ name: `insert-${entries.length}`, text, values });
    };
    return { row: (entry) => insert([entry]), batch: insert, [Symbol.asyncDispose]: () => client.end() };
  },
};

export const remoteTargets: readonly Target[] = [
  postgresTarget,
  redisTarget,
  mqttTarget,
  natsTarget,
  kafkaTarget,
  httpTarget,
  influxTarget,
];
