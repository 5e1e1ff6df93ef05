// The devices of a crash run: some of each kind, publishing at random moments until they are told to stop.

import { setTimeout as delay } from "node:timers/promises";
import { createRandom } from "../../../devices-sim/random.ts";
import { Device, type DeviceKind, deviceKinds } from "./device.ts";

export interface FleetOptions {
  readonly port: number;
  /** Of each kind. */
  readonly devices: number;
  readonly seed: number;
  readonly padBytes?: number;
  /** Default: all. */
  readonly kinds?: readonly DeviceKind[];
}

export interface Fleet extends Disposable {
  readonly devices: readonly Device[];
  /** Messages that were acknowledged; of QoS 0, sent. */
  readonly acknowledged: () => number;
  /** Without QoS 0. */
  readonly confirmed: () => number;
  /** Resolves when that many messages have been acknowledged. */
  reaches(acknowledged: number): Promise<void>;
  /** Devices notice nothing more that arrives, until they have connected again. */
  deafen(): void;
  /** Publishes no more, and resolves when nothing waits for an acknowledgement. Needs a gateway that runs. */
  settle(): Promise<void>;
}

const window = 4;
const tickMs = 10;
/** Of a tick. */
const publishChance = 0.3;
const pollMs = 5;

export function openFleet({ port, devices: ofEachKind, seed, padBytes = 0, kinds = deviceKinds }: FleetOptions): Fleet {
  const open = (kind: DeviceKind, index: number): Device =>
    new Device({
      id: `${kind}-${index}`,
      kind,
      port,
      window,
      padBytes,
      packetIds: index % 2 === 0 ? "lowest" : "counting",
      random: createRandom(seed, index, deviceKinds.indexOf(kind)),
    });
  const devices = kinds.flatMap((kind) => Array.from({ length: ofEachKind }, (_, index) => open(kind, index)));
  const acknowledged = (): number => count(devices);
  const random = createRandom(seed, ofEachKind);
  const ticking = setInterval(() => {
    for (const device of devices) if (random() < publishChance) device.publish();
  }, tickMs);
  return {
    devices,
    acknowledged,
    confirmed: () => count(devices.filter(({ kind }) => kind !== "qos0")),
    async reaches(wanted) {
      while (acknowledged() < wanted) await delay(pollMs);
    },
    deafen() {
      for (const device of devices) device.deafen();
    },
    async settle() {
      clearInterval(ticking);
      while (devices.some(({ settled, online }) => !settled || !online)) await delay(pollMs);
    },
    [Symbol.dispose]() {
      clearInterval(ticking);
      for (const device of devices) device.stop();
    },
  };
}

const count = (devices: readonly Device[]): number =>
  devices.reduce((sum, { acknowledged }) => sum + acknowledged.length, 0);
