// The gateway of the benchmark: everything up to the durable PUBACK (broker, validation, journal), no sinks behind it.

import { defineGateway, defineStream, json, tcp, z } from "sluice";

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
  handlers: [],
  sinks: [],
});
