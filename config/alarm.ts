// An alarm with hysteresis: a device that becomes hotter than 80 °C raises it, and it ends when the device is cooler than 75 °C.
// It is published to `alarms/<device>`, retained, so that whoever subscribes later sees at once which alarms are on; the gateway
// holds retained messages as long as it runs. For a record of all alarms make `alarms/{device}` a stream, as in downsample.ts.

import { defineGateway, defineStream, json, on, sqlite, tcp, z } from "sluice";

const raiseAbove = 80;
const endBelow = 75;

const climate = defineStream({
  name: "climate",
  topic: "devices/{device}/telemetry",
  codec: json,
  schema: z.looseObject({ ts: z.int(), metrics: z.record(z.string(), z.number()) }),
  time: (data) => data.ts,
});

const alarm = on(
  climate,
  async ({ reading }, { publish, state }) => {
    const { deviceId, time, data } = reading;
    const { temperature } = data.metrics;
    if (temperature === undefined) return;

    // Since when the alarm is on; undefined: it is off. It survives a restart, so that no alarm is raised or ended twice.
    const since = state.get(deviceId);
    const isOn = since === undefined ? temperature > raiseAbove : temperature >= endBelow;
    if (isOn === (since !== undefined)) return;

    if (isOn) state.set(deviceId, time);
    else state.delete(deviceId);
    const text = { state: isOn ? "on" : "off", temperature, time, since: isOn ? time : since };
    // A call that fails here is made again, and has changed nothing: state counts when the call has resolved.
    await publish(`alarms/${deviceId}`, text, { qos: 1, retain: true });
  },
  // Devices do not wait for each other, and each has its readings in order.
  { name: "alarm", concurrency: 16 },
);

export default defineGateway({
  listeners: [tcp({ port: 1883 })],
  streams: [climate],
  handlers: [alarm],
  sinks: [sqlite()],
});
