// Who the nats sink says it is, and what it may do.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { nkeys } from "@nats-io/transport-node";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { nats } from "../../src/sinks/nats.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { makeBatch, openContext } from "../contract/sink.ts";
import { createTrust } from "../servers/nats-credentials.ts";
import type { Trust } from "../servers/nats-credentials.ts";
import type { Certificate } from "../servers/certificates.ts";
import { makeCertificates } from "../servers/certificates.ts";
import { startNats } from "../servers/nats.ts";
import { isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";

const never = new AbortController().signal;
const user = nkeys.createUser();
const writer = { username: "writer", password: "secret" };
const create = { subjects: ["telemetry.>"] };

let users: Server;
let context: SinkContext;

const openSink = (settings: Record<string, unknown>, { port } = users): Promise<Sink> => {
  const { sink, given } = nats({ servers: [`nats://127.0.0.1:${port}`], ...settings });
  return sink.open(sink.settings.parse(given), context);
};

async function writeOne(settings: Record<string, unknown>, at?: Server): Promise<unknown> {
  await using sink = await openSink(settings, at);
  return await sink.write(makeBatch([0, 1, 2]), never);
}

async function file(name: string, text: string): Promise<string> {
  const path = join(context.dataDir, name);
  await writeFile(path, text);
  return path;
}

const close = (sink: Sink): PromiseLike<void> => sink[Symbol.asyncDispose]();
const toLines = ({ cert, key }: Certificate): readonly string[] => [`tls { cert_file: "${cert}", key_file: "${key}" }`];
const seedOf = (key: ReturnType<typeof nkeys.createUser>): string => Buffer.from(key.getSeed()).toString();

describe.skipIf(!isInstalled("nats-server"))("the nats sink", () => {
  beforeAll(async () => {
    users = await startNats({
      lines: [
        "accounts { APP { jetstream: enabled, users: [",
        `  { user: ${writer.username}, password: ${writer.password} }`,
        `  { nkey: ${user.getPublicKey()} }`,
        `  { user: poor, password: secret, permissions: { publish: [ "telemetry.climate.device-0", "$JS.>" ] } }`,
        `  { user: writes, password: secret, permissions: { publish: [ "telemetry.>", other ], subscribe: [ "_INBOX.>" ] } }`,
        `  { user: deaf, password: secret, permissions: { subscribe: [ "replies.sluice.>" ] } }`,
        "] }, PLAIN { users: [ { user: plain, password: secret } ] } }",
      ],
    });
  });
  afterAll(async () => {
    await users[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    context = await openContext();
    await using _makesTheStream = await openSink({ ...writer, stream: "TELEMETRY", create });
  });

  test.for([{}, { ...writer, password: "not-it" }, { username: "nobody" }, { token: "not-it" }])(
    "calls the credentials %j misconfigured, and does not tell them",
    async (credentials) => {
      const refused = openSink(credentials);
      const said = { kind: "misconfigured", message: /\/\/127.*Authorization Violation.*check token, username/ };
      await expect(refused).rejects.toMatchObject(said);
      await expect(refused).rejects.not.toThrow("not-it");
    },
  );

  test("says who it is with a token", async () => {
    await using server = await startNats({ lines: [`authorization { token: "s3cret" }`] });
    expect(await writeOne({ token: "s3cret", stream: "TELEMETRY", create }, server)).toEqual({ kind: "all" });
    await expect(openSink({ token: "s3cre" }, server)).rejects.toMatchObject({ kind: "misconfigured" });
  });

  test("says who it is with an NKey", async () => {
    expect(await writeOne({ nkey: await file("own.nk", `${seedOf(user)}\n`) })).toEqual({ kind: "all" });
    const nkey = await file("stranger.nk", seedOf(nkeys.createUser()));
    await expect(openSink({ nkey })).rejects.toMatchObject({ kind: "misconfigured" });
  });

  test.for(["nkey", "credentials"])("says that the file of %s is missing or something else", async (setting) => {
    await expect(openSink({ [setting]: join(context.dataDir, "none") })).rejects.toMatchObject({
      kind: "misconfigured",
      message: new RegExp(`${setting} cannot be read.*none`),
    });
    const opened = openSink({ [setting]: await file("wrong", seedOf(user).slice(0, -3)) });
    await expect(opened).rejects.toMatchObject({ kind: "misconfigured", message: /wrong/ });
    await expect(opened).rejects.not.toThrow("SU");
  });

  test("writes nothing to a subject that its user may not publish to", async () => {
    await expect(writeOne({ username: "poor", password: "secret" })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /Permissions Violation.*allowed to publish to telemetry\.climate\.device-1/,
    });
  });

  test("says that JetStream is not enabled for the account", async () => {
    const plain = { username: "plain", password: "secret" };
    const misconfigured = { kind: "misconfigured", message: /JetStream (?:is )?not enabled.*account of this user/i };
    await expect(writeOne(plain)).rejects.toMatchObject(misconfigured);
    await expect(openSink({ ...plain, stream: "TELEMETRY", create })).rejects.toMatchObject(misconfigured);
  });

  test("says so when its user may not ask whether there is a stream", async () => {
    await expect(writeOne({ username: "writes", password: "secret", subject: "other" })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /No JetStream stream takes the subject other, or.*STREAM\.NAMES/,
    });
  });

  test("needs no other rights than to publish and to hear the acknowledgements", async () => {
    const settings = { username: "writes", password: "secret" };
    expect(await writeOne({ ...settings, stream: "TELEMETRY" })).toEqual({ kind: "all" });
    await expect(writeOne({ ...settings, subject: "telemetry" })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /allowed to publish to telemetry/,
    });
    await expect(openSink({ ...settings, stream: "OTHER", create })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /allowed to publish to \$JS\.API\.STREAM\.INFO\.OTHER/,
    });
  });

  test("hears the acknowledgements where its user may", async () => {
    const settings = { username: "deaf", password: "secret" };
    await expect(writeOne(settings)).rejects.toMatchObject({
      kind: "misconfigured",
      message: /allowed to subscribe to _INBOX\.>.*inboxPrefix/,
    });
    expect(await writeOne({ ...settings, inboxPrefix: "replies.sluice" })).toEqual({ kind: "all" });
  });

  test("wants TLS when it is told to, and the certificate of the address that it was given", async () => {
    const { stranger, elsewhere, ca } = await makeCertificates(context.dataDir);
    const tls = { ca: stranger.cert };
    await expect(openSink({ ...writer, tls })).rejects.toMatchObject({ kind: "misconfigured", message: /no TLS/ });
    const settings = { subject: "telemetry", stream: "TELEMETRY", create: { subjects: ["telemetry"] } };
    // Its only name is 127.0.0.1.
    await using own = await startNats({ lines: toLines(stranger) });
    expect(await writeOne({ ...settings, tls }, own)).toEqual({ kind: "all" });
    await expect(openSink(settings, own)).rejects.toMatchObject({ kind: "misconfigured", message: /tls\.ca/ });
    await using other = await startNats({ lines: toLines(elsewhere) });
    await expect(openSink({ ...settings, tls: { ca } }, other)).rejects.toMatchObject({
      kind: "misconfigured",
      message: /another name/,
    });
  });

  describe("with credentials of an operator", () => {
    let trust: Trust;
    let server: Server;
    beforeAll(async () => {
      trust = createTrust();
      server = await startNats({ lines: trust.lines });
    });
    afterAll(async () => {
      await server[Symbol.asyncDispose]();
    });

    test("says who it is", async () => {
      const credentials = await file("own.creds", trust.issue());
      expect(await writeOne({ credentials, stream: "TELEMETRY", create }, server)).toEqual({ kind: "all" });
      const stranger = await file("stranger.creds", createTrust().issue());
      await expect(openSink({ credentials: stranger }, server)).rejects.toMatchObject({ kind: "misconfigured" });
    });

    test("says that they have expired", async () => {
      const expires = Math.floor(Date.now() / 1_000) + 2;
      const credentials = await file("short.creds", trust.issue(expires));
      await using sink = await openSink({ credentials }, server);
      const written = (): Promise<unknown> => sink.write(makeBatch([0]), never).catch(String);
      await expect.poll(written, { timeout: 10_000 }).toMatch(/expired.*renew/);
      // For the rest of the second the server takes new connections.
      const opened = (): Promise<unknown> => openSink({ credentials }, server).then(close, (cause: unknown) => cause);
      await expect.poll(opened, { timeout: 10_000 }).toMatchObject({ kind: "misconfigured" });
    });
  });
});
