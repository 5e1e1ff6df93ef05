// The handlers of config/, and what only a gateway as a process shows: its end at any time, and an entry that ends it.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { MqttClient } from "mqtt";
import { describe, expect } from "vitest";
import { type GatewayProcess, test } from "../fixtures.ts";
import { until } from "./observe.ts";
import { readRows } from "./rows.ts";

const example = (name: string): string => readFileSync(join(import.meta.dirname, "../../config", name), "utf8");

const send = (device: MqttClient, ts: number, temperature: number): Promise<unknown> =>
  device.publishAsync("devices/d1/telemetry", JSON.stringify({ ts, metrics: { temperature } }), { qos: 1 });

/** Resolves when the handler has done all that there is, durably. */
const isDone = (gateway: GatewayProcess, name: string, records: number): Promise<void> =>
  until(`${name} is done`, async () => {
    const { consumers } = JSON.parse((await gateway.fetch("/")).text) as {
      consumers: readonly { name: string; durable: number }[];
    };
    return consumers.some((one) => one.name === name && one.durable === records);
  });

test("config/alarm.ts raises an alarm once, ends it with hysteresis, and knows after a crash which are on", async ({
  start,
  connect,
}) => {
  const config = example("alarm.ts");
  const first = await start({ config });
  const device = await connect(first, { clientId: "d1" });
  const seen: unknown[] = [];
  const watch = async (client: MqttClient): Promise<void> => {
    client.on("message", (topic, payload, { retain }) => {
      const { state, temperature, since } = JSON.parse(payload.toString()) as Record<string, unknown>;
      seen.push([topic, state, temperature, since, retain]);
    });
    await client.subscribeAsync("alarms/#", { qos: 1 });
  };
  await watch(device);
  const temperatures = [79, 81, 82, 76, 74, 76, 81];
  for (const [ts, temperature] of temperatures.entries()) await send(device, ts, temperature);
  await isDone(first, "alarm", 7);
  await until("the alarms", async () => seen.length === 3);
  expect(seen.splice(0)).toEqual([
    ["alarms/d1", "on", 81, 1, false],
    ["alarms/d1", "off", 74, 1, false],
    ["alarms/d1", "on", 81, 6, false],
  ]);
  await watch(await connect(first));
  await until("the retained one", async () => seen.length === 1);
  expect(seen.splice(0)).toEqual([["alarms/d1", "on", 81, 6, true]]);
  await first.end("SIGKILL");

  const second = await start({ config });
  const again = await connect(second, { clientId: "d1" });
  await watch(again);
  for (const [index, temperature] of [82, 75, 74.9].entries()) await send(again, 7 + index, temperature);
  await until("its end", async () => seen.length > 0);
  expect(seen).toEqual([["alarms/d1", "off", 74.9, 6, false]]);
});

test("config/downsample.ts stores the means of each minute, counts what is late, and goes on after a crash", async ({
  start,
  connect,
}) => {
  const config = example("downsample.ts");
  const minute = 60_000;
  const base = 28_000_000 * minute;
  const first = await start({ config });
  const device = await connect(first, { clientId: "d1" });
  await send(device, base + 1_000, 10);
  await send(device, base + minute + 1_000, 30); // the next minute, and the first one still waits
  await send(device, base + 59_000, 20);
  await send(device, base + minute + 10_000, 40); // now it is over
  await send(device, base + 30_000, 1_000); // late
  // Five, and the mean.
  await isDone(first, "downsample", 6);
  await first.end("SIGKILL");

  const second = await start({ config });
  const again = await connect(second, { clientId: "d1" });
  await send(again, base + 2 * minute + 10_000, 50);
  const rows = await readRows(second, 2);
  expect(rows.map(({ topic, time, data }) => [topic, time, JSON.parse(data) as unknown])).toEqual([
    ["means/d1", base, { start: base, readings: 2, late: 0, means: { temperature: 15 } }],
    ["means/d1", base + minute, { start: base + minute, readings: 2, late: 1, means: { temperature: 35 } }],
  ]);
});

const head = (dir: string): string => `
import { appendFileSync, existsSync, writeFileSync } from "node:fs";
import { defineGateway, defineStream, json, on, sqlite, tcp, z } from "sluice";
const dir = ${JSON.stringify(dir)};
const climate = defineStream({
  name: "climate", topic: "devices/{device}/telemetry", codec: json,
  schema: z.looseObject({ ts: z.int() }),
});
const copies = defineStream({
  name: "copies", topic: "copies/{device}", codec: json, schema: z.object({ ts: z.int() }),
});
`;

