// P1, P2: a disk that takes writes into the page cache and fails to write them back. fdatasync says so once; afterwards the
// kernel shows the lost bytes as if they were there. The file system is in an image on a tmpfs that is full: it believes in
// space that the disk below does not have.

import { join } from "node:path";
import { expect } from "vitest";
import { type GatewayProcess, test } from "../fixtures.ts";
import { checkSink, isBroken } from "./crash/check.ts";
import { fleetConfig } from "./crash/config.ts";
import { findPort, type Fleet, openFleet } from "./crash/fleet.ts";
import { standsStill } from "./crash/still.ts";
import { type Disk, type LoopDisk, openLoopDisk, openTmpfs } from "./disks.ts";
import { caughtUp, errorsOf, isReady, troublesOf, until } from "./observe.ts";
import { needs } from "./tools.ts";

const MIB = 2 ** 20;
/** Of each kind. */
const devices = 10;
/** Messages that make some traffic. */
const some = 300;

interface FailingDisk extends AsyncDisposable {
  readonly disk: LoopDisk;
  /** What it stands on: full, the disk fails; free, it is well. */
  readonly ground: Disk;
}

async function openFailingDisk(dir: string): Promise<FailingDisk> {
  await using opened = new AsyncDisposableStack();
  const ground = opened.use(await openTmpfs(join(dir, "ground"), 128 * MIB));
  const disk = opened.use(await openLoopDisk(join(dir, "disk"), join(ground.path, "image"), 120 * MIB));
  const kept = opened.move();
  return { disk, ground, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

const endings = {
  "is well again": [],
  "the process is killed, and the page cache is lost": ["kill", "remount"],
  "the process is killed, and the page cache shows what was never written until the power goes": ["kill", "power cut"],
} as const;

test.for(Object.entries(endings))(
  "write-back fails, then the disk %s: nothing that was acknowledged is lost or doubled",
  async ([, steps], { start, dir, skip }) => {
    needs(skip, "mount", "mkfs.ext4", "python3");
    await using failing = await openFailingDisk(dir);
    const { disk, ground } = failing;
    const path = join(dir, "readings.db");
    const launch = {
      dataDir: join(disk.path, "data"),
      config: fleetConfig({ sqlite: path }, { segmentBytes: 32 * MIB }),
      mqttPort: await findPort(),
    };
    let gateway = await start(launch);
    using fleet = openFleet({ port: launch.mqttPort, devices, seed: 1 });
    await fleet.reaches(some);
    // Folders are on the disk before it fails, not only in the file system's own journal: it gives up when it loses one.
    await gateway.end("SIGTERM");
    await disk.remount();
    gateway = await start(launch);
    await fleet.reaches(fleet.acknowledged() + some);
    await ground.fill();
    await until("not ready", async () => !(await isReady(gateway)));
    await standsStill(gateway, fleet);
    expect(troublesOf(gateway)).toEqual(["failed"]);
    if (steps[0] === "kill") await gateway.end("SIGKILL");
    await ground.free();
    if (steps[0] === "kill") {
      if (steps[1] === "remount") await disk.remount();
      gateway = await start(launch);
      expect(errorsOf(gateway)).toEqual([]);
      await fleet.reaches(fleet.acknowledged() + some);
    }
    if (steps[1] === "power cut") {
      await loseEverythingElse(disk, gateway, fleet);
      gateway = await start(launch);
      expect(errorsOf(gateway)).toEqual([]);
    }
    await until("ready", () => isReady(gateway));
    await fleet.reaches(fleet.acknowledged() + some);
    await fleet.settle();
    await caughtUp(gateway);
    await gateway.end("SIGTERM");
    expect(checkSink("sqlite", path, fleet.devices).filter(isBroken)).toEqual([]);
  },
);

async function loseEverythingElse(disk: LoopDisk, gateway: GatewayProcess, fleet: Fleet): Promise<void> {
  const cut = await disk.openSwitch();
  fleet.deafen();
  await cut();
  await gateway.end("SIGKILL");
  await disk.remount();
}
