// P2, P3: the gateway and the servers of its sinks are killed in turn, under load and at any instant. What was acknowledged is in
// every one of them exactly once, in order per device.

import { join } from "node:path";
import { env } from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { createClient } from "@redis/client";
import { Client } from "pg";
import { expect, onTestFinished } from "vitest";
import { createRandom } from "../../devices-sim/random.ts";
import { test } from "../fixtures.ts";
import { type GatewayProcess, startGateway, type StartOptions } from "../gateway-process.ts";
import { hasPostgres, startPostgres } from "../servers/postgres.ts";
import { startRedis } from "../servers/redis.ts";
import { findPort, isInstalled, type Server } from "../servers/server.ts";
import { checkSequences, checkSink, type Sequences, toSequences } from "./crash/check.ts";
import { fleetConfig } from "./crash/config.ts";
import { openFleet, type Fleet } from "./crash/fleet.ts";
import { broken, formatResult, type CrashFindings } from "./crash/report.ts";
import { caughtUp } from "./observe.ts";

/** Fifty, SLUICE_SINK_KILLS=50, are for a person who wants to know. */
const KILLS = Number(env["SLUICE_SINK_KILLS"] ?? 8);
/** A life ends when it has given so many acknowledgements at most. */
const LONGEST_LIFE = 2_000;
const LONGEST_DOWN_MS = 500;
/** A life is longer than its sinks take to start; else it may end while they do. */
const SETTLED_CHANCE = 0.75;
const soon = "retry: { minimumMs: 20, maximumMs: 200 }";

/** A sink and the server that it writes to. */
interface Destination {
  readonly name: string;
  readonly server: Server;
  /** The sink's call in the configuration. */
  readonly call: string;
  read(): Promise<Sequences>;
}

async function startDestinations(): Promise<readonly Destination[]> {
  const stack = new AsyncDisposableStack();
  onTestFinished(() => stack.disposeAsync());
  return [toPostgres(stack.use(await startPostgres())), toRedis(stack.use(await startRedis()))];
}

function toPostgres(server: Server): Destination {
  const { host, port } = server;
  return {
    name: "postgres",
    server,
    call: `postgres({ host: "${host}", port: ${port}, user: "postgres", database: "postgres", ${soon} })`,
    async read() {
      const client = new Client({ host, port, user: "postgres", database: "postgres" });
      await client.connect();
      const { rows } = await client.query<Record<string, unknown>>(
        `SELECT device, data ->> 'seq' AS seq FROM readings ORDER BY "offset"`,
      );
      await client.end();
      return toSequences(rows);
    },
  };
}

function toRedis(server: Server): Destination {
  const url = `redis://127.0.0.1:${server.port}`;
  return {
    name: "redis",
    server,
    call: `redis({ url: "${url}", key: "telemetry", ${soon} })`,
    async read() {
      const client = createClient({ url });
      await client.connect();
      const found = (await client.xRange("telemetry", "-", "+")) ?? [];
      client.destroy();
      return toSequences(
        found.map(({ message: { device, data } }) => ({
          device,
          seq: (JSON.parse(String(data)) as { readonly seq: number }).seq,
        })),
      );
    },
  };
}

test.skipIf(!isInstalled("redis-server") || !hasPostgres())(
  `${KILLS} SIGKILLs of the gateway and of its sinks' servers: every sink has everything exactly once, in order`,
  async ({ dir }) => {
    const startedMs = performance.now();
    const seed = Date.now() % 2 ** 32;
    const destinations = await startDestinations();
    const mqttPort = await findPort();
    const file = join(dir, "sqlite.db");
    const calls = destinations.map(({ call }) => call);
    const options = { dataDir: join(dir, "data"), mqttPort, config: fleetConfig({ sqlite: file }, {}, calls) };
    using fleet = openFleet({ port: mqttPort, devices: 20, seed });
    const sinks = ["sqlite", ...destinations.map(({ name }) => name)];
    const servers = destinations.map(({ server }) => server);
    const gateway = await killInTurn({ sinks, servers, options, fleet, random: createRandom(seed) });
    await fleet.settle();
    await caughtUp(gateway);
    await gateway.end("SIGTERM");
    const verdicts = [...checkSink("sqlite", file, fleet.devices)];
    for (const one of destinations) verdicts.push(...checkSequences(one.name, await one.read(), fleet.devices));
    const seconds = (performance.now() - startedMs) / 1_000;
    const result: CrashFindings = { crashes: KILLS, verdicts, errors: [], seed, seconds };
    console.log(formatResult("SIGKILL of gateway and servers", result));
    expect(broken(result)).toEqual([]);
    expect(fleet.acknowledged()).toBeGreaterThan(KILLS * 100);
  },
  KILLS * 60_000,
);

interface KillOptions {
  readonly sinks: readonly string[];
  readonly servers: readonly Server[];
  readonly options: StartOptions;
  readonly fleet: Fleet;
  readonly random: () => number;
}

/** The gateway, then one of the servers, and so on; a server may be down while the gateway starts. */
async function killInTurn({ sinks, servers, options, fleet, random }: KillOptions): Promise<GatewayProcess> {
  let gateway = await startGateway(options);
  await allRun(gateway, sinks);
  onTestFinished(() => void gateway.end("SIGKILL"));
  let down: Server | undefined;
  for (let kill = 0; kill < KILLS; kill += 1) {
    await fleet.reaches(fleet.acknowledged() + Math.floor(random() * LONGEST_LIFE));
    if (kill % 2 === 0) {
      await gateway.end("SIGKILL");
      gateway = await startGateway(options);
      await down?.start();
      down = undefined;
      if (random() < SETTLED_CHANCE) await allRun(gateway, sinks);
      continue;
    }
    const server = servers[Math.floor(kill / 2) % servers.length];
    await server?.stop("SIGKILL");
    await delay(random() * LONGEST_DOWN_MS);
    if (random() < 0.3) down = server;
    else await server?.start();
  }
  await down?.start();
  return gateway;
}

async function allRun(gateway: GatewayProcess, sinks: readonly string[]): Promise<void> {
  for (const sink of sinks) {
    await gateway.waitForLog(({ consumer, state }) => consumer === sink && state === "running");
  }
}
