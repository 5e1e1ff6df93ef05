// The gateway of docs/simulator.md takes each payload of the simulator, and its sink has what devices sent.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execPath } from "node:process";
import { pathToFileURL } from "node:url";
import { expect } from "vitest";
import { test } from "../fixtures.ts";
import { run } from "./tools.ts";

const root = join(import.meta.dirname, "../..");
const launcher = join(root, "bin/sluice-sim.js");

/** With the comments' options for those that share a topic. */
const shapes: readonly (readonly [payload: string, ...args: readonly string[]])[] = [
  ["sluice"],
  ["flat", "--topic", "flat/{device}"],
  ["cbor", "--topic", "cbor/{device}"],
  ["tasmota"],
  ["zigbee2mqtt"],
  ["thingsboard"],
  ["bare"],
];

test("each stream of the page's configuration keeps the messages of its payload, every one", async ({ start, dir }) => {
  const page = await readFile(join(root, "docs/simulator.md"), "utf8");
  const [, example = ""] = /```ts\n(\/\/ shapes\.ts.*?)```/s.exec(page) ?? [];
  const cborg = pathToFileURL(join(root, "node_modules/cborg/cborg.js")).href;
  const gateway = await start({ config: example.replace('"cborg"', JSON.stringify(cborg)) });
  const url = ["--url", `mqtt://127.0.0.1:${gateway.mqttPort}`];
  const fleet = ["--devices", "3", "--ramp", "10ms", "--rate", "20", "--count", "5", "--invalid", "0", "--json"];
  for (const [payload, ...args] of shapes) {
    const kind = ["--id-prefix", `${payload}-`, "--payload", payload, ...args];
    const proof = ["--ledger", join(dir, payload), "--verify", `sqlite:${join(gateway.dataDir, "telemetry.db")}`];
    const { code, stdout, stderr } = await run(execPath, [launcher, ...url, ...fleet, ...kind, ...proof]).finished;
    expect({ payload, code, verified: JSON.parse(stdout || "{}") as unknown }, stderr).toMatchObject({
      payload,
      code: 0,
      verified: { verification: { kept: true, sinks: [{ found: payload === "bare" ? 90 : 15, corrupted: 0 }] } },
    });
  }
});
