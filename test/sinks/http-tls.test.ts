// The http client over TLS, as the http sink has it.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { http } from "../../src/sinks/http.ts";
import { makeBatch, openContext } from "../contract/sink.ts";
import { makeCertificates } from "../servers/certificates.ts";
import type { Certificate, Certificates } from "../servers/certificates.ts";
import { startReceiver } from "../servers/receiver.ts";
import type { Receiver } from "../servers/receiver.ts";
import { isInstalled } from "../servers/server.ts";

const never = new AbortController().signal;
const { sink: type } = http({ url: "" });

const startTls = async ({ cert, key }: Certificate, ca?: string): Promise<Receiver> =>
  startReceiver({
    cert: await readFile(cert),
    key: await readFile(key),
    ...(ca !== undefined && { ca: await readFile(ca), requestCert: true, rejectUnauthorized: true }),
  });

const write = async (url: string, tls: object): Promise<unknown> => {
  await using sink = await type.open(type.settings.parse({ url, tls }), await openContext());
  return await sink.write(makeBatch([0]), never);
};

describe.skipIf(!isInstalled("openssl"))("the http sink over TLS", () => {
  let dir: string;
  let files: Certificates;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "sluice-tls-"));
    files = await makeCertificates(dir);
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  test("writes to a server that wants a certificate, and says so when it has none", async () => {
    await using server = await startTls(files.server, files.ca);
    expect(await write(server.url, { ca: files.ca, ...files.client })).toEqual({ kind: "all" });
    await expect(write(server.url, { ca: files.ca })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /tls\.cert and tls\.key/,
    });
  });

  test.for([
    ["stranger", /tls\.ca/],
    ["elsewhere", /another name/],
    ["expired", /expired/],
  ] as const)("does not take the certificate of %s", async ([name, said]) => {
    await using server = await startTls(files[name]);
    await expect(write(server.url, { ca: files.ca })).rejects.toMatchObject({ kind: "misconfigured", message: said });
    expect(server.requests).toEqual([]);
    expect(await write(server.url, { rejectUnauthorized: false })).toEqual({ kind: "all" });
  });

  test("says that a server speaks no TLS", async () => {
    await using server = await startReceiver();
    await expect(write(server.url.replace("http:", "https:"), {})).rejects.toMatchObject({
      kind: "misconfigured",
      message: /speaks no TLS/,
    });
  });

  test("says which file is missing when it is opened", async () => {
    const settings = type.settings.parse({ url: "https://127.0.0.1", tls: { ca: join(dir, "none.crt") } });
    await expect(type.open(settings, await openContext())).rejects.toMatchObject({
      kind: "misconfigured",
      message: /none\.crt/,
    });
  });
});
