import type { Metrics } from "../profiles/profile.ts";
import type { PayloadShape } from "./payload.ts";

/**
 * Names as Zigbee2MQTT exposes them, from src/lib/exposes.ts of https://github.com/Koenkk/zigbee-herdsman-converters; other metrics
 * keep theirs. Phase A has no suffix, but where that name is the sum of the phases.
 */
const names: Readonly<Record<string, string>> = {
  frequency: "ac_frequency",
  ...Object.fromEntries(
    ["voltage", "current", "power", "power_factor", "energy"].flatMap((name) => [
      [`${name}_l2`, `${name}_phase_b`],
      [`${name}_l3`, `${name}_phase_c`],
    ]),
  ),
  voltage_l1: "voltage",
  current_l1: "current",
  power_factor_l1: "power_factor",
  power_l1: "power_phase_a",
  energy_l1: "energy_phase_a",
};

/**
 * `{"battery":97,"humidity":45.1,"last_seen":"2026-06-01T12:00:00.000Z","linkquality":148,"temperature":21.5}`: a device as
 * Zigbee2MQTT publishes it, names in alphabetical order and with `last_seen: ISO_8601` in its settings. There is no place for a
 * sequence number. https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html; last_seen and qos:
 * https://www.zigbee2mqtt.io/guide/configuration/
 */
export const zigbee2mqtt: PayloadShape = {
  topic: "zigbee2mqtt/{device}",
  qos: 1,
  open: ({ topic }) => ({
    encode({ ts, metrics }) {
      const state = Object.fromEntries(
        [
          ...Object.entries(metrics).map(([name, value]) => toExposed(name, value)),
          ["last_seen", new Date(ts).toISOString()] as const,
          ["linkquality", toLinkQuality(metrics, ts)] as const,
        ].toSorted(([a], [b]) => (a < b ? -1 : 1)),
      );
      return [{ topic, payload: JSON.stringify(state) }];
    },
  }),
};

function toExposed(name: string, value: number): readonly [string, number | boolean] {
  switch (name) {
    // A magnet in the frame: contact is true when the door is closed.
    case "open":
      return ["contact", value === 0];
    case "motion":
      return ["occupancy", value === 1];
    case "battery":
      return ["battery", Math.round(value)];
    case "illuminance":
      return ["illuminance", Math.round(value)];
    default:
      return [names[name] ?? name, value];
  }
}

/** 0 to 255. Of a device without a receiver's figure it goes up and down within a quarter of an hour. */
function toLinkQuality({ rssi }: Metrics, ts: number): number {
  const quality = rssi === undefined ? 150 + 40 * Math.sin(ts / 140_000) : 255 * ((rssi + 100) / 75);
  return Math.min(255, Math.max(0, Math.round(quality)));
}
