// The configuration that `sluice start` uses when it is given no other, and the one to copy and change.
// Check a changed one with `sluice check FILE`; every setting is in docs/configuration.md.

import { defineGateway, defineStream, json, sqlite, tcp, z } from "sluice";

// A stream is one kind of message: the topics it arrives on, its encoding and what it must look like. A message that
// does not look like this is kept in the journal as rejected, with the reason, and no sink gets it.
const climate = defineStream({
  name: "climate",
  topic: "devices/{device}/telemetry",
  codec: json,
  schema: z.looseObject({
    ts: z.int(), // when it was measured, in milliseconds since 1970
    seq: z.int(), // counts the device's messages, so that a gap shows
    metrics: z.record(z.string(), z.number()),
  }),
  time: (data) => data.ts,
});

export default defineGateway({
  // Without `credentials` only this machine can connect; with them, every address is listened on unless a `host` is given.
  listeners: [tcp({ port: 1883 })],
  // credentials: { passwordFile: "passwords" }, // made by: mosquitto_passwd -c passwords USER

  streams: [climate],

  // Every sink gets every reading, at its own pace: one that is down delays nobody and loses nothing.
  // Look into this one at any time with: sqlite3 -readonly data/telemetry.db 'SELECT * FROM readings LIMIT 5'
  sinks: [sqlite()],

  // A handler is a function of yours, called at least once for each reading, in order. Add `on` to the import above.
  // handlers: [
  //   on(climate, async ({ reading }, { publish }) => {
  //     const { temperature } = reading.data.metrics;
  //     if (temperature !== undefined && temperature > 80) {
  //       await publish(`alarms/${reading.deviceId}`, { temperature, time: reading.time }, { qos: 1 });
  //     }
  //   }),
  // ],
});
