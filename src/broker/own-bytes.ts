// What is kept must not keep more than itself. Node takes short buffers from slabs of 64 KiB, and one of them that is kept, be
// it of four bytes, keeps its slab whole: 1,000 short messages that wait would hold 64 MB (test/e2e/hostile.test.ts).

import { Buffer } from "node:buffer";
import { setImmediate as turn } from "node:timers/promises";
import { writeToStream } from "mqtt-packet";

/** A copy in memory of its own, for what waits: up to 64 bytes as fast as one from the pool, 0.5 µs more above. */
export function ownBytes(bytes: Uint8Array): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  own.set(bytes);
  return own;
}

/** The same for the only property of a message that is bytes. */
export const ownProperties = <Properties extends { readonly correlationData?: Uint8Array }>(
  properties: Properties,
): Properties =>
  properties.correlationData === undefined
    ? properties
    : { ...properties, correlationData: ownBytes(properties.correlationData) };

/** mqtt-packet keeps for good what it has written for each length below this. */
const KEPT_LENGTHS = 16_384;
const SLICE = 256;
/** Of a PUBLISH in 3.1.1 with a topic of one byte, beside its payload. */
const AROUND_PAYLOAD = 3;

/**
 * Lets mqtt-packet write every length that it keeps, so that these lie side by side: written one by one as messages of such
 * lengths come along, each would keep a slab, 1 GB in all. Once per process, at its start: about 100 ms, in slices of one or two.
 */
export async function fillLengthsKept(): Promise<void> {
  const nowhere = { write: () => true } as never;
  const payloads = Buffer.alloc(KEPT_LENGTHS);
  for (let length = 0; length < KEPT_LENGTHS - AROUND_PAYLOAD; length += 1) {
    if (length % SLICE === 0) await turn();
    const payload = payloads.subarray(0, length);
    const packet = { cmd: "publish", topic: "t", payload, qos: 0, retain: false, dup: false } as const;
    writeToStream(packet, nowhere, { protocolVersion: 4 });
  }
}
