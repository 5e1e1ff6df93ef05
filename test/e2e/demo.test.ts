// `npm run demo`, the first thing that a new user runs, here without a terminal.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { env, execPath } from "node:process";
import { text } from "node:stream/consumers";
import { expect } from "vitest";
import { freePort } from "../devices-sim/fixtures.ts";
import { test } from "../fixtures.ts";
import { readRows } from "./rows.ts";

const demo = join(import.meta.dirname, "../../devices-sim/demo.ts");

test("the demo shows rows, ends by itself with exit code 0 and leaves a full database and no process", async ({
  dir,
  onTestFinished,
}) => {
  const dataDir = join(dir, "data");
  const [mqttPort, httpPort] = [await freePort(), await freePort()];
  const child = spawn(execPath, [demo, "--duration", "3s"], {
    env: {
      ...env,
      SLUICE_MQTT_PORT: String(mqttPort),
      SLUICE_HTTP_PORT: String(httpPort),
      SLUICE_DATA_DIR: dataDir,
      SLUICE_TEST_MARK: dir,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGTERM"));
  const [stdout, stderr, [exitCode]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "exit")]);
  expect({ exitCode, stderr }, stdout).toEqual({ exitCode: 0, stderr: "" });

  const end = /^in the end +(\d+) acknowledged, (\d+) rows, (\d+) rejected$/m.exec(stdout);
  const [acknowledged, added, rejected] = (end ?? []).slice(1).map(Number);
  expect(stdout).toMatch(/^ +offset +received +stream +device +data$/m);
  expect(stdout).toMatch(/ climate +sim-\d+ +seq \d+ +temperature /);
  const shown = [...stdout.matchAll(/^(\d+) new rows of \d+/gm)].map(([, rows]) => Number(rows));
  expect(Math.max(...shown), stdout).toBeGreaterThan(0);
  expect(added).toBeGreaterThan(0);
  expect(added, stdout).toBe(Number(acknowledged) - Number(rejected));
  expect(await readRows({ dataDir }, Number(added))).toHaveLength(Number(added));

  // The children have process groups of their own, and the environment is what they still share with this test.
  expect(processesWith(`SLUICE_TEST_MARK=${dir}`)).toEqual([]);
  for (const port of [mqttPort, httpPort]) {
    await expect(fetch(`http://127.0.0.1:${port}/`)).rejects.toMatchObject({ cause: { code: "ECONNREFUSED" } });
  }
});

/** The command lines of the processes that were started with this in their environment; none where there is no /proc. */
function processesWith(variable: string): readonly string[] {
  if (!existsSync("/proc")) return [];
  return readdirSync("/proc")
    .filter((pid) => /^\d+$/.test(pid) && readAbout(pid, "environ").split("\0").includes(variable))
    .map((pid) => readAbout(pid, "cmdline").replaceAll("\0", " "));
}

function readAbout(pid: string, file: "cmdline" | "environ"): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return ""; // gone, or another user's
  }
}
