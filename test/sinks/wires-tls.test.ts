// The sinks that keep a connection of their own, over TLS: redis, mqtt and nats.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { mqtt } from "../../src/sinks/mqtt.ts";
import { nats } from "../../src/sinks/nats.ts";
import { redis } from "../../src/sinks/redis.ts";
import type { Sink, SinkDefinition } from "../../src/sinks/sink.ts";
import { makeBatch, openContext } from "../contract/sink.ts";
import { makeCertificates, type Certificates } from "../servers/certificates.ts";
import { startMosquitto } from "../servers/mosquitto.ts";
import { startNats } from "../servers/nats.ts";
import { startRedis } from "../servers/redis.ts";
import { isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";

const never = new AbortController().signal;
let dir: string;
let files: Certificates;

interface Kind {
  readonly name: string;
  readonly program: string;
  readonly protocol: string;
  readonly make: (settings: { readonly url: string }) => SinkDefinition;
  readonly start: (files: Certificates) => Promise<Server>;
}

const kinds: readonly Kind[] = [
  { name: "redis", program: "redis-server", protocol: "rediss", make: redis, start: startRedis },
  {
    name: "mqtt",
    program: "mosquitto",
    protocol: "mqtts",
    make: mqtt,
    start: ({ ca, server: { cert, key } }) =>
      startMosquitto({
        lines: [`cafile ${ca}`, `certfile ${cert}`, `keyfile ${key}`, "require_certificate true"],
      }),
  },
  {
    name: "nats",
    program: "nats-server",
    protocol: "tls",
    make: ({ url, ...tls }) => nats({ servers: [url], ...tls, stream: "TELEMETRY", create: {} }),
    start: ({ ca, server: { cert, key } }) =>
      startNats({ lines: [`tls { ca_file: "${ca}", cert_file: "${cert}", key_file: "${key}", verify: true }`] }),
  },
];

async function openSink({ sink, given }: SinkDefinition): Promise<Sink> {
  return await sink.open(sink.settings.parse(given), await openContext());
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "sluice-tls-"));
  files = await makeCertificates(dir);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe.for(kinds)("the $name sink over TLS", ({ program, protocol, make, start }) => {
  let server: Server;
  const open = (tls: object, host = "127.0.0.1"): Promise<Sink> =>
    openSink(make({ url: `${protocol}://${host}:${server.port}`, tls } as { readonly url: string }));

  describe.skipIf(!isInstalled(program))("with a server that wants certificates", () => {
    beforeAll(async () => {
      server = await start(files);
    });
    afterAll(async () => {
      await server[Symbol.asyncDispose]();
    });

    test.for(["127.0.0.1", "localhost"])("writes to %s", async (host) => {
      await using sink = await open({ ca: files.ca, ...files.client }, host);
      expect(await sink.write(makeBatch([0, 1]), never)).toEqual({ kind: "all" });
    });

    test("does not take a certificate of a stranger, unless it is told to", async () => {
      const stranger = { ca: files.stranger.cert, ...files.client };
      await expect(open(stranger)).rejects.toMatchObject({ kind: "misconfigured", message: /127\.0\.0\.1.*tls\.ca/ });
      await using sink = await open({ ...stranger, rejectUnauthorized: false });
      expect(await sink.write(makeBatch([0, 1]), never)).toEqual({ kind: "all" });
    });

    test("does not take a certificate for another name", async () => {
      await expect(open({ ca: files.ca, ...files.client }, "127.0.0.2")).rejects.toThrow(/ECONNREFUSED|another name/);
    });

    test("says that the server wants a certificate", async () => {
      const opened = open({ ca: files.ca }).then((sink) => sink.write(makeBatch([0]), never));
      await expect(opened).rejects.toMatchObject({ kind: "misconfigured", message: /tls\.cert and tls\.key/ });
    });

    test("says which file is missing", async () => {
      await expect(open({ ca: join(dir, "none.crt") })).rejects.toMatchObject({
        kind: "misconfigured",
        message: /none\.crt/,
      });
    });
  });
});

test.skipIf(!isInstalled("mosquitto"))("a server without TLS ends the connection, and is named", async () => {
  await using server = await startMosquitto();
  for (const [make, protocol] of [
    [redis, "rediss"],
    [mqtt, "mqtts"],
  ] as const) {
    const url = `${protocol}://127.0.0.1:${server.port}`;
    await expect(openSink(make({ url }))).rejects.toThrow(url);
  }
});
