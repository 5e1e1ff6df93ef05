// Plays the script: each event at its time, one after the other for the same actor, and so also a server that is down while the
// gateway starts.

import { setTimeout as delay } from "node:timers/promises";
import { unreachable } from "../../src/errors.ts";
import type { Disk } from "../e2e/disks.ts";
import type { Destination, Outage } from "./destinations.ts";
import { openFrozenSubscriber } from "./frozen-subscriber.ts";
import { type ChaosGateway, untilReady } from "./gateway.ts";
import type { ChaosEvent } from "./script.ts";

export interface Stage {
  readonly gateway: ChaosGateway;
  readonly destinations: readonly Destination[];
  readonly disk: Disk | undefined;
  /** Something happens now. */
  readonly tell: (text: string) => void;
}

/** Resolves when everything has been played and is well again. Rejects with the first failure, and when the signal aborts. */
export async function play(script: readonly ChaosEvent[], stage: Stage, signal: AbortSignal): Promise<void> {
  const startMs = performance.now();
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {}); // when nobody waits any more
  const busy = new Map<string, Promise<void>>();
  using players = openPlayers(stage, either);
  const all = async (): Promise<void> => {
    for (const event of script) {
      await delay(Math.max(0, startMs + event.atMs - performance.now()), undefined, { signal: either });
      const actor = actorOf(event);
      const task = (busy.get(actor) ?? Promise.resolve()).then(() => players.perform(event));
      task.catch(failed.reject);
      busy.set(actor, task);
    }
    await Promise.all(busy.values());
  };
  const playing = all();
  try {
    await Promise.race([playing, failed.promise]);
  } finally {
    stop.abort();
    await Promise.allSettled([playing, ...busy.values()]);
  }
}

/** The gateway is not killed while its disk is full: a start on a full disk has a test of its own. */
function actorOf(event: ChaosEvent): string {
  if (event.kind === "kill-server" || event.kind === "freeze-server") return event.sink;
  return event.kind === "reconnect-storm" ? "devices" : "gateway";
}

interface Players extends Disposable {
  perform(event: ChaosEvent): Promise<void>;
}

function openPlayers({ gateway, destinations, disk, tell }: Stage, signal: AbortSignal): Players {
  let subscriber: Disposable | undefined;

  async function killGateway(downMs: number): Promise<void> {
    tell(`the gateway is killed, and started again after ${seconds(downMs)}`);
    await gateway.kill(downMs, signal);
    if (subscriber !== undefined) await freezeSubscriber();
    tell("the gateway runs again");
  }
  async function freezeSubscriber(): Promise<void> {
    subscriber?.[Symbol.dispose]();
    subscriber = await openFrozenSubscriber(gateway.mqttPort, signal);
  }
  async function fillDisk(holdMs: number): Promise<void> {
    if (disk === undefined) throw new TypeError("there is a disk when the script fills it");
    tell("the gateway's disk is filled");
    await disk.fill();
    const afterMs = await untilReady(gateway, false, signal);
    tell(`the gateway says that it holds, ${seconds(afterMs)} after the last byte; freed in ${seconds(holdMs)}`);
    await delay(holdMs, undefined, { signal });
    await disk.free();
    tell(`the gateway is ready ${seconds(await untilReady(gateway, true, signal))} after there was room`);
  }
  return {
    async perform(event) {
      switch (event.kind) {
        case "kill-gateway":
          return await killGateway(event.forMs);
        case "kill-server":
          tell(`the server of ${event.sink} is killed, and started again after ${seconds(event.forMs)}`);
          return await kill(outageOf(destinations, event.sink), event.forMs, signal);
        case "freeze-server":
          tell(`the server of ${event.sink} is frozen for ${seconds(event.forMs)}`);
          return await freeze(outageOf(destinations, event.sink), event.forMs, signal);
        case "fill-disk":
          return await fillDisk(event.forMs);
        case "freeze-subscriber":
          tell("a subscriber to # stops reading for the rest of the time");
          return await freezeSubscriber();
        case "reconnect-storm":
          return tell("all devices lose their connection at once");
        default:
          return unreachable(event);
      }
    },
    [Symbol.dispose]: () => subscriber?.[Symbol.dispose](),
  };
}

function outageOf(destinations: readonly Destination[], sink: string): Outage {
  const outage = destinations.find((one) => one.sink === sink)?.outage;
  if (outage === undefined) throw new TypeError(`${sink} has no server`);
  return outage;
}

async function kill(server: Outage, downMs: number, signal: AbortSignal): Promise<void> {
  await server.stop("SIGKILL");
  await delay(downMs, undefined, { signal });
  await server.start();
}

async function freeze(server: Outage, forMs: number, signal: AbortSignal): Promise<void> {
  server.freeze();
  try {
    await delay(forMs, undefined, { signal });
  } finally {
    server.thaw();
  }
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`;
