// The strict check that every packet of a client passes before Aedes sees it (DESIGN section 7): what is malformed, or
// would be read differently by the parser behind, must not get through. CONNECT is in connect-check.ts.
//
//   PUBLISH             topic : string, packet id : u16 if QoS > 0, properties in 5, payload to the end
//   PUBACK … PUBCOMP    packet id : u16, in 5 also: reason : u8, properties (both may be left out)
//   SUBSCRIBE           packet id : u16, properties in 5, then for each: filter : string, options : u8
//   UNSUBSCRIBE         packet id : u16, properties in 5, then for each: filter : string
//   DISCONNECT          nothing, in 5 also: reason : u8, properties (both may be left out)
//   AUTH                5 only: reason : u8, properties

import type { Buffer } from "node:buffer";
import type { MessageProperties, QoS } from "../reading.ts";
import { packetType, reasonCode } from "./frames.ts";
import type { Fault, ProtocolVersion, WireLimits } from "./frames.ts";
import { PropertyMemory } from "./message-properties.ts";
import { PacketReader, isAscii, scanText, topicNameFault } from "./packet-reader.ts";
import { readProperties } from "./properties.ts";

const { malformedPacket, protocolError, quotaExceeded, topicAliasInvalid, topicFilterInvalid, topicNameInvalid } =
  reasonCode;

/**
 * Where things are inside a PUBLISH. One object is made per connection and filled for each packet: the hot path
 * allocates nothing. Good only until the next `checkPublish` into it, and not at all after a fault.
 */
export class PublishView {
  qos: QoS = 0;
  retain = false;
  dup = false;
  topicStart = 0;
  /** Equal to topicStart when the topic is empty and comes from `topicAlias`. */
  topicEnd = 0;
  /** The topic's bytes are ASCII: "latin1" decodes them, faster than "utf8". */
  topicIsAscii = true;
  /** 0 for QoS 0. */
  packetId = 0;
  /** Of the properties behind their length; equal when there are none, and in 3.1 and 3.1.1. */
  propertiesStart = 0;
  propertiesEnd = 0;
  /** 0: none. */
  topicAlias = 0;
  payloadStart = 0;
  payloadEnd = 0;
  /** Of the last PUBLISH with properties; none is made for a client that never sends any. */
  memory: PropertyMemory | undefined;
}

/** The topic as text; "" when it comes from an alias. */
export const topicOf = (buffer: Buffer, view: PublishView): string =>
  buffer.toString(view.topicIsAscii ? "latin1" : "utf8", view.topicStart, view.topicEnd);

/** What the PUBLISH says beside its payload; undefined: nothing. The same object while a client gives the same. */
export function propertiesOf(buffer: Buffer, view: PublishView): MessageProperties | undefined {
  const { propertiesStart, propertiesEnd, memory } = view;
  if (propertiesStart === propertiesEnd) return undefined;
  return memory?.decode(buffer, propertiesStart, propertiesEnd);
}

/** Checks a PUBLISH of a client whose body lies from `bodyStart` to `end`, and says in `into` where its parts are. */
export function checkPublish(
  buffer: Buffer,
  bodyStart: number,
  end: number,
  firstByte: number,
  version: ProtocolVersion,
  into: PublishView,
  limits: WireLimits,
): Fault | undefined {
  const qos = (firstByte >>> 1) & 3;
  if (qos === 3) return malformed("PUBLISH: QoS is 3 [MQTT-3.3.1-4]");
  into.qos = qos as QoS;
  into.retain = (firstByte & 1) !== 0;
  into.dup = (firstByte & 8) !== 0;
  if (into.dup && qos === 0) return malformed("PUBLISH: DUP is 1 with QoS 0 [MQTT-3.3.1-2]");

  const topicStart = bodyStart + 2;
  const topicEnd = topicStart + (((buffer[bodyStart] as number) << 8) | (buffer[bodyStart + 1] as number));
  if (topicEnd > end) return malformed("PUBLISH: ends within topic name");
  const scan = scanText(buffer, topicStart, topicEnd);
  const fault = topicNameFault(buffer, topicStart, topicEnd, scan, limits, "PUBLISH: topic name");
  if (fault !== undefined) return fault;
  into.topicStart = topicStart;
  into.topicEnd = topicEnd;
  into.topicIsAscii = isAscii(scan);

  let at = topicEnd;
  into.packetId = 0;
  if (qos > 0) {
    if (at + 2 > end) return malformed("PUBLISH: ends within packet identifier");
    into.packetId = ((buffer[at] as number) << 8) | (buffer[at + 1] as number);
    if (into.packetId === 0) return protocol("PUBLISH: packet identifier is 0 [MQTT-2.2.1-3]");
    at += 2;
  }

  into.topicAlias = 0;
  into.propertiesStart = into.propertiesEnd = at;
  if (version === 5) {
    if (at < end && buffer[at] === 0) at = into.propertiesStart = into.propertiesEnd = at + 1;
    else {
      const wrong = checkPublishProperties(buffer, at, end, into, limits);
      if (wrong !== undefined) return wrong;
      at = into.propertiesEnd;
    }
  }
  if (topicStart === topicEnd && into.topicAlias === 0) {
    // Empty is allowed in 5 only, with an alias, MQTT 5 section 3.3.2.3.4.
    return {
      reason: "PUBLISH: topic name is empty [MQTT-4.7.3-1]",
      code: version === 5 ? protocolError : topicNameInvalid,
    };
  }
  into.payloadStart = at;
  into.payloadEnd = end;
  return undefined;
}

