import { readJson, type Identity, type PayloadShape } from "./payload.ts";

/**
 * `{"ts":1780000000000,"values":{"seq":7,"temperature":21.5}}` of the ThingsBoard device API. All devices share one topic: which
 * one it is the server knows from the connection, whose user name is the device's access token. QoS 0 and 1 are supported.
 * https://thingsboard.io/docs/reference/mqtt-api/telemetry/
 */
export const thingsboard: PayloadShape = {
  topic: "v1/devices/me/telemetry",
  qos: 1,
  open: ({ topic }) => ({
    encode: ({ ts, seq, metrics }) => [{ topic, payload: JSON.stringify({ ts, values: { seq, ...metrics } }) }],
  }),
  readIdentity: (payload) =>
    readJson(payload, (value) => {
      const { ts, values } = value as unknown as { readonly ts: number; readonly values: Identity };
      return { ts, seq: values.seq };
    }),
};
