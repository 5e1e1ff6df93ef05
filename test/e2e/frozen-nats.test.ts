// A gateway whose NATS server freezes: it acknowledges to its devices, stops when it is told to, and goes on where it was.

import { describe, expect } from "vitest";
import { climate, test } from "../fixtures.ts";
import { startNats } from "../servers/nats.ts";
import { isInstalled } from "../servers/server.ts";
import { readOffsets, readStream, toDocument } from "../sinks/nats-streams.ts";

const configFor = (port: number): string => `
import { defineGateway, defineStream, json, nats, tcp, z } from "sluice";
const climate = defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema: z.looseObject({}) });
export default defineGateway({
  listeners: [tcp()],
  streams: [climate],
  sinks: [nats({ servers: ["nats://127.0.0.1:${port}"], stream: "TELEMETRY", create: {} })],
});
`;

describe.skipIf(!isInstalled("nats-server"))("a frozen NATS server", () => {
  test("costs a gateway nothing but time", async ({ start, connect, dir }) => {
    await using server = await startNats();
    const options = { dataDir: `${dir}/data`, config: configFor(server.port) };
    const gateway = await start(options);
    const device = await connect(gateway, { clientId: "d1" });
    const publish = async (from: number, to: number): Promise<void> => {
      for (let seq = from; seq < to; seq += 1)
        await device.publishAsync("devices/d1/telemetry", climate(seq), { qos: 1 });
    };
    await publish(0, 50);
    await expect.poll(() => readOffsets(server, "TELEMETRY").catch(() => []), { timeout: 20_000 }).toHaveLength(50);
    server.freeze();
    await publish(50, 60);
    expect(await gateway.end("SIGTERM")).toBe(0);
    server.thaw();
    await start(options);
    await expect.poll(() => readOffsets(server, "TELEMETRY"), { timeout: 20_000 }).toHaveLength(60);
    const written = (await readStream(server, "TELEMETRY")).map((message) => toDocument(message)["data"]);
    expect(written).toEqual(Array.from({ length: 60 }, (_, seq) => expect.objectContaining({ seq }) as unknown));
  });
});
