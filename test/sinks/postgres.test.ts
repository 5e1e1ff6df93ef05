import { Client } from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { postgres } from "../../src/sinks/postgres/postgres.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { describeSink, makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import { hasPostgres, startPostgres } from "../servers/postgres.ts";
import type { Server } from "../servers/server.ts";

const never = new AbortController().signal;
let server: Server;
/** A database of its own for each test: the destination must be new. */
const databases = new Map<string, string>();

async function databaseOf({ dataDir }: SinkContext): Promise<string> {
  const found = databases.get(dataDir);
  if (found !== undefined) return found;
  const name = `test_${databases.size + 1}`;
  databases.set(dataDir, name);
  await query("postgres", `CREATE DATABASE ${name}`);
  return name;
}

async function query(database: string, text: string): Promise<readonly Record<string, unknown>[]> {
  const client = new Client({ host: "127.0.0.1", port: server.port, user: "postgres", database });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

const ask = async (context: SinkContext, text: string): Promise<readonly Record<string, unknown>[]> =>
  query(await databaseOf(context), text);

async function openSink(context: SinkContext, settings: Record<string, unknown> = {}): Promise<Sink> {
  const where = { host: "127.0.0.1", port: server.port, user: "postgres", database: await databaseOf(context) };
  const { sink, given } = postgres({ ...where, ...settings });
  return sink.open(sink.settings.parse(given), context);
}

async function rows(context: SinkContext): Promise<readonly WrittenRow[]> {
  const found = await ask(context, `SELECT * FROM readings ORDER BY gateway, "offset"`);
  return found.map(({ gateway, offset, device, time, data }) => ({
    gateway: String(gateway),
    offset: Number(offset),
    device: String(device),
    time: (time as Date).getTime(),
    data,
  }));
}

describe.skipIf(!hasPostgres())("with PostgreSQL", () => {
  beforeAll(async () => {
    server = await startPostgres();
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });

  describeSink("postgres", { open: openSink, rows });

  describe("the postgres sink", () => {
    let context: SinkContext;
    beforeEach(async () => {
      context = await openContext();
    });
    test("x", async () => {
      onTestFinished(() => {});
      await using sink = await openSink(context, { host: server.dir });
      expect(await sink.write(makeBatch([7]), never)).toEqual({ kind: "all" });
      expect(await ask(context, "SELECT * FROM readings")).toEqual([]);
      makeEntry(1);
    });
  });
});
