import { readJson, type PayloadShape } from "./payload.ts";

/** `{"ts":1780000000000,"seq":7,"temperature":21.5}`: what most people write first. */
export const flat: PayloadShape = {
  topic: "devices/{device}/telemetry",
  qos: 1,
  open: ({ topic }) => ({
    encode: ({ ts, seq, metrics }) => [{ topic, payload: JSON.stringify({ ts, seq, ...metrics }) }],
  }),
  readIdentity: (payload) => readJson(payload, (value) => value),
};
