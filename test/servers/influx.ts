// InfluxDB 1 from Debian, with a configuration file of its own; it syncs its write-ahead log with each request.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startServer, type Server } from "./server.ts";

export interface InfluxOptions {
  /** Lines of the section [http]. */
  readonly http?: readonly string[];
  /** Lines of the section [data]. */
  readonly data?: readonly string[];
}

const configuration = ({ http = [], data = [] }: InfluxOptions, dir: string, port: number): string =>
  [
    "reporting-disabled = true",
    'bind-address = "127.0.0.1:0"',
    "[meta]",
    `dir = "${join(dir, "meta")}"`,
    "[data]",
    `dir = "${join(dir, "data")}"`,
    `wal-dir = "${join(dir, "wal")}"`,
    "query-log-enabled = false",
    ...data,
    "[http]",
    `bind-address = "127.0.0.1:${port}"`,
    "log-enabled = false",
    ...http,
    "[monitor]",
    "store-enabled = false",
    "[logging]",
    'level = "warn"',
    "",
  ].join("\n");

/** Starts it without a database. */
export const startInflux = (options: InfluxOptions = {}): Promise<Server> =>
  startServer({
    command: "influxd",
    args: ({ dir }) => ["run", "-config", join(dir, "influxdb.conf")],
    prepare: ({ dir, port }) => writeFile(join(dir, "influxdb.conf"), configuration(options, dir, port)),
    async probe({ port }) {
      const { status } = await fetch(`http://127.0.0.1:${port}/ping`);
      if (status !== 204) throw new Error(`/ping answers ${status}`);
    },
  });

export interface QueryOptions {
  readonly database?: string;
  /** `user:password`. */
  readonly user?: string;
}

/** Rows of a statement of InfluxQL, by column; times in milliseconds. */
export async function queryInflux(
  { port }: Pick<Server, "port">,
  statement: string,
  { database = "", user }: QueryOptions = {},
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const response = await fetch(`http://127.0.0.1:${port}/query`, {
    method: "POST",
    headers: user === undefined ? {} : { authorization: `Basic ${Buffer.from(user).toString("base64")}` },
    body: new URLSearchParams({ db: database, epoch: "ms", q: statement }),
  });
  const answer = (await response.json()) as {
    readonly error?: string;
    readonly results?: readonly {
      readonly error?: string;
      readonly series?: readonly { readonly columns: readonly string[]; readonly values: readonly unknown[][] }[];
    }[];
  };
  const [result] = answer.results ?? [];
  const error = answer.error ?? result?.error;
  if (error !== undefined) throw new Error(`${statement}: ${error}`);
  return (result?.series ?? []).flatMap(({ columns, values }) =>
    values.map((row) => Object.fromEntries(columns.map((column, index) => [column, row[index]]))),
  );
}
