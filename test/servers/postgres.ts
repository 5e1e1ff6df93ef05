// PostgreSQL from Debian, in a folder of its own, on a port and on a Unix domain socket in that folder. Without fsync: a process that is killed
// leaves to the system what it has written, and only the recovery would take longer.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { chmod, chown, copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { getuid, kill } from "node:process";
import { promisify } from "node:util";
import { Client, type ClientConfig } from "pg";
import type { Certificate } from "./certificates.ts";
import { isInstalled, startServer, type Server } from "./server.ts";

const run = promisify(execFile);

/** Debian keeps the programs of each version in a folder of its own, off the PATH. */
const VERSIONS = "/usr/lib/postgresql";

export const hasPostgres = (): boolean => isInstalled(`postgres || ls ${VERSIONS}/*/bin/postgres`);

async function findPrograms(): Promise<string> {
  const versions = await readdir(VERSIONS).catch(() => []);
  const [newest] = versions.toSorted((a, b) => Number(b) - Number(a));
  return newest === undefined ? "" : join(VERSIONS, newest, "bin/");
}

export interface PostgresOptions {
  /** As in postgresql.conf: "max_connections=10". */
  readonly settings?: readonly string[];
  /** With it the server speaks TLS, also. */
  readonly tls?: Certificate;
  /** PEM file of the authorities that may have signed a client's certificate. */
  readonly authority?: string;
  /** Lines of pg_hba.conf; by default everybody is trusted. */
  readonly access?: readonly string[];
}

/** The superuser is postgres. */
export async function startPostgres({ settings = [], tls, access, authority }: PostgresOptions = {}): Promise<Server> {
  const programs = await findPrograms();
  const user = await findUser();
  const given = [
    "listen_addresses=127.0.0.1",
    "shared_buffers=32MB",
    "fsync=off",
    ...(tls === undefined ? [] : ["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"]),
    ...(authority === undefined ? [] : ["ssl_ca_file=ca.crt"]),
    ...settings,
  ];
  const server = await startServer({
    command: `${programs}postgres`,
    args: ({ dir, port }) => [
      "-D",
      join(dir, "data"),
      "-k",
      dir,
      "-p",
      `${port}`,
      ...given.flatMap((one) => ["-c", one]),
    ],
    ...(user !== undefined && { user }),
    async prepare({ dir }) {
      const data = join(dir, "data");
      const give = (path: string): Promise<void> => chown(path, user?.uid ?? -1, user?.gid ?? -1);
      await mkdir(data);
      await give(dir);
      await give(data);
      await run(`${programs}initdb`, ["-D", data, "-U", "postgres", "-A", "trust", "-N"], user ?? {});
      if (access !== undefined) await writeFile(join(data, "pg_hba.conf"), `${access.join("\n")}\n`);
      if (authority !== undefined) await copyFile(authority, join(data, "ca.crt"));
      if (tls === undefined) return;
      await copyFile(tls.cert, join(data, "server.crt"));
      await copyFile(tls.key, join(data, "server.key"));
      await chmod(join(data, "server.key"), 0o600);
      await give(join(data, "server.key"));
    },
    async probe({ port }) {
      const client = new Client(reach(port));
      client.on("error", () => {});
      // A server that lets nobody in answers too.
      await client.connect().catch((cause: unknown) => {
        if (!/pg_hba|password|SASL/.test(String(cause))) throw cause;
      });
      await client.end();
    },
  });
  return {
    ...server,
    start: () => startAgain(server),
    freeze: () => signalAll(server, "SIGSTOP"),
    thaw: () => signalAll(server, "SIGCONT"),
  };
}

/** Each connection has a process of its own, a child of the one that listens. */
function signalAll({ dir }: Server, signal: "SIGSTOP" | "SIGCONT"): void {
  const [pid = ""] = readFileSync(join(dir, "data/postmaster.pid"), "utf8").split("\n");
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ");
  for (const one of [pid, ...children].filter((text) => text !== "")) kill(Number(one), signal);
}

/**
 * After SIGKILL of the postmaster its other processes go on for a moment, and no new one may start until they have noticed;
 * then it may take its time to recover.
 */
async function startAgain(server: Server): Promise<void> {
  for (;;) {
    try {
      return await server.start();
    } catch (cause) {
      if (!/still in use|not yet accepting|starting up/.test(String(cause))) throw cause;
    }
  }
}

const reach = (port: number): ClientConfig => ({
  host: "127.0.0.1",
  port,
  user: "postgres",
  password: "none",
  database: "postgres",
  connectionTimeoutMillis: 1_000,
});

/** PostgreSQL does not run as root: then as the user that Debian has made for it. */
async function findUser(): Promise<{ readonly uid: number; readonly gid: number } | undefined> {
  if (getuid?.() !== 0) return undefined;
  const lines = (await readFile("/etc/passwd", "utf8")).split("\n");
  const [, , uid, gid] = lines.find((line) => line.startsWith("postgres:"))?.split(":") ?? [];
  if (uid === undefined) throw new Error("PostgreSQL does not run as root, and there is no user postgres");
  return { uid: Number(uid), gid: Number(gid) };
}
