import type { Message } from "../../src/reading.ts";

/** A message that its number makes known. Apart from the fixtures, so that a process without a test runner has it too. */
export function message(sequence: number, payload: Uint8Array | string = `{"seq":${sequence}}`): Message {
  return {
    topic: `devices/d${sequence}/telemetry`,
    payload: typeof payload === "string" ? Buffer.from(payload) : payload,
    clientId: `d${sequence}`,
    deviceId: `d${sequence}`,
    receivedAt: 1_700_000_000_000 + sequence,
    qos: 1,
    packetId: 0,
  };
}
