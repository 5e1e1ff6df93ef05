// A certificate that nobody has signed, against a broker that asks for certificates and against one that takes any.

import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect, createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { badCertificate, signItself } from "../../../devices-sim/faults/bad-certificate.ts";
import type { Link } from "../../../devices-sim/faults/fault.ts";
import { createRandom } from "../../../devices-sim/random.ts";
import { makeCertificates } from "../../servers/certificates.ts";
import { startMosquitto } from "../../servers/mosquitto.ts";
import { isInstalled, type Server } from "../../servers/server.ts";
import { options } from "../fixtures.ts";

const read = (path: string) => readFile(path, "utf8");

let dir: string;
let files: Readonly<Record<string, string>>;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "sluice-certificates-"));
  const { ca, server } = await makeCertificates(dir);
  files = { "ca.crt": await read(ca), "server.crt": await read(server.cert), "server.key": await read(server.key) };
});

afterAll(() => rm(dir, { recursive: true }));

/** Mosquitto with TLS; `asks`: whether it wants a certificate that its authority has signed. */
const startWithTls = (asks: boolean): Promise<Server> =>
  startMosquitto({
    files,
    lines: ["certfile server.crt", "keyfile server.key", "cafile ca.crt", `require_certificate ${asks}`],
  });

/** Lets the fault happen until the broker closes the connection, or until it does what it must not; resolves to that. */
async function happen(server: Server): Promise<readonly string[]> {
  const surprises: string[] = [];
  const { promise: over, resolve } = Promise.withResolvers<void>();
  const between = createServer((socket) => {
    const upstream = connect(server.port, server.host);
    pipeline(socket, upstream, socket, () => {});
    upstream.on("close", resolve);
  }).listen(0, "127.0.0.1");
  await once(between, "listening");
  const link = {
    identity: { device: "sim-000001" },
    options: options((between.address() as AddressInfo).port),
    surprise(text: string) {
      surprises.push(text);
      resolve();
    },
  } as unknown as Link;
  const end = badCertificate.begin(link, createRandom(1));
  await over;
  end(false);
  between.close();
  return surprises;
}

test("it is a certificate with its own signature", () => {
  const { cert, key } = signItself("sim-1");
  const certificate = new X509Certificate(cert);
  expect(certificate.subject).toBe("CN=sim-1");
  expect(certificate.verify(certificate.publicKey)).toBe(true);
  expect(key).toContain("PRIVATE KEY");
});

test("a broker that asks for certificates does not let it in", async ({ skip }) => {
  if (!isInstalled("mosquitto")) skip("mosquitto is missing: install Debian's mosquitto");
  await using server = await startWithTls(true);
  expect(await happen(server)).toEqual([]);
});

test("a broker that takes any is told of", async ({ skip }) => {
  if (!isInstalled("mosquitto")) skip("mosquitto is missing: install Debian's mosquitto");
  await using server = await startWithTls(false);
  expect(await happen(server)).toEqual(["the broker accepted a certificate that nobody has signed"]);
});
