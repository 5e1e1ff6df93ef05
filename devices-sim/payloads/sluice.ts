import { readJson, type PayloadShape } from "./payload.ts";

/** `{"ts":1780000000000,"seq":7,"metrics":{"temperature":21.5}}`: what the example configuration of Sluice expects. */
export const sluice: PayloadShape = {
  topic: "devices/{device}/telemetry",
  qos: 1,
  open: ({ topic }) => ({ encode: (reading) => [{ topic, payload: JSON.stringify(reading) }] }),
  readIdentity: (payload) => readJson(payload, (value) => value),
};
