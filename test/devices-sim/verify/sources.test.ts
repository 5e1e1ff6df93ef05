// Each source gives what its sink has, in the sink's order, and then only what is new.

import { appendFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect } from "vitest";
import type { Row, Source } from "../../../devices-sim/verify/row.ts";
import { openSource } from "../../../devices-sim/verify/source.ts";
import { parseTarget } from "../../../devices-sim/verify/target.ts";
import { test } from "../../fixtures.ts";
import { startNats } from "../../servers/nats.ts";
import { hasPostgres, startPostgres } from "../../servers/postgres.ts";
import { isInstalled, type Server } from "../../servers/server.ts";

/** The source of a sink as it is named on the command line. */
function sourceOf(text: string): Source {
  const target = parseTarget(text);
  if (target === undefined || target.kind === "rejects") throw new TypeError(`${text} is no sink`);
  return openSource(target);
}

/** What is in every row beside its offset. */
const what = '["d1",1000,{"seq":1}]';

async function readOffsets(source: Source): Promise<number[]> {
  const rows: Row[] = [];
  for await (const some of source.read()) rows.push(...some);
  const others = rows.filter(({ device, receivedAt, data }) => JSON.stringify([device, receivedAt, data]) !== what);
  expect(others).toEqual([]);
  return rows.map(({ offset }) => offset);
}

const documentOf = (offset: number, stream = "climate"): string =>
  `{"gateway":"g","offset":${offset},"stream":"${stream}","device":"d1","topic":"t","time":1,"receivedAt":1000,"data":{"seq":1}}`;
const linesOf = (...offsets: readonly number[]): string => offsets.map((offset) => `${documentOf(offset)}\n`).join("");

describe("sqlite", () => {
  test("gateway by gateway, in the order of the offsets, and then what is new of each", async ({ dir }) => {
    const path = join(dir, "t.db");
    await using source = sourceOf(`sqlite:${path}`);
    expect(source.once).toBe(true);
    await expect(readOffsets(source)).rejects.toThrow("there is no such file");
    using db = new DatabaseSync(path);
    db.exec(`CREATE TABLE readings (gateway TEXT, "offset" INTEGER, received_at INTEGER, device TEXT, data TEXT,
      PRIMARY KEY (gateway, "offset")) WITHOUT ROWID`);
    const insert = db.prepare(`INSERT INTO readings VALUES (?, ?, 1000, 'd1', '{"seq":1}')`);
    db.exec("BEGIN");
    for (let offset = 25_000; offset >= 0; offset -= 1) insert.run("b", offset);
    insert.run("a", 7);
    db.exec("COMMIT");
    expect(await readOffsets(source)).toEqual([7, ...upTo(25_000)]);
    insert.run("b", 25_001);
    insert.run("c", 1);
    insert.run("a", 8);
    expect(await readOffsets(source)).toEqual([8, 25_001, 1]);
    expect(await readOffsets(source)).toEqual([]);
  });
});

