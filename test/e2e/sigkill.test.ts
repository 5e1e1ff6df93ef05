// P1, P2, P3: what was acknowledged is in every sink exactly once and in order, however often the process is killed: while
// it starts, while it serves, and while one of its sinks is many lives behind.

import { join } from "node:path";
import { env } from "node:process";
import { expect } from "vitest";
import { test } from "../fixtures.ts";
import { broken, formatResult } from "./crash/report.ts";
import { runCrashes } from "./crash/run.ts";

/** A thousand are for `npm run torture`. */
const KILLS = Number(env["SLUICE_KILLS"] ?? 60);

test(`${KILLS} SIGKILLs under load of every QoS: nothing that was acknowledged is lost, doubled or out of order`, async ({
  dir,
}) => {
  const result = await runCrashes({ dataDir: join(dir, "data"), crashes: KILLS, devices: 40, seed: Date.now() });
  console.log(formatResult("SIGKILL", result));
  expect(broken(result)).toEqual([]);
});
