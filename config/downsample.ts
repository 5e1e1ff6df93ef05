// Means of a minute: what devices measure goes through a handler into a second stream, and only that one into the database.
// A minute is over for a device when it has sent something that is a good deal later; what comes for it afterwards is late, and
// is counted in the next mean that is published.

import { defineGateway, defineStream, json, on, sqlite, tcp, z } from "sluice";

const minuteMs = 60_000;
/** So long a minute waits for readings that come out of order. */
const graceMs = 10_000;

const climate = defineStream({
  name: "climate",
  topic: "devices/{device}/telemetry",
  codec: json,
  schema: z.looseObject({ ts: z.int(), metrics: z.record(z.string(), z.number()) }),
  time: (data) => data.ts,
});

const means = defineStream({
  name: "means",
  topic: "means/{device}",
  codec: json,
  schema: z.object({ start: z.int(), readings: z.int(), late: z.int(), means: z.record(z.string(), z.number()) }),
  time: (data) => data.start,
  // A handler is called at least once: what it publishes a second time after a crash is not stored again.
  dedupe: { key: (data) => String(data.start) },
});

/** A minute that is not over, as it is kept: sums by metric. */
interface Minute {
  readonly readings: number;
  readonly sums: Readonly<Record<string, readonly [sum: number, count: number]>>;
}

const downsample = on(
  climate,
  async ({ reading }, { publish, state }) => {
    const { deviceId, data } = reading;
    // A clock that is ahead must not end minutes that are not over.
    const time = Math.min(reading.time, reading.receivedAt);
    const start = time - (time % minuteMs);

    // Of each device: the minutes that are not over by their start, the end of those that are, and how many came late for them.
    const open = new Map(Object.entries((state.get(`${deviceId}/open`) ?? {}) as Record<string, Minute>));
    const over = (state.get(`${deviceId}/over`) ?? 0) as number;
    let late = (state.get(`${deviceId}/late`) ?? 0) as number;

    if (start < over) late += 1;
    else open.set(String(start), add(open.get(String(start)), data.metrics));

    const overNow = Math.max(over, time - graceMs - ((time - graceMs) % minuteMs));
    const done = [...open].filter(([key]) => Number(key) < overNow).sort(([a], [b]) => Number(a) - Number(b));
    for (const [key, { readings, sums }] of done) {
      const values = Object.entries(sums).map(([metric, [sum, count]]) => [metric, sum / count] as const);
      const message = { start: Number(key), readings, late, means: Object.fromEntries(values) };
      // Into the journal like any other message: when it resolves the mean is durable.
      await publish(`means/${deviceId}`, message, { qos: 1 });
      open.delete(key);
      late = 0;
    }

    state.set(`${deviceId}/open`, Object.fromEntries(open));
    state.set(`${deviceId}/over`, overNow);
    state.set(`${deviceId}/late`, late);
  },
  { name: "downsample", concurrency: 16 },
);

function add(minute: Minute | undefined, metrics: Readonly<Record<string, number>>): Minute {
  const { readings = 0, sums = {} } = minute ?? {};
  const added = Object.entries(metrics).map(([metric, value]) => {
    const [sum, count] = sums[metric] ?? [0, 0];
    return [metric, [sum + value, count + 1]] as const;
  });
  return { readings: readings + 1, sums: { ...sums, ...Object.fromEntries(added) } };
}

export default defineGateway({
  listeners: [tcp({ port: 1883 })],
  streams: [climate, means],
  handlers: [downsample],
  sinks: [sqlite({ only: ["means"] })],
});
