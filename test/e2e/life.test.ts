// Start, stop, restart, refuse to start.

import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import type { IDisconnectPacket } from "mqtt";
import { describe, expect } from "vitest";
import { climate, test } from "../fixtures.ts";
import { readRows } from "./rows.ts";
import { needs, run } from "./tools.ts";

const launcher = join(import.meta.dirname, "../../bin/sluice.js");

const sluice = (args: readonly string[], env: Readonly<Record<string, string>> = {}): ReturnType<typeof run> =>
  run("env", [...Object.entries(env).map(([name, value]) => `${name}=${value}`), process.execPath, launcher, ...args]);

describe("the end", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    test(`${signal}: clients are told, what was sent is acknowledged and stored, exit code 0`, async ({
      start,
      connect,
    }) => {
      const gateway = await start();
      const device = await connect(gateway, { clientId: "d1", protocolVersion: 5 });
      const told = new Promise<IDisconnectPacket>((resolve) => void device.on("disconnect", resolve));
      await device.publishAsync("devices/d1/telemetry", climate(1), { qos: 1 });
      expect(await gateway.end(signal)).toBe(0);
      expect(await told).toMatchObject({ reasonCode: 0x8b });
      const again = await start();
      expect(await readRows(again, 1)).toHaveLength(1);
    });
  }

  test("a restart goes on where it was: offsets continue and nothing comes twice", async ({ start, connect }) => {
    for (let round = 1; round <= 3; round += 1) {
      const gateway = await start();
      const device = await connect(gateway, { clientId: "d1" });
      await device.publishAsync("devices/d1/telemetry", climate(round), { qos: 1 });
      const rows = await readRows(gateway, round);
      expect(rows.map(({ offset }) => offset)).toEqual(Array.from({ length: round }, (_, index) => index));
      await device.endAsync(true);
      expect(await gateway.end("SIGTERM")).toBe(0);
    }
  });

  test("a second signal ends it at once", async ({ start, connect, dir }) => {
    // A handler that never returns holds the orderly stop.
    const handler = 'async (_entry, { publish }) => { await publish("entered", "1"); await new Promise(() => {}); }';
    const gateway = await start({ config: gatewayConfig(dir, `handlers: [on(climate, ${handler})],`) });
    const client = await connect(gateway);
    await client.subscribeAsync("entered", { qos: 1 });
    const entered = new Promise((resolve) => void client.once("message", resolve));
    await client.publishAsync("devices/d/telemetry", climate(1), { qos: 1 });
    await entered;
    void gateway.end("SIGTERM");
    await gateway.waitForLog(({ msg }) => msg === "stopping");
    const again = setInterval(() => process.kill(gateway.pid, "SIGTERM"), 100);
    expect(await gateway.ended.finally(() => clearInterval(again))).toBe(1);
  });
});

describe("a handler", () => {
  test("publishes back to MQTT, and into another stream", async ({ start, connect, dir }) => {
    const config = `
import { defineGateway, defineStream, json, on, sqlite, tcp, z } from "sluice";
const climate = defineStream({
  name: "climate", topic: "devices/{device}/telemetry", codec: json,
  schema: z.looseObject({ seq: z.int() }),
});
const alarms = defineStream({ name: "alarms", topic: "alarms/{device}", codec: json, schema: z.object({ seq: z.int() }) });
export default defineGateway({
  listeners: [tcp()], streams: [climate, alarms], sinks: [sqlite()],
  handlers: [on(climate, async ({ reading }, { publish }) => {
    await publish(\`alarms/\${reading.deviceId}\`, { seq: reading.data.seq }, { qos: 1 });
    await publish(\`devices/\${reading.deviceId}/commands\`, "noted", { qos: 1 });
  })],
});`;
    const gateway = await start({ config, dataDir: join(dir, "data") });
    const device = await connect(gateway, { clientId: "d1" });
    await device.subscribeAsync("devices/d1/commands", { qos: 1 });
    const command = new Promise<[string, Buffer]>((resolve) => {
      device.once("message", (topic, payload) => resolve([topic, payload]));
    });
    await device.publishAsync("devices/d1/telemetry", climate(7), { qos: 1 });
    const [topic, payload] = await command;
    expect([topic, payload.toString()]).toEqual(["devices/d1/commands", "noted"]);
    const rows = await readRows(gateway, 2);
    expect(rows.map(({ topic: name }) => name)).toEqual(["devices/d1/telemetry", "alarms/d1"]);
    await device.endAsync(true);
  });
});

