// How the postgres sink shows who it is, and how it makes sure whom it talks to.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { env } from "node:process";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { postgres } from "../../src/sinks/postgres/postgres.ts";
import type { Sink } from "../../src/sinks/sink.ts";
import { makeBatch, openContext } from "../contract/sink.ts";
import { makeCertificates, type Certificates } from "../servers/certificates.ts";
import { hasPostgres, startPostgres } from "../servers/postgres.ts";
import type { Server } from "../servers/server.ts";

const never = new AbortController().signal;
let dir: string;
let files: Certificates;
let server: Server;

const access = [
  "local all all trust",
  "hostssl all guarded 127.0.0.1/32 scram-sha-256 clientcert=verify-ca",
  "host all plain 127.0.0.1/32 password",
  "hostssl all all 127.0.0.1/32 scram-sha-256",
];

async function open(settings: object, host = "127.0.0.1"): Promise<Sink> {
  const { sink } = postgres();
  const where = { host, port: server.port, database: "postgres", user: "writer", password: "right ' \\ word" };
  return await sink.open(sink.settings.parse({ ...where, ...settings }), await openContext());
}

describe.skipIf(!hasPostgres())("the postgres sink", () => {
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "sluice-tls-"));
    files = await makeCertificates(dir);
    server = await startPostgres({ tls: files.server, access, authority: files.ca });
    const admin = new Client({ host: server.dir, port: server.port, user: "postgres", database: "postgres" });
    await admin.connect();
    for (const role of ["writer", "guarded", "plain"]) {
      await admin.query(`CREATE ROLE ${role} LOGIN PASSWORD 'right '' \\ word'`);
    }
    await admin.query("GRANT CREATE ON SCHEMA public TO writer");
    await admin.end();
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  test.for(["127.0.0.1", "localhost"])("writes to %s over TLS, with a password", async (host) => {
    await using sink = await open({ tls: { ca: files.ca } }, host);
    expect(await sink.write(makeBatch([0, 1]), never)).toEqual({ kind: "all" });
  });

  test("calls a wrong password misconfigured, and does not tell it", async () => {
    const refused = open({ tls: { ca: files.ca }, password: "not-it" });
    await expect(refused).rejects.toMatchObject({
      kind: "misconfigured",
      message: /database postgres: password authentication failed for user "writer"\. Check user and password/,
    });
    await expect(refused).rejects.not.toThrow("not-it");
  });

  test.for(["writer", "plain"])(
    "as %s says that a password is wanted, and takes none from the environment",
    async (user) => {
      env["PGPASSWORD"] = "right ' \\ word";
      onTestFinished(() => void delete env["PGPASSWORD"]);
      const refused = open({ tls: { ca: files.ca }, user, password: undefined });
      await expect(refused).rejects.toMatchObject({ kind: "misconfigured", message: /password/ });
    },
  );

  test("says that the server wants TLS", async () => {
    await expect(open({})).rejects.toMatchObject({ kind: "misconfigured", message: /no encryption.*give `tls`/ });
  });

  test("does not take a certificate of a stranger, unless it is told to", async () => {
    const stranger = { ca: files.stranger.cert };
    await expect(open({ tls: stranger })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /127\.0\.0\.1.*tls\.ca/,
    });
    await using sink = await open({ tls: { ...stranger, rejectUnauthorized: false } });
    expect(await sink.write(makeBatch([0, 1]), never)).toEqual({ kind: "all" });
  });

  test("shows its own certificate to a server that wants one", async () => {
    await expect(open({ user: "guarded", tls: { ca: files.ca } })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /client certificate/,
    });
    await expect(open({ user: "guarded", tls: { ca: files.ca, ...files.client } })).rejects.toThrow(
      /permission denied/,
    );
  });

  test("says which file is missing", async () => {
    await expect(open({ tls: { ca: join(dir, "none.crt") } })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /none\.crt/,
    });
  });

  test("does not take a certificate for another name, and says that a server speaks no TLS", async () => {
    await using elsewhere = await startPostgres({ tls: files.elsewhere });
    const port = elsewhere.port;
    await expect(open({ port, tls: { ca: files.ca } })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /another name/,
    });
    await using plain = await startPostgres();
    await expect(open({ port: plain.port, tls: {} })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /speaks no TLS/,
    });
  });
});
