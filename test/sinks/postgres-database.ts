// A database for each context, on a server that the test has started: to open the sink there, and to ask with a client of its own.

import { Client } from "pg";
import { postgres } from "../../src/sinks/postgres/postgres.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import type { Server } from "../servers/server.ts";

type Row = Readonly<Record<string, unknown>>;

export interface Databases {
  openSink(context: SinkContext, settings?: Readonly<Record<string, unknown>>): Promise<Sink>;
  /** In the context's database, as the superuser; of several statements, the rows of the last. */
  ask(context: SinkContext, text: string): Promise<readonly Row[]>;
  /** A connection to the context's database; the caller ends it. */
  connect(context: SinkContext): Promise<Client>;
  /** The table `readings`, in the order of gateway and offset. */
  readings(context: SinkContext): Promise<readonly WrittenRow[]>;
  /** The offsets in `readings`, in their order, each as often as it is there. */
  offsets(context: SinkContext): Promise<readonly number[]>;
}

export function createDatabases({ host, port }: Server): Databases {
  const names = new Map<string, Promise<string>>();

  async function open(database: string): Promise<Client> {
    const client = new Client({ host, port, user: "postgres", database });
    client.on("error", () => {});
    await client.connect();
    return client;
  }

  async function run(database: string, text: string): Promise<readonly Row[]> {
    const client = await open(database);
    try {
      const results = [await client.query<Row>(text)].flat();
      return results.at(-1)?.rows ?? [];
    } finally {
      await client.end();
    }
  }

  async function create(name: string): Promise<string> {
    await run("postgres", `CREATE DATABASE ${name}`);
    return name;
  }

  function nameOf({ dataDir }: SinkContext): Promise<string> {
    const name = names.get(dataDir) ?? create(`test_${names.size + 1}`);
    names.set(dataDir, name);
    return name;
  }

  const databases: Databases = {
    async openSink(context, settings = {}) {
      const { sink, given } = postgres({ host, port, user: "postgres", database: await nameOf(context), ...settings });
      return await sink.open(sink.settings.parse(given), context);
    },
    ask: async (context, text) => run(await nameOf(context), text),
    connect: async (context) => open(await nameOf(context)),
    async readings(context) {
      const rows = await databases.ask(context, `SELECT * FROM readings ORDER BY gateway, "offset"`);
      return rows.map(({ gateway, offset, device, time, data }) => ({
        gateway: String(gateway),
        offset: Number(offset),
        device: String(device),
        time: (time as Date).getTime(),
        data,
      }));
    },
    async offsets(context) {
      const rows = await databases.ask(context, `SELECT "offset" FROM readings ORDER BY "offset"`);
      return rows.map(({ offset }) => Number(offset));
    },
  };
  return databases;
}
