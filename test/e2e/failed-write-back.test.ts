// P1, P2: a disk that takes writes into the page cache and fails to write them back. fdatasync says so once; afterwards the
// kernel shows the lost bytes as if they were there. The file system is in an image on a tmpfs that is full: it believes in
// space that the disk below does not have.

import { constants } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { test } from "../fixtures.ts";
import type { GatewayProcess, StartOptions } from "../gateway-process.ts";
import { findPort } from "../servers/server.ts";
import { checkSink, isBroken } from "./crash/check.ts";
import { fleetConfig } from "./crash/config.ts";
import { type Fleet, openFleet } from "./crash/fleet.ts";
import { standsStill } from "./crash/still.ts";
import { type Disk, type LoopDisk, openLoopDisk, openTmpfs } from "./disks.ts";
import { caughtUp, errorsOf, isReady, troublesOf, until } from "./observe.ts";
import { openShim } from "./shim.ts";
import { needs } from "./tools.ts";

const { EIO } = constants.errno;
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

interface Bench {
  readonly disk: LoopDisk;
  readonly ground: Disk;
  readonly fleet: Fleet;
  readonly path: string;
  /** One that cannot write at first. */
  readonly gateway: GatewayProcess;
  /** Starts it again; nothing may be said to be damaged or missing. */
  restart(): Promise<GatewayProcess>;
}

/** Brings a gateway under load to where its disk fails. */
async function openBench(
  opened: AsyncDisposableStack,
  dir: string,
  start: (options: Partial<StartOptions>) => Promise<GatewayProcess>,
  env: Readonly<Record<string, string>> = {},
): Promise<Bench> {
  const { disk, ground } = opened.use(await openFailingDisk(dir));
  const path = join(dir, "readings.db");
  const config = fleetConfig({ sqlite: path }, { segmentBytes: 32 * MIB });
  const launch = { dataDir: join(disk.path, "data"), config, mqttPort: await findPort() };
  const first = await start(launch);
  const fleet = opened.use(openFleet({ port: launch.mqttPort, devices, seed: 1 }));
  await fleet.reaches(some);
  // Folders are on the disk before it fails, not only in the file system's own journal: it gives up when it loses one.
  await first.end("SIGTERM");
  await disk.remount();
  const gateway = await start({ ...launch, env });
  await fleet.reaches(fleet.acknowledged() + some);
  await ground.fill();
  await until("not ready", async () => !(await isReady(gateway)));
  await standsStill(gateway, fleet);
  expect(troublesOf(gateway)).toEqual(["failed"]);
  const restart = async (): Promise<GatewayProcess> => {
    const next = await start(launch);
    expect(errorsOf(next)).toEqual([]);
    return next;
  };
  return { disk, ground, fleet, path, gateway, restart };
}

async function endsWell(gateway: GatewayProcess, { fleet, path }: Bench): Promise<void> {
  await until("ready", () => isReady(gateway));
  await fleet.reaches(fleet.acknowledged() + some);
  await fleet.settle();
  await caughtUp(gateway);
  await gateway.end("SIGTERM");
  expect(checkSink("sqlite", path, fleet.devices).filter(isBroken)).toEqual([]);
}

test("write-back fails for a while: nothing that was acknowledged is lost or doubled", async ({ start, dir, skip }) => {
  needs(skip, "mount", "mkfs.ext4");
  await using opened = new AsyncDisposableStack();
  const bench = await openBench(opened, dir, start);
  await bench.ground.free();
  await endsWell(bench.gateway, bench);
});

test("write-back fails, then the process is killed and the page cache is gone: nothing is lost or doubled", async ({
  start,
  dir,
  skip,
}) => {
  needs(skip, "mount", "mkfs.ext4");
  await using opened = new AsyncDisposableStack();
  const bench = await openBench(opened, dir, start);
  await bench.gateway.end("SIGKILL");
  await bench.ground.free();
  await bench.disk.remount();
  await endsWell(await bench.restart(), bench);
});

test("write-back fails, the process is killed, the next one is shown what was never written, then the power goes: nothing is lost or doubled", async ({
  start,
  dir,
  skip,
}) => {
  needs(skip, "mount", "mkfs.ext4", "python3", "gcc");
  await using opened = new AsyncDisposableStack();
  // What was never written is not cut off either, so that it is there to be seen.
  const shim = await openShim(dir);
  await shim.order(
    [
      ["truncate", "segment", EIO],
      ["unlink", "segment", EIO],
    ],
    -1,
  );
  const bench = await openBench(opened, dir, start, shim.env);
  const { disk, ground, fleet } = bench;
  await bench.gateway.end("SIGKILL");
  await ground.free();
  const gateway = await bench.restart();
  await fleet.reaches(fleet.acknowledged() + some);
  const cut = await disk.openSwitch();
  fleet.deafen();
  await cut();
  await gateway.end("SIGKILL");
  await disk.remount();
  await endsWell(await bench.restart(), bench);
});
