// The kafka sink and a broker that wants to know who it is, or speaks TLS: the forwarder's part, in front of the mock.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { kafka } from "../../src/sinks/kafka.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { makeBatch, openContext } from "../contract/sink.ts";
import { makeCertificates, type Certificates } from "../servers/certificates.ts";
import { startKafka, type KafkaServer } from "../servers/kafka.ts";
import { isInstalled } from "../servers/server.ts";

const never = new AbortController().signal;
let context: SinkContext;
let server: KafkaServer;

const openSink = (settings: Record<string, unknown> = {}): Promise<Sink> => {
  const { sink, given } = kafka({ brokers: [`127.0.0.1:${server.port}`], ...settings });
  return sink.open(sink.settings.parse(given), context);
};

beforeEach(async () => {
  context = await openContext();
});

describe.skipIf(!isInstalled("kcat"))("the kafka sink and a broker that", () => {
  describe("wants a password", () => {
    const sasl = { mechanism: "plain", username: "writer", password: "secret" };
    beforeAll(async () => {
      server = await startKafka({ users: { writer: "secret" } });
    });
    afterAll(() => server[Symbol.asyncDispose]());

    test("takes the right one", async () => {
      await using sink = await openSink({ sasl });
      expect(await sink.write(makeBatch([0, 1, 2]), never)).toEqual({ kind: "all" });
    });

    test("calls a wrong one misconfigured, and does not tell it", async () => {
      const refused = openSink({ sasl: { ...sasl, password: "not-it" } });
      await expect(refused).rejects.toMatchObject({ kind: "misconfigured", message: /check sasl/ });
      await expect(refused).rejects.not.toThrow("not-it");
    });

    test("calls a mechanism misconfigured that it does not have", async () => {
      await expect(openSink({ sasl: { ...sasl, mechanism: "scram-sha-256" } })).rejects.toMatchObject({
        kind: "misconfigured",
        message: /UNSUPPORTED_SASL_MECHANISM.*another sasl\.mechanism/,
      });
    });
  });

  describe("speaks TLS", () => {
    let dir: string;
    let files: Certificates;
    beforeAll(async () => {
      dir = await mkdtemp(join(tmpdir(), "sluice-tls-"));
      files = await makeCertificates(dir);
      server = await startKafka({ tls: files });
    });
    afterAll(async () => {
      await server[Symbol.asyncDispose]();
      await rm(dir, { recursive: true, force: true });
    });

    test.for(["127.0.0.1", "localhost"])("under the name %s", async (host) => {
      const tls = { ca: files.ca, ...files.client };
      await using sink = await openSink({ brokers: [`${host}:${server.port}`], tls });
      expect(await sink.write(makeBatch([0, 1]), never)).toEqual({ kind: "all" });
    });

    test("with a certificate of a stranger", async () => {
      const refused = openSink({ tls: { ca: files.stranger.cert, ...files.client } });
      await expect(refused).rejects.toMatchObject({ kind: "misconfigured", message: /127\.0\.0\.1.*tls\.ca/ });
    });

    test("and wants a certificate", async () => {
      const refused = openSink({ tls: { ca: files.ca } });
      await expect(refused).rejects.toMatchObject({ kind: "misconfigured", message: /tls\.cert and tls\.key/ });
    });

    test("which the sink does not", async () => {
      await expect(openSink()).rejects.toThrow(/127\.0\.0\.1.*tls/);
    });

    test("which it does not, unlike the sink", async () => {
      await using plain = await startKafka();
      const brokers = [`127.0.0.1:${plain.port}`];
      await expect(openSink({ brokers, tls: {} })).rejects.toThrow(/127\.0\.0\.1.*leave tls out/);
    });
  });
});