function checkPublishProperties(
  buffer: Buffer,
  at: number,
  end: number,
  into: PublishView,
  limits: WireLimits,
): Fault | undefined {
  const { memory } = into;
  if (memory?.isAt(buffer, at, end) === true) {
    into.topicAlias = memory.topicAlias;
    into.propertiesStart = at + memory.lengthBytes;
    into.propertiesEnd = at + memory.length;
    return undefined;
  }
  const reader = new PacketReader(buffer, at, end, "PUBLISH", limits);
  const { topicAlias = 0 } = readProperties(reader, packetType.publish);
  if (topicAlias > limits.topicAliasMaximum) {
    const reason = `Topic Alias is ${topicAlias}, at most ${limits.topicAliasMaximum} [MQTT-3.3.2-9]`;
    reader.fail(topicAliasInvalid, reason, "topicAliases");
  }
  into.topicAlias = topicAlias;
  let start = at;
  while (((buffer[start] ?? 0) & 0x80) !== 0) start++;
  into.propertiesStart = start + 1;
  into.propertiesEnd = reader.at;
  if (reader.fault !== undefined) return reader.fault;
  into.memory ??= new PropertyMemory();
  into.memory.remember(buffer, at, into.propertiesStart, into.propertiesEnd, topicAlias);
  return undefined;
}

/**
 * Checks any packet of a client but its first CONNECT, from its fixed header at `start`. A second CONNECT and packets
 * that only a server sends are protocol errors. `connectSessionExpiryS`: what an MQTT 5 CONNECT gave (0 when nothing),
 * when known; DISCONNECT may not raise it from 0.
 *
 * Give Aedes nothing after a DISCONNECT: its parser reads a short one on into the bytes behind it.
 */
export function checkPacket(
  buffer: Buffer,
  start: number,
  bodyStart: number,
  end: number,
  version: ProtocolVersion,
  limits: WireLimits,
  connectSessionExpiryS?: number,
): Fault | undefined {
  const first = buffer[start] as number;
  const type = first >>> 4;
  if (type === packetType.publish)
    return checkPublish(buffer, bodyStart, end, first, version, new PublishView(), limits);
  const name = names.get(type);
  if (name === undefined) return protocol(`packet type ${type} is not one that a client may send here [MQTT-3.1.0-2]`);
  // The flags of these three are 2 and of all others 0: [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1].
  const { pubrel, subscribe, unsubscribe } = packetType;
  const flags = type === pubrel || type === subscribe || type === unsubscribe ? 2 : 0;
  if ((first & 15) !== flags) return malformed(`${name}: flags are ${first & 15}, not ${flags} [MQTT-2.1.3-1]`);
  const reader = new PacketReader(buffer, bodyStart, end, name, limits);
  checkBody(reader, type, version, connectSessionExpiryS);
  reader.finish();
  return reader.fault;
}

/** The packets that `checkPacket` knows, by type. */
const names: ReadonlyMap<number, string> = new Map([
  [packetType.puback, "PUBACK"],
  [packetType.pubrec, "PUBREC"],
  [packetType.pubrel, "PUBREL"],
  [packetType.pubcomp, "PUBCOMP"],
  [packetType.subscribe, "SUBSCRIBE"],
  [packetType.unsubscribe, "UNSUBSCRIBE"],
  [packetType.pingreq, "PINGREQ"],
  [packetType.disconnect, "DISCONNECT"],
  [packetType.auth, "AUTH"],
]);

function checkBody(
  reader: PacketReader,
  type: number,
  version: ProtocolVersion,
  connectSessionExpiryS: number | undefined,
): void {
  switch (type) {
    case packetType.puback:
    case packetType.pubrec:
    case packetType.pubrel:
    case packetType.pubcomp:
      checkAck(reader, type, version);
      break;
    case packetType.subscribe:
    case packetType.unsubscribe:
      checkFilters(reader, type, version);
      break;
    case packetType.disconnect:
      if (version === 5) checkDisconnect(reader, connectSessionExpiryS);
      break;
    case packetType.auth:
      checkAuth(reader, version);
      break;
    default: // PINGREQ: nothing
  }
}

