// The CONNACK of a client that is accepted: the gateway's limits, and what has become of what the client asked for its session.

import { connackProperties } from "./connack.ts";
import type { ConnectFacts } from "./connect-check.ts";
import type { Limits } from "./limits.ts";
import { encodeConnack } from "./packet-writer.ts";

/** The session expiry of MQTT 5 that stands for never; what 3.1.1 has. */
export const NEVER_S = 0xffff_ffff;
const SESSION_EXPIRY = 0x11;
const ASSIGNED_CLIENT_ID = 0x12;

interface Accepted {
  readonly present: boolean;
  /** The client id that was given to a client without one. */
  readonly assignedId: string | undefined;
  /** How long the session will outlive the connection. */
  readonly expiryS: number;
}

export const askedExpiryS = ({ version, cleanStart, sessionExpiryS = 0 }: ConnectFacts): number =>
  version === 5 ? sessionExpiryS : cleanStart ? 0 : NEVER_S;

export function encodeAccepted(
  facts: ConnectFacts,
  { present, assignedId, expiryS }: Accepted,
  limits: Limits,
): Buffer {
  const { version, maximumPacketBytes = Infinity } = facts;
  if (version !== 5) return encodeConnack(version, present);
  const parts = [connackProperties(facts, limits)];
  if (expiryS !== askedExpiryS(facts)) {
    const property = Buffer.from([SESSION_EXPIRY, 0, 0, 0, 0]);
    property.writeUInt32BE(expiryS, 1);
    parts.push(property);
  }
  if (assignedId !== undefined)
    parts.push(Buffer.from([ASSIGNED_CLIENT_ID, 0, assignedId.length]), Buffer.from(assignedId));
  const whole = encodeConnack(version, present, Buffer.concat(parts));
  // A client that takes no packet of this size is told nothing [MQTT-3.1.2-24].
  return whole.length <= maximumPacketBytes ? whole : encodeConnack(version, present);
}
