// What a gateway's process holds when it is at rest.

import { kill } from "node:process";
import { readMetric, until } from "../e2e/observe.ts";
import type { GatewayProcess } from "../gateway-process.ts";
import { probed } from "./probe.ts";

export interface Memory {
  readonly rss: number;
  readonly heapUsed: number;
  readonly external: number;
  readonly arrayBuffers: number;
  readonly sockets: number;
  readonly timers: number;
}

/** Environment of a gateway that can be measured. */
export const withProbe = { NODE_OPTIONS: `--import=${new URL("probe.ts", import.meta.url).href}` } as const;

/** Waits until only so many clients are connected, and measures after a collection of garbage. */
export async function measure(gateway: GatewayProcess, clients: number): Promise<Memory> {
  const connected = (): Promise<number> => readMetric(gateway, "broker_clients_connected");
  await until(`only ${clients} clients are connected`, async () => (await connected()) === clients);
  const already = gateway.log.filter(({ msg }) => msg === probed).length;
  let seen = 0;
  kill(gateway.pid, "SIGUSR2");
  const line = await gateway.waitForLog(({ msg }) => msg === probed && (seen += 1) > already);
  const number = (key: keyof Memory): number => Number(line[key]);
  return {
    rss: number("rss"),
    heapUsed: number("heapUsed"),
    external: number("external"),
    arrayBuffers: number("arrayBuffers"),
    sockets: number("sockets"),
    timers: number("timers"),
  };
}
