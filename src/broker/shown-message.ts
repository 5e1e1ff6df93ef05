// Telemetry for sessions' queues and for who subscribes later: as Aedes would hand it over, had it passed Aedes.

import type { Buffer } from "node:buffer";
import type { PublishPacket } from "aedes";
import type { ShownMessage } from "./connection-context.ts";
import { decodeProperties } from "./live-properties.ts";

interface ShownPacket extends Pick<PublishPacket, "topic" | "qos" | "retain" | "properties"> {
  readonly payload: Buffer;
  readonly clientId: string;
  /** When it expires, in Unix time. */
  readonly messageExpiry?: number;
}

/** The payload is a view of the socket's bytes: `toPublished` copies what is kept. */
export function toPacket({ topic, clientId, buffer, start, end, view }: ShownMessage): ShownPacket {
  const { qos, retain, payloadStart, payloadEnd, propertiesStart, propertiesEnd } = view;
  const payload = buffer.subarray(payloadStart, payloadEnd);
  const packet = { topic, payload, qos, retain, clientId };
  if (propertiesStart === propertiesEnd) return packet;
  const properties = decodeProperties(buffer.subarray(start, end));
  if (properties === undefined) return packet;
  const { messageExpiryInterval: expiryS = 0 } = properties;
  if (expiryS === 0) return { ...packet, properties };
  return { ...packet, properties, messageExpiry: Date.now() + expiryS * 1000 };
}
