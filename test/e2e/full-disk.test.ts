// P7: a disk that is full to the last byte. Devices wait, a person is told once, and it goes on by itself when there is room.

import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect } from "vitest";
import { climate, test } from "../fixtures.ts";
import { checkSink, isBroken } from "./crash/check.ts";
import { fleetConfig } from "./crash/config.ts";
import { openFleet } from "./crash/fleet.ts";
import { type Disk, openLoopDisk, openTmpfs } from "./disks.ts";
import { standsStill } from "./crash/still.ts";
import { caughtUp, isReady, troublesOf, until } from "./observe.ts";
import { readRows } from "./rows.ts";
import { needs } from "./tools.ts";

const MIB = 2 ** 20;
const diskBytes = 96 * MIB;
/** Of each kind. */
const devices = 10;
/** Messages that make some traffic. */
const some = 300;

const disks = {
  tmpfs: (dir: string): Promise<Disk> => openTmpfs(join(dir, "disk"), diskBytes),
  ext4: (dir: string): Promise<Disk> => openLoopDisk(join(dir, "disk"), join(dir, "image"), diskBytes),
};

test.for([
  { kind: "tmpfs", database: "elsewhere" },
  { kind: "ext4", database: "elsewhere" },
  { kind: "ext4", database: "beside the journal" },
] as const)(
  "a full $kind, the database $database: no PUBACK, no reading, not ready, one ERROR line; then it goes on and nothing is lost",
  async ({ kind, database }, { start, dir, skip }) => {
    needs(skip, "mount", "mkfs.ext4");
    await using disk = await disks[kind](dir);
    const dataDir = join(disk.path, "data");
    const path = join(database === "elsewhere" ? dir : disk.path, "readings.db");
    const gateway = await start({ dataDir, config: fleetConfig({ sqlite: path }) });
    using fleet = openFleet({ port: gateway.mqttPort, devices, seed: 1 });
    await fleet.reaches(some);
    await disk.fill();
    await until("not ready", async () => !(await isReady(gateway)));
    const { text } = await gateway.fetch("/readyz");
    expect(text).toMatch(
      /^the journal is (full: The journal's disk has only \d+ bytes left|failed: The journal cannot write)/,
    );
    await standsStill(gateway, fleet);
    expect(troublesOf(gateway)).toEqual([expect.stringMatching(/^(full|failed)$/)]);
    await disk.free();
    await until("ready again", () => isReady(gateway));
    await fleet.reaches(fleet.acknowledged() + some);
    await fleet.settle();
    await caughtUp(gateway);
    expect(troublesOf(gateway)).toEqual([expect.stringMatching(/^(full|failed)$/)]);
    await gateway.end("SIGTERM");
    expect(checkSink("sqlite", path, fleet.devices).filter(isBroken)).toEqual([]);
  },
);

test("a gateway that is started on a full disk serves its sinks, is not ready, and takes messages when there is room", async ({
  start,
  connect,
  dir,
  skip,
}) => {
  needs(skip, "mount", "mkfs.ext4");
  await using disk = await disks.ext4(dir);
  const dataDir = join(disk.path, "data");
  const path = join(dir, "telemetry.db");
  const config = fleetConfig({ sqlite: path });
  const first = await start({ dataDir, config });
  const device = await connect(first, { clientId: "d1" });
  await device.publishAsync("devices/d1/telemetry", climate(1), { qos: 1 });
  await readRows({ dataDir: dir }, 1);
  // The others wait for their sink; the last commit waits for the disk too: a start writes it again before it counts.
  const lock = new DatabaseSync(path);
  lock.exec("BEGIN IMMEDIATE");
  for (const seq of [2, 3]) await device.publishAsync("devices/d1/telemetry", climate(seq), { qos: 1 });
  await first.end("SIGKILL");
  await disk.fill();
  lock.close();

  const second = await start({ dataDir, config });
  expect(await readRows({ dataDir: dir }, 2)).toHaveLength(2);
  expect(await isReady(second)).toBe(false);
  expect(troublesOf(second)).toEqual(["failed"]);
  const again = await connect(second, { clientId: "d1" });
  const publishing = again.publishAsync("devices/d1/telemetry", climate(4), { qos: 1 });
  await disk.free();
  await publishing;
  expect(await isReady(second)).toBe(true);
  const rows = await readRows({ dataDir: dir }, 4);
  expect(rows.map(({ data }) => (JSON.parse(data) as { seq: number }).seq)).toEqual([1, 2, 3, 4]);
});
