// What tests share: temporary folders and the gateway as a process of its own, both gone when the test ends.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { test as base } from "vitest";
import { type GatewayProcess, startGateway, type StartOptions } from "./gateway-process.ts";

export type { GatewayProcess } from "./gateway-process.ts";

interface Fixtures {
  /** A folder that is removed after the test. */
  readonly dir: string;
  /** Starts gateways that are killed after the test if they still run. */
  readonly start: (options?: Partial<StartOptions>) => Promise<GatewayProcess>;
  /** Connects MQTT.js clients that are closed after the test. */
  readonly connect: (gateway: { readonly mqttPort: number }, options?: IClientOptions) => Promise<MqttClient>;
}

export const test = base
  .extend("dir", async ({}, { onCleanup }) => {
    const dir = await mkdtemp(join(tmpdir(), "sluice-test-"));
    onCleanup(() => rm(dir, { recursive: true, force: true }));
    return dir;
  })
  .extend("start", async ({ dir }, { onCleanup }): Promise<Fixtures["start"]> => {
    const running: GatewayProcess[] = [];
    onCleanup(async () => {
      for (const gateway of running) await gateway.end("SIGKILL");
    });
    return async (options) => {
      const gateway = await startGateway({ dataDir: join(dir, "data"), ...options });
      running.push(gateway);
      return gateway;
    };
  })
  .extend("connect", async ({}, { onCleanup }): Promise<Fixtures["connect"]> => {
    const clients: MqttClient[] = [];
    onCleanup(async () => {
      for (const client of clients) await client.endAsync(true);
    });
    return async ({ mqttPort }, options) => {
      const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${mqttPort}`, { reconnectPeriod: 0, ...options });
      clients.push(client);
      return client;
    };
  });

/** A valid message of the default stream `climate`. */
export const climate = (seq: number): string =>
  JSON.stringify({ ts: Date.now(), seq, metrics: { temperature: 21.5, humidity: 40 } });
