// The stdout sink in a gateway whose standard output is a pipe to another program.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { env as environment, execPath } from "node:process";
import { createInterface } from "node:readline";
import { describe, expect, onTestFinished } from "vitest";
import { climate, test } from "../fixtures.ts";
import { openPipe, type Pipe } from "../pipe.ts";

const repository = join(import.meta.dirname, "../..");

const config = `
import { defineGateway, defineStream, json, stdout, tcp, z } from "sluice";
const climate = defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema: z.looseObject({}) });
export default defineGateway({ listeners: [tcp({ port: 0 })], streams: [climate], sinks: [stdout()], shutdownMs: 2000 });
`;

interface Started {
  readonly child: ChildProcess;
  readonly mqttPort: number;
  readonly pipe: Pipe;
  /** Resolves with the first line of standard error that says so. */
  readonly log: (text: string) => Promise<string>;
}

async function start(dir: string): Promise<Started> {
  const file = join(dir, "gateway.config.ts");
  await writeFile(file, config);
  const pipe = openPipe(join(dir, "pipe"), { blocks: true });
  const child = spawn(execPath, [join(repository, "bin/sluice.js"), "start", file], {
    cwd: dir,
    env: { ...environment, SLUICE_HTTP_PORT: "0", SLUICE_DATA_DIR: join(dir, "data") },
    stdio: ["ignore", pipe.fd, "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const lines: string[] = [];
  if (child.stderr === null) throw new TypeError("standard error is a pipe");
  const reading = createInterface({ input: child.stderr }).on("line", (line) => lines.push(line));
  const log = async (text: string): Promise<string> => {
    for (;;) {
      const found = lines.find((line) => line.includes(text));
      if (found !== undefined) return found;
      await once(reading, "line");
    }
  };
  const listening = JSON.parse(await log("MQTT on")) as { readonly port: number };
  await log("sluice is running");
  return { child, mqttPort: listening.port, pipe, log };
}

describe("a gateway with the stdout sink", () => {
  test("writes readings to standard output, and its log to standard error", async ({ dir, connect }) => {
    const gateway = await start(dir);
    const device = await connect(gateway, { clientId: "d1" });
    for (let seq = 0; seq < 20; seq += 1) await device.publishAsync("devices/d1/telemetry", climate(seq), { qos: 1 });
    let text = "";
    while (text.split("\n").length <= 20) text += await gateway.pipe.read();
    const rows = text
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line) as { readonly data: { seq: number } });
    expect(rows.map(({ data }) => data.seq)).toEqual(Array.from({ length: 20 }, (_, seq) => seq));
    gateway.child.kill("SIGTERM");
    expect(await once(gateway.child, "exit")).toEqual([0, null]);
    expect(await gateway.log("stopped")).toContain(`"level":30`);
  });

  test("acknowledges and ends in order while nobody reads", async ({ dir, connect }) => {
    const gateway = await start(dir);
    const device = await connect(gateway, { clientId: "d1" });
    const large = JSON.stringify({ text: "x".repeat(40_000) });
    await Promise.all(Array.from({ length: 20 }, () => device.publishAsync("devices/d1/telemetry", large, { qos: 1 })));
    gateway.child.kill("SIGTERM");
    expect(await once(gateway.child, "exit")).toEqual([0, null]);
  });

  test("goes on when its reader has ended, and says so once and what to do", async ({ dir, connect }) => {
    const gateway = await start(dir);
    const device = await connect(gateway, { clientId: "d1" });
    gateway.pipe.leave();
    await device.publishAsync("devices/d1/telemetry", climate(1), { qos: 1 });
    expect(await gateway.log("its reader has ended")).toContain("Start the gateway again");
    await device.publishAsync("devices/d1/telemetry", climate(2), { qos: 1 });
    gateway.child.kill("SIGTERM");
    expect(await once(gateway.child, "exit")).toEqual([0, null]);
  });
});
