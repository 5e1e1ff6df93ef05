// The mqtt sink of a gateway that leads back into the gateway itself.

import { describe, expect } from "vitest";
import { climate, test } from "../fixtures.ts";
import { findPort } from "../servers/server.ts";
import { readRows } from "./rows.ts";

const configFor = (port: number): string => `
import { defineGateway, defineStream, json, mqtt, sqlite, tcp, z } from "sluice";
const climate = defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema: z.looseObject({}) });
export default defineGateway({
  listeners: [tcp({ port: ${port} })],
  streams: [climate],
  sinks: [sqlite(), mqtt({ url: "mqtt://127.0.0.1:${port}" })],
});
`;

describe("a bridge that leads in a circle", () => {
  test("ends after one round with MQTT 5: the copy is parked", async ({ start, connect }) => {
    const mqttPort = await findPort();
    const gateway = await start({ mqttPort, config: configFor(mqttPort) });
    const device = await connect(gateway, { clientId: "d1" });
    for (let seq = 0; seq < 3; seq += 1) await device.publishAsync("devices/d1/telemetry", climate(seq), { qos: 1 });
    for (let parked = 0; parked < 3;) {
      const { text } = await gateway.fetch("/metrics");
      parked = Number(/gateway_sink_parked_total\{sink="mqtt"\} (\d+)/.exec(text)?.[1] ?? 0);
    }
    expect((await readRows(gateway, 6)).length).toBe(6);
    expect(await gateway.end("SIGTERM")).toBe(0);
  });
});