describe("refusing to start", () => {
  test("all problems of a configuration at once, with file, key and what was expected; exit code 2", async ({
    dir,
  }) => {
    await mkdir(join(dir, "elsewhere"));
    const file = join(dir, "elsewhere", "wrong.ts");
    await writeFile(
      file,
      `import { defineGateway, defineStream, json, sqlite, tcp, z } from "sluice";
export default defineGateway({
  listeners: [tcp({ port: 70000 })],
  streams: [defineStream({ name: "climate", topic: "devices/#/x", codec: json, schema: z.object({}) })],
  sinks: [sqlite({ path: 5 })], colour: "red",
});`,
    );
    const { code, stderr } = await sluice(["check", file], { SLUICE_HTTP_PORT: "many" }).finished;
    expect(code).toBe(2);
    for (const place of ["listeners[0].port", "streams[0].topic", "sinks[0].path", "colour", "SLUICE_HTTP_PORT"]) {
      expect(stderr).toContain(place);
    }
    expect(stderr).toContain(file);
    expect(await sluice(["start", file]).finished).toMatchObject({ code: 2 });
  });

  test("a file that does not exist, and a wrong command: exit code 2 and a sentence, not a stack", async ({ dir }) => {
    const missing = await sluice(["start", join(dir, "nowhere.ts")]).finished;
    expect(missing.code).toBe(2);
    expect(missing.stderr).not.toContain("    at ");
    const wrong = await sluice(["check", "--colour"]).finished;
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain("--colour");
  });

  test("sluice check prints what would run", async ({ dir }) => {
    const { code, stdout } = await sluice(["check"], { SLUICE_DATA_DIR: join(dir, "data"), SLUICE_MQTT_PORT: "2883" })
      .finished;
    expect(code).toBe(0);
    for (const part of ["climate on devices/{device}/telemetry", "sqlite", "tcp 127.0.0.1:2883", join(dir, "data")]) {
      expect(stdout).toContain(part);
    }
  });

  test("a port that is taken is named, exit code 1", async ({ dir }) => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const env = { SLUICE_MQTT_PORT: String(port), SLUICE_HTTP_PORT: "0", SLUICE_DATA_DIR: join(dir, "data") };
    const { code, stderr } = await sluice(["start"], env).finished;
    server.close();
    expect(code).toBe(1);
    expect(stderr).toContain(`SLUICE_PORT_IN_USE`);
    expect(stderr).toContain(String(port));
  });

  test("a second gateway on the same data directory is refused while the first goes on", async ({ start, connect }) => {
    const gateway = await start();
    const env = { SLUICE_MQTT_PORT: "0", SLUICE_HTTP_PORT: "0", SLUICE_DATA_DIR: gateway.dataDir };
    const { code, stderr } = await sluice(["start"], env).finished;
    expect(code).toBe(1);
    expect(stderr).toContain("SLUICE_JOURNAL_LOCKED");
    const device = await connect(gateway);
    await device.publishAsync("devices/d1/telemetry", climate(1), { qos: 1 });
  });

  test("a host that others can reach is not listened on without credentials, and the log says so", async ({
    start,
  }) => {
    const gateway = await start({ env: { SLUICE_HOST: "0.0.0.0" } });
    expect(
      await gateway.waitForLog(({ msg }) => msg?.includes("no credentials are configured") === true),
    ).toMatchObject({
      host: "127.0.0.1",
      level: 40,
    });
  });
});

describe("credentials", () => {
  test("with a password file every client must know its password, and publishes as itself only", async ({
    start,
    connect,
    dir,
    skip,
  }) => {
    needs(skip, "mosquitto_passwd");
    const passwordFile = join(dir, "passwords");
    const made = spawnSync("mosquitto_passwd", ["-b", "-c", passwordFile, "d1", "secret"]);
    expect(made.status).toBe(0);
    const config = gatewayConfig(dir, `credentials: { passwordFile: ${JSON.stringify(passwordFile)} },`);
    const gateway = await start({ config });
    await expect(connect(gateway, { clientId: "d1" })).rejects.toThrow("Not authorized");
    await expect(connect(gateway, { clientId: "d1", username: "d1", password: "wrong" })).rejects.toThrow(
      "Not authorized",
    );
    const device = await connect(gateway, { clientId: "d1", username: "d1", password: "secret" });
    await device.publishAsync("devices/d1/telemetry", climate(1), { qos: 1 });
    await device.publishAsync("devices/d2/telemetry", climate(1), { qos: 1 });
    expect(await gateway.waitForLog(({ msg }) => msg === "message rejected")).toMatchObject({ reason: "identity" });
    expect(JSON.stringify(gateway.log)).not.toContain("secret");
  });
});

const gatewayConfig = (_dir: string, more: string): string => `
import { defineGateway, defineStream, json, on, sqlite, tcp, z } from "sluice";
const climate = defineStream({
  name: "climate", topic: "devices/{device}/telemetry", codec: json, schema: z.looseObject({ seq: z.int() }),
});
void on;
export default defineGateway({ listeners: [tcp()], streams: [climate], sinks: [sqlite()], ${more} });`;
