// `npm run torture`: the crash tests of test/e2e for as long as you like. Exit code 1 when a promise is broken.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { broken, formatResult } from "./e2e/crash/report.ts";
import { type CrashResult, runCrashes } from "./e2e/crash/run.ts";
import { openLoopDisk } from "./e2e/disks.ts";

const { values } = parseArgs({
  options: {
    kills: { type: "string" },
    "power-cuts": { type: "string" },
    devices: { type: "string", default: "40" },
    seed: { type: "string", default: String(Date.now() % 2 ** 32) },
  },
});
const seed = Number(values.seed);
const devices = Number(values.devices);
const imageBytes = 2 * 2 ** 30;

const dir = await mkdtemp(join(tmpdir(), "sluice-torture-"));
try {
  const kills = Number(values.kills ?? (values["power-cuts"] === undefined ? 100 : 0));
  if (kills > 0)
    tell("SIGKILL", await runCrashes({ dataDir: join(dir, "data"), crashes: kills, devices, seed, onCrash }));
  const cuts = Number(values["power-cuts"] ?? 0);
  if (cuts > 0) {
    await using disk = await openLoopDisk(join(dir, "disk"), join(dir, "image"), imageBytes);
    const options = { dataDir: join(disk.path, "data"), crashes: cuts, disk, devices, seed, onCrash };
    tell("power cut", await runCrashes(options));
  }
} finally {
  await rm(dir, { recursive: true, force: true });
}

function onCrash(crashes: number, acknowledged: number): void {
  if (crashes % 10 === 0) console.log(`${crashes} crashes, ${acknowledged} acknowledged`);
}

function tell(crash: string, result: CrashResult): void {
  console.log(formatResult(crash, result));
  if (broken(result).length > 0) process.exitCode = 1;
}