describe("a gateway that ends", () => {
  test("each time that a handler is called with one entry parks it, and goes on", async ({ dir, start, connect }) => {
    const config = `${head(dir)}
export default defineGateway({ listeners: [tcp()], streams: [climate], handlers: [
  on(climate, ({ reading, offset }) => {
    appendFileSync(dir + "/out", offset + "\\n");
    if (reading.data.ts === 2) process.kill(process.pid, "SIGKILL");
  })] });`;
    const first = await start({ config });
    const device = await connect(first, { clientId: "d1" });
    await Promise.allSettled([1, 2, 3].map((ts) => send(device, ts, 0)));
    expect(await first.ended).toBe("SIGKILL");
    for (const life of [2, 3]) {
      // It may end before it runs.
      const gateway = await start({ config }).catch(() => undefined);
      expect(await (gateway?.ended ?? "SIGKILL"), `life ${life}`).toBe("SIGKILL");
    }
    const last = await start({ config });
    await last.waitForLog(({ msg }) => msg?.includes("parked, from offset 1") === true);
    await isDone(last, "on-climate", 3);
    const calls = readFileSync(join(dir, "out"), "utf8").trim().split("\n");
    expect(calls.filter((offset) => offset === "1")).toHaveLength(3);
    expect(calls.at(-1)).toBe("2");
    using parked = new DatabaseSync(join(last.dataDir, "parked.db"), { readOnly: true });
    expect(parked.prepare("SELECT offset, attempts FROM parked").all()).toMatchObject([{ offset: 1, attempts: 3 }]);
  });

  test("waits for the call in hand, and whatever it could not publish it publishes after the next start", async ({
    dir,
    start,
    connect,
  }) => {
    const config = `${head(dir)}
export default defineGateway({ listeners: [tcp()], streams: [climate, copies], sinks: [sqlite({ only: ["copies"] })], handlers: [
  on(climate, async ({ reading }, { publish }) => {
    writeFileSync(dir + "/entered", "");
    while (!existsSync(dir + "/go")) await new Promise((resolve) => setTimeout(resolve, 5));
    await publish("note", "one");
    await publish("copies/" + reading.deviceId, { ts: reading.data.ts });
  })] });`;
    const first = await start({ config });
    await send(await connect(first, { clientId: "d1" }), 5, 0);
    await until("the call", async () => existsSync(join(dir, "entered")));
    const ended = first.end("SIGTERM");
    await first.waitForLog(({ msg }) => msg === "stopping");
    writeFileSync(join(dir, "go"), "");
    expect(await ended).toBe(0);
    const rows = await readRows(await start({ config }), 1);
    expect(rows.map(({ data }) => data)).toContain('{"ts":5}');
  });
});

test("a handler that publishes into a journal that is full of what it has not done makes room, and does not wait for itself", async ({
  dir,
  start,
  connect,
}) => {
  const config = `${head(dir)}
export default defineGateway({
  listeners: [tcp()], streams: [climate, copies], sinks: [sqlite({ only: ["copies"] })],
  journal: { maxBytes: 4 * 2 ** 20, reserveBytes: 0 },
  handlers: [on(climate, async ({ reading }, { publish }) => {
    while (!existsSync(dir + "/go")) await new Promise((resolve) => setTimeout(resolve, 20));
    await publish("copies/" + reading.deviceId, { ts: reading.data.ts });
  })] });`;
  const gateway = await start({ config });
  const device = await connect(gateway, { clientId: "d1" });
  const count = 2_000;
  const sent = Array.from({ length: count }, (_, ts) =>
    device.publishAsync("devices/d1/telemetry", JSON.stringify({ ts, pad: "x".repeat(2_500) }), { qos: 1 }),
  );
  await until("full", async () => (await gateway.fetch("/readyz")).text.startsWith("the journal is full"));
  writeFileSync(join(dir, "go"), "");
  await Promise.all(sent);
  const rows = await readRows(gateway, count);
  expect(rows.map(({ data }) => data)).toEqual(Array.from({ length: count }, (_, ts) => `{"ts":${ts}}`));
});