function checkAck(reader: PacketReader, type: number, version: ProtocolVersion): void {
  reader.packetId();
  if (version !== 5 || !reader.more) return;
  const codes = type === packetType.puback || type === packetType.pubrec ? receiptCodes : releaseCodes;
  checkReason(reader, codes);
  if (reader.more) readProperties(reader, type);
}

function checkFilters(reader: PacketReader, type: number, version: ProtocolVersion): void {
  reader.packetId();
  if (version === 5) readProperties(reader, type);
  const { maximumFiltersPerSubscribe } = reader.limits;
  let filters = 0;
  while (reader.more) {
    const filter = reader.topicFilter();
    const options = type === packetType.subscribe ? reader.byte("subscription options") : 0;
    checkOptions(reader, options, version);
    if (version === 5 && filter.startsWith("$share/")) checkShared(reader, filter, options);
    if (++filters > maximumFiltersPerSubscribe) {
      const reason = `more than ${maximumFiltersPerSubscribe} topic filters`;
      reader.fail(quotaExceeded, reason, "maximumFiltersPerSubscribe");
    }
  }
  const clause = type === packetType.subscribe ? "MQTT-3.8.3-2" : "MQTT-3.10.3-2";
  if (filters === 0) reader.fail(protocolError, `has no topic filter [${clause}]`);
}

/** Bits 0–1 QoS, in 5 also: 2 No Local, 3 Retain As Published, 4–5 Retain Handling; the rest is 0, [MQTT-3.8.3-5]. */
function checkOptions(reader: PacketReader, options: number, version: ProtocolVersion): void {
  if ((options & (version === 5 ? 0xc0 : 0xfc)) !== 0) {
    reader.fail(malformedPacket, "reserved bits of the subscription options are not 0 [MQTT-3.8.3-5]");
  }
  if ((options & 3) === 3) reader.fail(malformedPacket, "QoS is 3, MQTT 5 section 3.8.3.1");
  if ((options & 0x30) === 0x30) reader.fail(protocolError, "Retain Handling is 3, MQTT 5 section 3.8.3.1");
}

function checkShared(reader: PacketReader, filter: string, options: number): void {
  const [, group = "", ...rest] = filter.split("/");
  if (group === "" || /[+#]/.test(group)) {
    reader.fail(topicFilterInvalid, "share name is empty or has a wildcard [MQTT-4.8.2-1] [MQTT-4.8.2-2]");
  }
  if (rest.join("/") === "") reader.fail(topicFilterInvalid, "shared topic filter is empty [MQTT-4.8.2-2]");
  if ((options & 4) !== 0) reader.fail(protocolError, "No Local with a shared subscription [MQTT-3.8.3-4]");
}

function checkDisconnect(reader: PacketReader, connectSessionExpiryS: number | undefined): void {
  if (!reader.more) return;
  checkReason(reader, disconnectCodes);
  if (!reader.more) return;
  const { sessionExpiryS = 0 } = readProperties(reader, packetType.disconnect);
  if (connectSessionExpiryS === 0 && sessionExpiryS > 0) {
    reader.fail(protocolError, "Session Expiry Interval was 0 and cannot be raised, MQTT 5 section 3.14.2.2.2");
  }
}

/** A server that asked for no authentication takes no AUTH: the connection refuses it by ConnectFacts [MQTT-4.12.0-7]. */
function checkAuth(reader: PacketReader, version: ProtocolVersion): void {
  if (version !== 5) reader.fail(protocolError, "does not exist before MQTT 5");
  checkReason(reader, authCodes);
  const { authenticationMethod } = readProperties(reader, packetType.auth);
  if (authenticationMethod === undefined)
    reader.fail(protocolError, "has no Authentication Method, MQTT 5 section 3.15.2.2.2");
}

function checkReason(reader: PacketReader, codes: ReadonlySet<number>): void {
  const code = reader.byte("reason code");
  if (!codes.has(code)) reader.fail(protocolError, `reason code ${code} is not one of this packet, MQTT 5 section 2.4`);
}

/** What a client may say, MQTT 5 tables 3-4 to 3-7, 3-10 (without what only a server says) and 3-11. */
const receiptCodes: ReadonlySet<number> = new Set([0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
const releaseCodes: ReadonlySet<number> = new Set([0x00, 0x92]);
const disconnectCodes: ReadonlySet<number> = new Set([
  0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
]);
const authCodes: ReadonlySet<number> = new Set([0x18, 0x19]);

const malformed = (reason: string): Fault => ({ reason, code: malformedPacket });
const protocol = (reason: string): Fault => ({ reason, code: protocolError });
