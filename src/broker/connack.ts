// What CONNACK tells an MQTT 5 client of the gateway's limits and of what it can do.

import type { ConnectFacts } from "./connect-check.ts";
import type { Limits } from "./limits.ts";

/** The encoded properties, without their length. */
export function connackProperties(_facts: ConnectFacts, limits: Limits): Buffer {
  const properties = Buffer.alloc(10);
  properties[0] = 0x21; // Receive Maximum
  properties.writeUInt16BE(limits.maximumInflightQos2, 1);
  properties[3] = 0x27; // Maximum Packet Size
  properties.writeUInt32BE(limits.maximumPacketBytes, 4);
  properties[8] = 0x2a; // Shared Subscription Available: no
  properties[9] = 0;
  return properties;
}
