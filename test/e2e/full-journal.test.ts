// P3, P5, P7: a sink that is dead for so long that the journal is full. Then devices wait, or the oldest records go: as it
// was asked for, and to the last record accounted for.

import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect } from "vitest";
import { type GatewayProcess, test } from "../fixtures.ts";
import { checkSink, isBroken } from "./crash/check.ts";
import { fleetConfig } from "./crash/config.ts";
import { openFleet } from "./crash/fleet.ts";
import { standsStill } from "./crash/still.ts";
import { caughtUp, errorsOf, isReady, readMetric, troublesOf, until } from "./observe.ts";

/** Of each kind. */
const devices = 10;
const padBytes = 2_000;
/** Messages that make some traffic. */
const some = 300;
const journal = { maxBytes: 4 * 2 ** 20, reserveBytes: 0 };

/** Nothing is written to the database until it is closed. */
function lock(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: 5_000 });
  database.exec("BEGIN IMMEDIATE");
  return database;
}

test("hold: no PUBACK, no reading, and /readyz names the sink; when it has read on nothing is missing", async ({
  start,
  dir,
}) => {
  const path = join(dir, "readings.db");
  const gateway = await start({ config: fleetConfig({ prompt: join(dir, "prompt.db"), dead: path }, journal) });
  using fleet = openFleet({ port: gateway.mqttPort, devices, seed: 1, padBytes });
  await fleet.reaches(some);
  const locked = lock(path);
  await until("not ready", async () => !(await isReady(gateway)));
  expect((await gateway.fetch("/readyz")).text).toMatch(
    /^the journal is full: .* furthest behind is dead, by \d+ records/,
  );
  await standsStill(gateway, fleet);
  expect(troublesOf(gateway)).toEqual(["full"]);
  locked.close();
  await until("ready", () => isReady(gateway));
  await fleet.reaches(fleet.acknowledged() + some);
  await fleet.settle();
  await caughtUp(gateway);
  await gateway.end("SIGTERM");
  expect(checkSink("dead", path, fleet.devices).filter(isBroken)).toEqual([]);
  expect(checkSink("prompt", join(dir, "prompt.db"), fleet.devices).filter(isBroken)).toEqual([]);
});

test("expire: devices never wait, the sink that keeps up has everything, and what the other lost is counted exactly", async ({
  start,
  dir,
}) => {
  const path = join(dir, "readings.db");
  const sinks = { prompt: join(dir, "prompt.db"), dead: path };
  const gateway = await start({ config: fleetConfig(sinks, { ...journal, whenFull: "expire" }) });
  // What expires is counted in records, and QoS 2 has two for a message.
  const kinds = ["qos0", "qos1-once", "qos1-again"] as const;
  using fleet = openFleet({ port: gateway.mqttPort, devices, seed: 1, padBytes, kinds });
  await fleet.reaches(some);
  const locked = lock(path);
  const losses = (): number => errorsOf(gateway).filter(({ msg }) => msg?.includes("deleted records") === true).length;
  await until("records expired again and again", () => losses() > 1);
  expect(await isReady(gateway)).toBe(true);
  locked.close();
  await fleet.reaches(fleet.acknowledged() + some);
  await fleet.settle();
  await caughtUp(gateway);
  const accepted = await readMetric(gateway, "gateway_messages_accepted_total");
  const expired = await readMetric(gateway, "gateway_sink_expired_total");
  expect(await account(gateway, sinks)).toEqual({ prompt: accepted, dead: accepted - expired });
  expect(expired).toBeGreaterThan(0);
  expect(checkSink("prompt", sinks.prompt, fleet.devices).filter(isBroken)).toEqual([]);
});

/** Rows by sink. */
async function account(gateway: GatewayProcess, sinks: Readonly<Record<string, string>>): Promise<object> {
  await gateway.end("SIGTERM");
  return Object.fromEntries(
    Object.entries(sinks).map(([name, path]) => {
      using database = new DatabaseSync(path, { readOnly: true });
      return [name, Number(database.prepare("SELECT count(*) AS rows FROM readings").get()?.["rows"])];
    }),
  );
}
