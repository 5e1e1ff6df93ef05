// P1, P2: what was acknowledged before the power went is there when it is back: in the journal, in both sinks, once and in
// order. The journal, the sinks and all cursors are on the disk that loses it.

import { join } from "node:path";
import { expect } from "vitest";
import { test } from "../fixtures.ts";
import { broken, formatResult } from "./crash/report.ts";
import { runCrashes } from "./crash/run.ts";
import { openLoopDisk } from "./disks.ts";
import { needs } from "./tools.ts";

const CUTS = 12;

test(`${CUTS} power cuts under load: nothing that was acknowledged is lost, doubled or out of order`, async ({
  dir,
  skip,
}) => {
  needs(skip, "mount", "mkfs.ext4", "python3");
  await using disk = await openLoopDisk(join(dir, "disk"), join(dir, "image"), 512 * 2 ** 20);
  const result = await runCrashes({
    dataDir: join(disk.path, "data"),
    crashes: CUTS,
    disk,
    devices: 40,
    seed: Date.now(),
  });
  console.log(formatResult("power cut", result));
  expect(broken(result)).toEqual([]);
});
