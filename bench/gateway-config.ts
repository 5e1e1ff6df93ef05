// The gateway of the benchmarks: everything up to the durable PUBACK (broker, validation, journal), and behind it the sinks
// that BENCH_SINKS names.

import { defineGateway, defineStream, json, sqlite, tcp, z } from "sluice";

export default defineGateway({
  listeners: [tcp({ port: 1883 })],
  streams: [
    defineStream({
      name: "climate",
      topic: "devices/{device}/telemetry",
      codec: json,
      schema: z.looseObject({
        ts: z.number().int(),
        seq: z.number().int(),
        metrics: z.record(z.string(), z.number()),
      }),
      time: (data) => data.ts,
    }),
  ],
  sinks: process.env["BENCH_SINKS"] === "sqlite" ? [sqlite()] : [],
  limits: { maximumConnections: 20_000 },
});
