// The stack that one builds without a gateway, as a competent user would: Mosquitto takes the messages, this process
// subscribes to them, validates them with zod and writes them to SQLite, many rows in a transaction.
//   node bench/home-made.ts <port of Mosquitto> <database file>
//
// It has what makes the gateway's own sink fast: WAL, the cache and the checkpoints of src/sinks/sqlite.ts. Two things are
// in its favour: synchronous is NORMAL, so that a power cut may take rows that were acknowledged; and MQTT.js acknowledges
// to Mosquitto when a message was handed over, not when its row is committed.

import { argv } from "node:process";
import { DatabaseSync } from "node:sqlite";
import { connectAsync } from "mqtt";
import { z } from "zod";

const batchRows = 1000;
const batchMs = 100;

const schema = z.looseObject({
  ts: z.int(),
  seq: z.int(),
  metrics: z.record(z.string(), z.number()),
});

interface Row {
  readonly receivedAt: number;
  readonly time: number;
  readonly device: string;
  readonly topic: string;
  readonly data: string;
}

const [port, file] = argv.slice(2);
if (port === undefined || file === undefined) throw new Error("usage: node home-made.ts <port> <database file>");

const db = new DatabaseSync(file);
db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -32000; PRAGMA wal_autocheckpoint = 8000;
  CREATE TABLE readings (
    id INTEGER PRIMARY KEY, received_at INTEGER NOT NULL, time INTEGER NOT NULL,
    device TEXT NOT NULL, topic TEXT NOT NULL, data TEXT NOT NULL);
  CREATE INDEX readings_by_device ON readings (device, time);`);
const insert = db.prepare("INSERT INTO readings (received_at, time, device, topic, data) VALUES (?, ?, ?, ?, ?)");

let rows: Row[] = [];

function flush(): void {
  if (rows.length === 0) return;
  db.exec("BEGIN");
  for (const { receivedAt, time, device, topic, data } of rows) insert.run(receivedAt, time, device, topic, data);
  db.exec("COMMIT");
  rows = [];
}

function take(topic: string, payload: Buffer): void {
  const text = payload.toString();
  const parsed = parse(text);
  if (parsed === undefined) return;
  const device = topic.split("/")[1] ?? "";
  rows.push({ receivedAt: Date.now(), time: parsed.ts, device, topic, data: text });
  if (rows.length >= batchRows) flush();
}

/** Undefined for what is not a reading; a real one would log it. */
function parse(text: string): z.output<typeof schema> | undefined {
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

const client = await connectAsync({ host: "127.0.0.1", port: Number(port), clientId: "writer", keepalive: 600 });
client.on("message", take);
await client.subscribeAsync("devices/+/telemetry", { qos: 1 });
setInterval(flush, batchMs);
process.on("SIGTERM", () => {
  flush();
  db.close();
  process.exit(0);
});
process.on("disconnect", () => process.exit(0));
process.send?.("subscribed");
