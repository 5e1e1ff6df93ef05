// What CONNACK tells an MQTT 5 client of the gateway's limits, each of which is enforced (section 3.2.2.3), and what is
// refused at once because of them. What CONNACK leaves out is MQTT's default: QoS 2, wildcards, subscription identifiers.
//
//   properties   for each: identifier : u8, value

import { Buffer } from "node:buffer";
import type { ConnectFacts } from "./connect-check.ts";
import { type Fault, reasonCode } from "./frames.ts";
import type { Limits } from "./limits.ts";

const serverKeepAlive = 0x13;
const receiveMaximum = 0x21;
const topicAliasMaximum = 0x22;
const retainAvailable = 0x25;
const maximumPacketSize = 0x27;
const sharedSubscriptionAvailable = 0x2a;
/** All that `connackProperties` can write: three values of two bytes, one of four, two of one, each with its identifier. */
const maximumBytes = 3 * 3 + 5 + 2 * 2;

type AppliedLimits = Pick<
  Limits,
  "maximumInflightQos2" | "maximumPacketBytes" | "topicAliases" | "maximumKeepAliveS" | "retainedMessages"
>;

/** The properties of a CONNACK that accepts, without their length in front; what depends on the session is not in them. */
export function connackProperties(facts: Pick<ConnectFacts, "keepAliveS">, limits: AppliedLimits): Buffer {
  const bytes = Buffer.alloc(maximumBytes);
  let at = bytes.writeUInt8(receiveMaximum);
  at = bytes.writeUInt16BE(limits.maximumInflightQos2, at);
  at = bytes.writeUInt8(maximumPacketSize, at);
  at = bytes.writeUInt32BE(limits.maximumPacketBytes, at);
  if (limits.topicAliases > 0) {
    at = bytes.writeUInt8(topicAliasMaximum, at);
    at = bytes.writeUInt16BE(limits.topicAliases, at);
  }
  const appliedS = keepAliveOf({ ...facts, version: 5 }, limits);
  if (appliedS !== facts.keepAliveS) {
    at = bytes.writeUInt8(serverKeepAlive, at);
    at = bytes.writeUInt16BE(appliedS, at);
  }
  if (limits.retainedMessages === 0) at = bytes.writeUInt16BE(retainAvailable << 8, at);
  at = bytes.writeUInt16BE(sharedSubscriptionAvailable << 8, at);
  return bytes.subarray(0, at);
}

/**
 * The keep-alive that is enforced, in seconds; 0: none. Only MQTT 5 has a way to tell a client that it is another one than its
 * own [MQTT-3.2.2-21], so that a client of 3.1 or 3.1.1 keeps what it has asked for.
 */
export function keepAliveOf(
  { keepAliveS, version }: Pick<ConnectFacts, "keepAliveS" | "version">,
  { maximumKeepAliveS }: Pick<Limits, "maximumKeepAliveS">,
): number {
  if (version !== 5 || maximumKeepAliveS === 0) return keepAliveS;
  return keepAliveS === 0 ? maximumKeepAliveS : Math.min(keepAliveS, maximumKeepAliveS);
}

/** Why a CONNECT that is well-formed is refused all the same, before anybody is asked who the client is. */
export function connectRefusal(facts: ConnectFacts, limits: Pick<Limits, "retainedMessages">): Fault | undefined {
  if (facts.authenticationMethod !== undefined) {
    const reason = "CONNECT: there is no enhanced authentication here [MQTT-4.12.0-1]";
    return { reason, code: reasonCode.badAuthenticationMethod, version: facts.version };
  }
  if (facts.version === 5 && facts.will?.retain === true && limits.retainedMessages === 0) {
    const reason = "CONNECT: the will is to be retained, and nothing is [MQTT-3.2.2-13]";
    return { reason, code: reasonCode.retainNotSupported, version: facts.version, limit: "retainedMessages" };
  }
  return undefined;
}

/** MQTT 5 clients were told that nothing is retained. */
export const retainUnavailable: Fault = {
  reason: "PUBLISH: it is to be retained, and nothing is [MQTT-3.2.2-14]",
  code: reasonCode.retainNotSupported,
  limit: "retainedMessages",
};
