// The configuration under which a fleet's messages are checked.

/**
 * The streams that a fleet publishes to: `again` is for devices that send twice what was not acknowledged. `sinks` are
 * database files by name; `more` has calls of other sinks. Small segments, so that many a crash hits their change.
 */
export const fleetConfig = (
  sinks: Readonly<Record<string, string>>,
  journal: object = {},
  more: readonly string[] = [],
): string => `
import { defineGateway, defineStream, json, postgres, redis, sqlite, tcp, z } from "sluice";
const schema = z.looseObject({ ts: z.int(), seq: z.int(), metrics: z.record(z.string(), z.number()) });
const stream = { codec: json, schema, time: (data) => data.ts };
const dedupe = { key: (data) => String(data.seq), window: 100_000 };
export default defineGateway({
  listeners: [tcp()],
  streams: [
    defineStream({ ...stream, name: "climate", topic: "devices/{device}/telemetry" }),
    defineStream({ ...stream, name: "again", topic: "again/{device}/telemetry", dedupe }),
  ],
  sinks: [...${JSON.stringify(Object.entries(sinks))}.map(([name, path]) => sqlite({ name, path })), ${more.join(", ")}],
  journal: ${JSON.stringify({ maxBytes: 256 * 2 ** 20, segmentBytes: 2 ** 20, ...journal })},
});`;
