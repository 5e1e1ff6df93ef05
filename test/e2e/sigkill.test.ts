// P1, P2, P3: what was acknowledged is in the database exactly once and in order, however often the process is killed.

import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import mqtt, { type MqttClient } from "mqtt";
import { expect } from "vitest";
import { climate, type GatewayProcess, test } from "../fixtures.ts";

const DEVICES = 200;
const KILLS = 20;
const WINDOW = 4;

/** A device that never sends a reading twice: what was not acknowledged when the connection broke is given up. */
class Device {
  readonly id: string;
  readonly acknowledged: number[] = [];
  #seq = 0;
  #client: MqttClient | undefined;

  constructor(id: string) {
    this.id = id;
  }

  async run(port: number, stopped: () => boolean): Promise<void> {
    while (!stopped()) {
      const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
        clientId: this.id,
        reconnectPeriod: 0,
        connectTimeout: 5_000,
      });
      client.on("error", () => {});
      this.#client = client;
      await new Promise<void>((resolve) => {
        client.once("close", resolve);
        client.once("connect", () => void this.#publish(client, stopped).catch(() => {}));
      });
      client.end(true);
      if (!stopped()) await delay(20 + Math.random() * 80);
    }
  }

  disconnect(): void {
    this.#client?.end(true);
  }

  async #publish(client: MqttClient, stopped: () => boolean): Promise<void> {
    const lane = async (): Promise<void> => {
      while (client.connected && !stopped()) {
        this.#seq += 1;
        const seq = this.#seq;
        await client.publishAsync(`devices/${this.id}/telemetry`, climate(seq), { qos: 1 });
        this.acknowledged.push(seq);
        await delay(5 + Math.random() * 10);
      }
    };
    await Promise.all(Array.from({ length: WINDOW }, lane));
  }
}

test(`${KILLS} SIGKILLs under ${DEVICES} devices: every acknowledged reading is stored exactly once and in order`, async ({
  start,
}) => {
  let gateway: GatewayProcess = await start();
  const { mqttPort } = gateway;
  let stopped = false;
  const devices = Array.from({ length: DEVICES }, (_, index) => new Device(`dev-${index}`));
  const running = devices.map((device) => device.run(mqttPort, () => stopped));
  for (let kill = 0; kill < KILLS; kill += 1) {
    await delay(300 + Math.random() * 1_500);
    await gateway.end("SIGKILL");
    gateway = await start({ mqttPort });
  }
  await delay(300);
  stopped = true;
  for (const device of devices) device.disconnect();
  await Promise.all(running);
  const acknowledged = devices.reduce((sum, device) => sum + device.acknowledged.length, 0);
  expect(acknowledged).toBeGreaterThan(DEVICES * KILLS);

  await caughtUp(gateway);
  using database = new DatabaseSync(join(gateway.dataDir, "telemetry.db"), { readOnly: true });
  const select = database.prepare("SELECT data ->> 'seq' AS seq FROM readings WHERE device = ? ORDER BY offset");
  for (const device of devices) {
    const stored = select.all(device.id).map((row) => Number(row["seq"]));
    expect(stored, `${device.id}: once and in order`).toEqual([...new Set(stored)].sort((a, b) => a - b));
    const present = new Set(stored);
    expect(
      device.acknowledged.filter((seq) => !present.has(seq)),
      `${device.id}: lost`,
    ).toEqual([]);
  }
});

/** Resolves when the sink has everything. */
async function caughtUp(gateway: GatewayProcess): Promise<void> {
  for (;;) {
    const { text } = await gateway.fetch("/metrics");
    if (/gateway_sink_lag_records\{sink="sqlite"\} 0$/m.test(text)) return;
    await delay(50);
  }
}
