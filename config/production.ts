// A gateway for many devices that others can reach, with several sinks: each has what it needs, and none waits for another.
// Copy it, take out what you do not use, and check it with `sluice check FILE`. Every setting is in docs/configuration.md and
// docs/sinks.md. Secrets come from the environment.

import { env } from "node:process";
import { defineGateway, defineStream, files, json, mqtt, postgres, tcp, z } from "sluice";

const climate = defineStream({
  name: "climate",
  topic: "devices/{device}/telemetry",
  codec: json,
  schema: z.looseObject({
    ts: z.int(), // milliseconds since 1970
    seq: z.int(),
    metrics: z.record(z.string(), z.number()),
  }),
  time: (data) => data.ts,
  // A device that sends again after a lost PUBACK is not stored twice.
  dedupe: { key: (data) => `${data.ts}/${data.seq}`, window: 100_000 },
});

export default defineGateway({
  listeners: [tcp({ port: 1883 })],
  credentials: { passwordFile: env["SLUICE_PASSWORD_FILE"] ?? "passwords" }, // made by: mosquitto_passwd -c passwords USER

  journal: {
    maxBytes: 50 * 2 ** 30, // so long a sink may be away: about 340 million messages of 150 bytes
    retain: { time: 24 * 60 * 60 * 1000 }, // a day for `sluice replay`
  },

  streams: [climate],

  sinks: [
    // For queries: a column for each field, exactly once.
    postgres({
      name: "warehouse",
      host: env["PGHOST"] ?? "127.0.0.1",
      database: env["PGDATABASE"] ?? "telemetry",
      user: env["PGUSER"] ?? "sluice",
      password: env["PGPASSWORD"],
      layout: "wide",
    }),
    // For ever: closed files that any tool reads.
    files({ name: "archive", path: env["ARCHIVE_DIR"] ?? "archive", format: "parquet" }),
    // For a second site: what it gets while its link is down waits in the journal.
    mqtt({ name: "bridge", url: env["BRIDGE_URL"] ?? "mqtts://broker.example:8883", from: "now" }),
  ],
});
