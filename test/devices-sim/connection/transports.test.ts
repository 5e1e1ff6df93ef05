import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "mqtt";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openFleet, type Ending } from "../../../devices-sim/fleet.ts";
import { parseOptions, type SimOptions } from "../../../devices-sim/options.ts";
import { makeCertificates, type Certificates } from "../../servers/certificates.ts";
import { startMosquitto } from "../../servers/mosquitto.ts";
import { findPort, isInstalled, type Server } from "../../servers/server.ts";
import { openBroker } from "../fixtures.ts";

function sim(...args: readonly string[]): SimOptions {
  const parsed = parseOptions(args);
  if (parsed.kind !== "run") throw new Error(parsed.text);
  return parsed.sim;
}

/** A run of three devices that send two messages each. */
async function run(...args: readonly string[]): Promise<Ending> {
  const quick = ["--count", "2", "--rate", "50", "--ramp", "10ms", "--invalid", "0", "--reconnect", "200ms"];
  await using fleet = openFleet(sim("--devices", "3", ...quick, ...args));
  return await fleet.ended;
}

const complete = { kind: "finished", summary: { acknowledged: 6, unacknowledged: 0, neverConnected: 0, errors: {} } };

/** How often each topic was published to, as a subscriber without TLS sees it. */
async function watch(port: number): Promise<AsyncDisposable & { readonly seen: Readonly<Record<string, number>> }> {
  const seen: Record<string, number> = {};
  const client = connect({ host: "127.0.0.1", port, protocol: "mqtt", username: "watch", password: "w" });
  client.on("message", (topic) => {
    seen[topic] = (seen[topic] ?? 0) + 1;
  });
  await client.subscribeAsync("#", { qos: 1 });
  return { seen, [Symbol.asyncDispose]: () => client.endAsync(true) };
}

const topicsOf = (...devices: readonly string[]): Record<string, number> =>
  Object.fromEntries(devices.map((device) => [`devices/${device}/telemetry`, 2]));

describe.skipIf(!isInstalled("mosquitto"))("Mosquitto (apt-get install mosquitto)", () => {
  const ports = { tls: 0, client: 0, ws: 0, wss: 0 };
  let dir: string;
  let certificates: Certificates;
  let server: Server;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "sluice-transports-"));
    certificates = await makeCertificates(dir);
    for (const device of ["sim-000001", "sim-000002", "sim-000003"]) await certificates.issue(device);
    for (const name of ["tls", "client", "ws", "wss"] as const) ports[name] = await findPort();
    const identity = [`certfile ${certificates.server.cert}`, `keyfile ${certificates.server.key}`];
    const asked = [`cafile ${certificates.ca}`, "require_certificate true", "use_identity_as_username true"];
    const lines = [
      [`listener ${ports.tls} 127.0.0.1`, ...identity],
      [`listener ${ports.client} 127.0.0.1`, ...identity, ...asked],
      [`listener ${ports.ws}`, "protocol websockets"],
      [`listener ${ports.wss}`, "protocol websockets", ...identity],
    ].flat();
    // Everybody may say what he likes on the other listeners; who is a certificate may only speak for himself.
    server = await startMosquitto({
      lines: ["acl_file acl", ...lines],
      files: { acl: "topic readwrite #\nuser watch\ntopic read #\npattern write devices/%u/#\n" },
    });
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  test.each(["tls", "ws", "wss"] as const)("devices come by %s, with MQTT 3.1.1 and 5", async (name) => {
    const url = {
      tls: `mqtts://127.0.0.1:${ports.tls}`,
      ws: `ws://127.0.0.1:${ports.ws}/mqtt`,
      wss: `wss://127.0.0.1:${ports.wss}/`,
    };
    const trust = name === "ws" ? [] : ["--ca", certificates.ca];
    await using watched = await watch(server.port);
    for (const [protocol, qos] of [
      ["3.1.1", "1"],
      ["5", "2"],
    ] as const) {
      expect(await run("--url", url[name], ...trust, "--protocol", protocol, "--qos", qos)).toMatchObject(complete);
    }
    const twice = Object.fromEntries(
      Object.keys(topicsOf("sim-000001", "sim-000002", "sim-000003")).map((topic) => [topic, 4]),
    );
    await expect.poll(() => watched.seen).toEqual(twice);
  });

  test("each device has a certificate of its own, and Mosquitto knows it by that", async () => {
    const url = ["--url", `mqtts://localhost:${ports.client}`, "--ca", certificates.ca];
    await using watched = await watch(server.port);
    const own = ["--cert", join(dir, "{device}.crt"), "--key", join(dir, "{device}.key")];
    expect(await run(...url, ...own)).toMatchObject(complete);
    await expect.poll(() => watched.seen).toEqual(topicsOf("sim-000001", "sim-000002", "sim-000003"));
  });

  test("without a certificate, or with that of a stranger, the run ends and says which option is wrong", async () => {
    const url = ["--url", `mqtts://127.0.0.1:${ports.client}`, "--ca", certificates.ca];
    const { cert, key } = certificates.stranger;
    for (const args of [[], ["--cert", cert, "--key", key]]) {
      expect(await run(...url, ...args)).toMatchObject({
        kind: "certificate-refused",
        detail: expect.stringContaining("--cert and --key"),
      });
    }
  });

  test("a broker whose certificate nobody vouches for, or that has another name, is refused at once", async () => {
    const url = ["--url", `mqtts://127.0.0.1:${ports.tls}`];
    const refused = { kind: "certificate-refused", detail: expect.stringContaining("--ca") };
    expect(await run(...url)).toMatchObject(refused);
    expect(await run("--url", `wss://127.0.0.1:${ports.wss}`)).toMatchObject(refused);
    expect(await run(...url, "--ca", certificates.ca, "--servername", "elsewhere.example")).toMatchObject({
      kind: "certificate-refused",
      detail: expect.stringContaining("--servername"),
    });
    expect(await run(...url, "--insecure")).toMatchObject(complete);
  });

  test.each(["mqtts", "ws", "wss"])(
    "a port for mqtt is none for %s: the run ends with what is known",
    async (scheme) => {
      const ending = await run("--url", `${scheme}://127.0.0.1:${server.port}`, "--give-up", "500ms");
      expect(ending).toMatchObject({
        kind: "unreachable",
        detail: expect.stringMatching(/ECONNRESET|socket hang up|closed the connection before it answered/),
      });
    },
  );
});

