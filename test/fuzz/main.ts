// `npm run fuzz`: the fuzzer for as long as you like. Exit code 1 when something does not hold.
//
//   SLUICE_FUZZ_SECONDS  how long, 300 by default
//   SLUICE_FUZZ_SEED     the seed of an earlier run, to repeat its streams
//   --from N --count M   only these of them, one after the other with --parallel 1

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { formatReport, runFuzz } from "./run.ts";

const { values } = parseArgs({
  options: { from: { type: "string" }, count: { type: "string" }, parallel: { type: "string" } },
});
const { SLUICE_FUZZ_SECONDS = "300", SLUICE_FUZZ_SEED = String(Date.now() % 2 ** 32) } = process.env;
const seed = Number(SLUICE_FUZZ_SEED);
console.log(`SLUICE_FUZZ_SEED=${seed}`);

const dir = await mkdtemp(join(tmpdir(), "sluice-fuzz-"));
try {
  const report = await runFuzz({
    dataDir: join(dir, "data"),
    seed,
    seconds: Number(SLUICE_FUZZ_SECONDS),
    ...(values.from === undefined ? undefined : { from: Number(values.from) }),
    ...(values.count === undefined ? undefined : { count: Number(values.count) }),
    ...(values.parallel === undefined ? undefined : { parallel: Number(values.parallel) }),
  });
  console.log(formatReport(report));
  if (report.broken.length > 0) process.exitCode = 1;
} finally {
  await rm(dir, { recursive: true, force: true });
}
