// Damaged packets against the running gateway: no crash, no hang, no growth. `npm run fuzz` does the same for minutes.

import { join } from "node:path";
import { env } from "node:process";
import { expect } from "vitest";
import { test } from "../fixtures.ts";
import { formatReport, runFuzz } from "./run.ts";

test("damaged packets of every type harm nobody, and everything is counted", async ({ dir }) => {
  const seed = Number(env["SLUICE_FUZZ_SEED"] ?? Date.now() % 2 ** 32);
  const seconds = Number(env["SLUICE_FUZZ_SECONDS"] ?? 15);
  console.log(`SLUICE_FUZZ_SEED=${seed}`);
  const report = await runFuzz({ dataDir: join(dir, "data"), seed, seconds });
  console.log(formatReport(report));
  expect(report.broken).toEqual([]);
});