describe("ndjson", () => {
  test("a file that grows: whole lines only, and no lines that are no documents", async ({ dir }) => {
    const path = join(dir, "out.log");
    await using source = sourceOf(`ndjson:${path}`);
    await expect(readOffsets(source)).rejects.toThrow("ENOENT");
    const cut = documentOf(3);
    await writeFile(path, `{"level":30}\nnot json\n${linesOf(1, 2)}${cut.slice(0, 50)}`);
    expect(await readOffsets(source)).toEqual([1, 2]);
    expect(source.once).toBe(false);
    await appendFile(path, `${cut.slice(50)}\n`);
    expect(await readOffsets(source)).toEqual([3]);
  });

  test("a folder: closed files in the order of their offsets, of each compression, and those that come later", async ({
    dir,
  }) => {
    const folder = join(dir, "stream=climate", "hour=1");
    await mkdir(folder, { recursive: true });
    await mkdir(join(dir, ".sluice"));
    await writeFile(join(dir, ".sluice", "g.files.00.ndjson"), linesOf(9));
    await writeFile(join(folder, "g.files.03-04.ndjson.gz"), gzipSync(linesOf(3, 4)));
    await writeFile(join(folder, "g.files.05-06.ndjson.zst"), zstdCompressSync(linesOf(5, 6)));
    await writeFile(join(dir, "g.files.01-02.ndjson"), linesOf(1, 2));
    await writeFile(join(dir, "README"), linesOf(8));
    await using source = sourceOf(`ndjson:${dir}`);
    expect(await readOffsets(source)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(source.once).toBe(true);
    await writeFile(join(folder, "g.files.07-07.ndjson.gz"), gzipSync(linesOf(7)));
    expect(await readOffsets(source)).toEqual([7]);
  });

  test("100,000 lines, longer than a block, come whole", async ({ dir }) => {
    const path = join(dir, "out.log");
    const offsets = upTo(99_999);
    await writeFile(path, linesOf(...offsets));
    await using source = sourceOf(`ndjson:${path}`);
    expect(await readOffsets(source)).toEqual(offsets);
  });
});

describe.runIf(isInstalled("nats-server"))("nats", () => {
  let server: Server;
  beforeAll(async () => {
    server = await startNats();
  });
  afterAll(() => server[Symbol.asyncDispose]());

  test("in the order of the stream, then what is new, also after a restart of the server", async () => {
    await using source = sourceOf(`nats://127.0.0.1:${server.port}?stream=T`);
    await expect(readOffsets(source)).rejects.toThrow(/stream not found/);
    const publish = async (...offsets: readonly number[]): Promise<void> => {
      const connection = await connect({ servers: `127.0.0.1:${server.port}` });
      const streams = (await jetstreamManager(connection)).streams;
      await streams.add({ name: "T", subjects: ["t.>"] });
      for (const offset of offsets) await jetstream(connection).publish("t.x", documentOf(offset));
      await connection.close();
    };
    await publish(5, 3, 4);
    expect(await readOffsets(source)).toEqual([5, 3, 4]);
    await publish(6);
    expect(await readOffsets(source)).toEqual([6]);
    expect(await readOffsets(source)).toEqual([]);
    await server.stop();
    await expect(readOffsets(source)).rejects.toThrow(/closed|refused|disconnect/i);
    await server.start();
    await publish(7);
    expect(await readOffsets(source)).toEqual([7]);
    server.freeze();
    const [failure] = await Promise.all([readOffsets(source).catch(String), source[Symbol.asyncDispose]()]);
    expect(failure).toMatch(/closed/i);
    server.thaw();
  });
});

describe.runIf(hasPostgres())("postgres", () => {
  let server: Server;
  beforeAll(async () => {
    server = await startPostgres();
  });
  afterAll(() => server[Symbol.asyncDispose]());

  test("gateway by gateway, with rows of the same offset, then what is new, also after the connection broke", async () => {
    const url = `postgres://postgres@127.0.0.1:${server.port}/postgres`;
    await using source = sourceOf(url);
    await expect(readOffsets(source)).rejects.toThrow('relation "readings" does not exist');
    await using admin = await connectPostgres(url);
    await admin.query(
      `CREATE TABLE readings (gateway text, "offset" bigint, received_at timestamptz, device text, data jsonb)`,
    );
    const insert = (gateway: string, from: number, to: number): Promise<unknown> =>
      admin.query(
        `INSERT INTO readings SELECT $1, generate_series($2::int, $3::int), to_timestamp(1), 'd1', '{"seq": 1.0}'`,
        [gateway, from, to],
      );
    await insert("b", 0, 10_000);
    await insert("b", 9_999, 9_999);
    await insert("a", 7, 7);
    expect(await readOffsets(source)).toEqual([7, ...upTo(9_999), 9_999, 10_000]);
    await insert("b", 10_001, 10_001);
    expect(await readOffsets(source)).toEqual([10_001]);
    await admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
    await insert("b", 10_002, 10_002);
    await expect.poll(() => readOffsets(source).catch(String), { timeout: 10_000 }).toEqual([10_002]);
  });

  test("a table of another layout is told by its name, unless there is `readings`", async () => {
    const url = `postgres://postgres@127.0.0.1:${server.port}/postgres`;
    await using admin = await connectPostgres(url);
    await admin.query(
      "CREATE SCHEMA wide; CREATE TABLE wide.readings_climate (gateway text, rest jsonb); CREATE TABLE wide.readings_notes (a text)",
    );
    await admin.query("CREATE SCHEMA narrow; CREATE TABLE narrow.metrics (gateway text, rest jsonb)");
    await using wide = sourceOf(`${url}?options=-csearch_path%3Dwide`);
    const told = "the table readings_climate has the layout wide";
    await expect(wide.check?.()).rejects.toThrow(told);
    await expect(readOffsets(wide)).rejects.toThrow(told);
    await using narrow = sourceOf(`${url}?options=-csearch_path%3Dnarrow`);
    await expect(readOffsets(narrow)).rejects.toThrow("the table metrics has the layout narrow");
    await admin.query("CREATE TABLE wide.readings (LIKE readings)");
    expect(await readOffsets(wide)).toEqual([]);
  });

  test("a server that is frozen holds nobody up who has waited long enough", async () => {
    const source = sourceOf(`postgres://postgres@127.0.0.1:${server.port}/postgres`);
    await readOffsets(source);
    server.freeze();
    const [failure] = await Promise.all([readOffsets(source).catch(String), source[Symbol.asyncDispose]()]);
    expect(failure).toContain("Connection terminated");
    server.thaw();
  });

  test("a server that is not there is told", async () => {
    await using source = sourceOf("postgres://postgres@127.0.0.1:1/postgres");
    await expect(readOffsets(source)).rejects.toThrow("ECONNREFUSED");
  });
});

const upTo = (last: number): number[] => Array.from({ length: last + 1 }, (_, at) => at);

async function connectPostgres(url: string): Promise<Client & AsyncDisposable> {
  const client = new Client({ connectionString: url });
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() });
}
