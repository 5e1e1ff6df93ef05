// Sinks that need no server.

import { open } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Entry } from "../src/reading.ts";
import { files } from "../src/sinks/files/files.ts";
import { sqlite } from "../src/sinks/sqlite.ts";
import { stdout } from "../src/sinks/stdout.ts";
import { toLine, toLines, toRow, type Target } from "./sinks-target.ts";

const createSqliteTarget = (name: string, index: "device" | "time" | "none"): Target => ({
  name,
  packages: ["sqlite"],
  sink: ({ dir }) => sqlite({ path: join(dir, "telemetry.db"), index }),
  call: ({ dir }) => `sqlite({ path: ${JSON.stringify(join(dir, "telemetry.db"))}, index: "${index}" })`,
  async naive({ dir }) {
    const db = new DatabaseSync(join(dir, "naive.db"));
    db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
      CREATE TABLE readings (gateway TEXT, "offset" INTEGER, stream TEXT, device TEXT, topic TEXT, time INTEGER,
        received_at INTEGER, data TEXT, PRIMARY KEY (gateway, "offset"))`);
    if (index !== "none")
      db.exec(`CREATE INDEX by_${index} ON readings (${index === "time" ? "time" : "device, time"})`);
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
});

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

export const localTargets: readonly Target[] = [
  createSqliteTarget("sqlite", "device"),
  createSqliteTarget("sqlite by time", "time"),
  createSqliteTarget("sqlite without index", "none"),
  ndjsonTarget,
  parquetTarget,
  stdoutTarget,
];