test("a web server that is no broker is told by its answer", async () => {
  const server = createServer((_request, response) => response.writeHead(404).end()).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const ending = await run("--url", `ws://127.0.0.1:${port}/mqtt`, "--give-up", "500ms");
  expect(ending).toMatchObject({ kind: "unreachable", detail: expect.stringContaining("404") });
  server.close();
});

test.skipIf(!isInstalled("mosquitto"))(
  "the devices of a file come with their own passwords; a wrong one is told by its device",
  async () => {
    await using server = await startMosquitto({ users: { "plant-a": 's,e"cret', "plant-b": "two", watch: "w" } });
    await using watched = await watch(server.port);
    const path = join(server.dir, "devices.csv");
    const url = ["--url", `mqtt://127.0.0.1:${server.port}`, "--credentials", path];
    await writeFile(
      path,
      'device,username,password\npump-1,plant-a,"s,e""cret"\npump-2,plant-b,two\npump-3,plant-b,two\n',
    );
    expect(await run(...url)).toMatchObject(complete);
    await expect.poll(() => watched.seen).toEqual(topicsOf("pump-1", "pump-2", "pump-3"));
    await writeFile(
      path,
      "device,username,password\npump-1,plant-a,wrong\npump-2,plant-b,wrong\npump-3,plant-b,wrong\n",
    );
    expect(await run(...url)).toMatchObject({ kind: "credentials-refused", detail: expect.stringContaining("pump-") });
  },
);

test("devices come from the addresses in turn, whatever their threads", async () => {
  await using broker = await openBroker();
  const from = new Map<string, string | undefined>();
  broker.aedes.on("client", (client) => {
    const { remoteAddress } = client.conn as { readonly remoteAddress?: string };
    from.set(client.id, remoteAddress);
  });
  const url = ["--url", `mqtt://127.0.0.1:${broker.port}`, "--source", "127.0.0.2,127.9.0.0/30"];
  expect(await run(...url, "--devices", "5", "--threads", "2")).toMatchObject({ summary: { acknowledged: 10 } });
  expect(Object.fromEntries(from)).toEqual({
    "sim-000001": "127.0.0.2",
    "sim-000002": "127.9.0.1",
    "sim-000003": "127.9.0.2",
    "sim-000004": "127.0.0.2",
    "sim-000005": "127.9.0.1",
  });
});

test("an address that is none of this machine is told with the option", async () => {
  await using broker = await openBroker();
  const url = ["--url", `mqtt://127.0.0.1:${broker.port}`, "--source", "192.0.2.1", "--give-up", "1s"];
  expect(await run(...url)).toMatchObject({ kind: "unreachable", detail: expect.stringContaining("--source") });
});

test("with the same seed and clock each device sends the same bytes in the same order, also over broken connections", async () => {
  const runs: string[][] = [];
  for (const threads of ["1", "2"]) {
    await using broker = await openBroker();
    if (threads === "2") {
      // Its acknowledgement is lost: the device sends it again.
      broker.aedes.once("publish", () => broker.cut());
    }
    const exact = [
      "--seed",
      "7",
      "--clock",
      "2026-01-01T00:00:00Z",
      "--invalid",
      "0.3",
      "--count",
      "20",
      "--threads",
      threads,
    ];
    expect(await run("--url", `mqtt://127.0.0.1:${broker.port}`, ...exact)).toMatchObject({ summary: { skipped: 0 } });
    const sent = new Set(broker.arrivals.map(({ topic, payload }) => `${topic} ${payload}`));
    runs.push([...sent].toSorted((a, b) => (a.slice(0, 28) < b.slice(0, 28) ? -1 : 1)));
  }
  expect(runs[0]).toHaveLength(60);
  expect(runs[1]).toEqual(runs[0]);
});
