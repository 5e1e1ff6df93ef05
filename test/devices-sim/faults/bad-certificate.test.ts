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
import { openFleet } from "../../../devices-sim/fleet.ts";
import { createRandom } from "../../../devices-sim/random.ts";
import { makeCertificates, type Certificates } from "../../servers/certificates.ts";
import { startMosquitto } from "../../servers/mosquitto.ts";
import { findPort, isInstalled, type Server } from "../../servers/server.ts";
import { options } from "../fixtures.ts";

const read = (path: string) => readFile(path, "utf8");

let dir: string;
let certificates: Certificates;
let files: Readonly<Record<string, string>>;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "sluice-certificates-"));
  certificates = await makeCertificates(dir);
  const { ca, server } = certificates;
  files = { "ca.crt": await read(ca), "server.crt": await read(server.cert), "server.key": await read(server.key) };
});

afterAll(() => rm(dir, { recursive: true }));

/** What a listener of Mosquitto needs for TLS; `asks`: whether it wants a certificate that its authority has signed. */
const tlsLines = (asks: boolean): readonly string[] => [
  "certfile server.crt",
  "keyfile server.key",
  "cafile ca.crt",
  `require_certificate ${asks}`,
];

const startWithTls = (asks: boolean, more: readonly string[] = []): Promise<Server> =>
  startMosquitto({ files, lines: [...tlsLines(asks), ...more] });

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

test.for(["mqtts", "wss"])("%s: faults of connections go their way through TLS", async (transport, { skip }) => {
  if (!isInstalled("mosquitto")) skip("mosquitto is missing: install Debian's mosquitto");
  const webPort = await findPort();
  await using server = await startWithTls(true, [`listener ${webPort}`, "protocol websockets", ...tlsLines(true)]);
  const port = transport === "wss" ? webPort : server.port;
  const { ca, client } = certificates;
  const tls = ["--url", `${transport}://127.0.0.1:${port}`, "--ca", ca, "--cert", client.cert, "--key", client.key];
  const names = ["reset:1:300ms", "half-open:1:300ms:300ms", "takeover:1:300ms:300ms", "bad-certificate:1:300ms:300ms"];
  const faults = [...names, "reconnect-storm:1:700ms"].flatMap((fault) => ["--fault", fault]);
  const pace = ["--devices", "2", "--threads", "1", "--ramp", "10ms", "--rate", "20", "--reconnect", "50ms"];
  await using fleet = openFleet(options(port, ...tls, ...pace, ...faults, "--duration", "8s", "--seed", "4"));
  const ending = await fleet.ended;
  expect(ending).toMatchObject({ kind: "finished", summary: { unacknowledged: 0, neverConnected: 0 } });
  if (ending.kind !== "finished") return;
  expect(Object.keys(ending.summary.faults).sort()).toEqual(
    ["bad-certificate", "half-open", "reconnect-storm", "reset", "takeover"].sort(),
  );
  expect(ending.summary.errors).not.toHaveProperty("fault");
});
