// The properties of MQTT 5 that a client may send (section 2.2.2.2): where each may stand and what it may hold.
//
//   properties   length : variable, then for each: identifier : variable (all are below 128, so one byte), value

import { unreachable } from "../errors.ts";
import { packetType, reasonCode } from "./frames.ts";
import { isPrototypeName } from "./packet-reader.ts";
import type { PacketReader } from "./packet-reader.ts";

const { implementationSpecific, malformedPacket, protocolError, topicAliasInvalid } = reasonCode;

/** The values that the gateway uses; undefined: not given. Times are in seconds. */
export interface PropertyValues {
  readonly sessionExpiryS: number | undefined;
  readonly receiveMaximum: number | undefined;
  readonly maximumPacketBytes: number | undefined;
  readonly topicAliasMaximum: number | undefined;
  readonly requestProblemInformation: boolean | undefined;
  readonly authenticationMethod: string | undefined;
  readonly hasAuthenticationData: boolean;
  readonly willDelayS: number | undefined;
  readonly topicAlias: number | undefined;
}

type Values = { -readonly [Key in keyof PropertyValues]: PropertyValues[Key] };

/** The place in a CONNECT that has properties of its own; the other places are packet types. */
export const willProperties = 0;

interface Property {
  readonly name: string;
  readonly kind: "flag" | "uint16" | "uint32" | "variable" | "text" | "topic" | "binary" | "pair";
  /** Bit n: may stand in packet type n. */
  readonly places: number;
  /** True when the value must not be 0. */
  readonly positive?: boolean;
}

const { auth, connect, disconnect, puback, pubcomp, publish, pubrec, pubrel, subscribe, unsubscribe } = packetType;

const places = (...types: readonly number[]): number => types.reduce((mask, type) => mask | (1 << type), 0);

const withReason = places(puback, pubrec, pubrel, pubcomp, disconnect, auth);
const everywhere = withReason | places(connect, willProperties, publish, subscribe, unsubscribe);
const messages = places(publish, willProperties);

/** MQTT 5 table 2-4 without what only a server sends. */
const table = [
  [0x01, { name: "Payload Format Indicator", kind: "flag", places: messages }],
  [0x02, { name: "Message Expiry Interval", kind: "uint32", places: messages }],
  [0x03, { name: "Content Type", kind: "text", places: messages }],
  [0x08, { name: "Response Topic", kind: "topic", places: messages }],
  [0x09, { name: "Correlation Data", kind: "binary", places: messages }],
  // In a PUBLISH only a server may send it, [MQTT-3.3.4-6].
  [0x0b, { name: "Subscription Identifier", kind: "variable", places: places(subscribe), positive: true }],
  [0x11, { name: "Session Expiry Interval", kind: "uint32", places: places(connect, disconnect) }],
  [0x15, { name: "Authentication Method", kind: "text", places: places(connect, auth) }],
  [0x16, { name: "Authentication Data", kind: "binary", places: places(connect, auth) }],
  [0x17, { name: "Request Problem Information", kind: "flag", places: places(connect) }],
  [0x18, { name: "Will Delay Interval", kind: "uint32", places: places(willProperties) }],
  [0x19, { name: "Request Response Information", kind: "flag", places: places(connect) }],
  [0x1f, { name: "Reason String", kind: "text", places: withReason }],
  [0x21, { name: "Receive Maximum", kind: "uint16", places: places(connect), positive: true }],
  [0x22, { name: "Topic Alias Maximum", kind: "uint16", places: places(connect) }],
  [0x23, { name: "Topic Alias", kind: "uint16", places: places(publish), positive: true }],
  [0x26, { name: "User Property", kind: "pair", places: everywhere }],
  [0x27, { name: "Maximum Packet Size", kind: "uint32", places: places(connect), positive: true }],
] as const satisfies readonly (readonly [number, Property])[];

/** Each with a bit of its own, to know what was given already. */
const properties: ReadonlyMap<number, Property & { readonly bit: number }> = new Map(
  table.map(([identifier, property], index) => [identifier, { ...property, bit: 1 << index }]),
);

const authenticationMethod = 0x15;

/** Reads the properties that stand at the reader's place. `place` is a packet type, or `willProperties`. */
export function readProperties(reader: PacketReader, place: number): PropertyValues {
  const values: Values = {
    sessionExpiryS: undefined,
    receiveMaximum: undefined,
    maximumPacketBytes: undefined,
    topicAliasMaximum: undefined,
    requestProblemInformation: undefined,
    authenticationMethod: undefined,
    hasAuthenticationData: false,
    willDelayS: undefined,
    topicAlias: undefined,
  };
  const length = reader.variable("property length");
  const bodyEnd = reader.end;
  if (reader.at + length > bodyEnd) reader.fail(malformedPacket, "property length is beyond the packet's end");
  reader.end = reader.at + length;
  let seen = 0;
  while (reader.more) {
    const identifier = reader.byte("property identifier");
    const property = properties.get(identifier);
    if (property === undefined || (property.places & (1 << place)) === 0) {
      reader.fail(malformedPacket, `property ${identifier} is not allowed here, MQTT 5 section 2.2.2.2`);
      break;
    }
    if ((seen & property.bit) !== 0 && property.kind !== "pair") {
      reader.fail(protocolError, `${property.name} is given twice, MQTT 5 section 2.2.2.2`);
    }
    seen |= property.bit;
    if (identifier === authenticationMethod) values.authenticationMethod = reader.text(property.name);
    else keepValue(values, identifier, readValue(reader, property));
  }
  reader.end = bodyEnd;
  return values;
}

/** Checks a value and passes over it. Returns numbers; texts are checked but not decoded. */
function readValue(reader: PacketReader, property: Property): number {
  const { kind, name } = property;
  switch (kind) {
    case "flag": {
      const value = reader.byte(name);
      if (value > 1) reader.fail(protocolError, `${name} is neither 0 nor 1`);
      return value;
    }
    case "uint16":
      return checkPositive(reader, property, reader.uint16(name));
    case "uint32":
      return checkPositive(reader, property, reader.uint32(name));
    case "variable":
      return checkPositive(reader, property, reader.variable(name));
    case "text":
      return reader.passText(name);
    case "topic":
      return reader.passTopicName(name); // [MQTT-3.3.2-14]
    case "binary":
      return reader.binary(name);
    case "pair":
      return checkPair(reader, name);
    default:
      return unreachable(kind);
  }
}

function checkPair(reader: PacketReader, name: string): number {
  const key = reader.text(name);
  if (isPrototypeName(key)) reader.fail(implementationSpecific, `${name} has a name that this gateway does not take`);
  return reader.passText(name); // [MQTT-1.5.7-1]
}

function checkPositive(reader: PacketReader, { name, positive }: Property, value: number): number {
  if (positive === true && value === 0) {
    const code = name === "Topic Alias" ? topicAliasInvalid : protocolError; // [MQTT-3.3.2-8]
    reader.fail(code, `${name} is 0`);
  }
  return value;
}

function keepValue(values: Values, identifier: number, value: number): void {
  if (identifier === 0x11) values.sessionExpiryS = value;
  else if (identifier === 0x16) values.hasAuthenticationData = true;
  else if (identifier === 0x17) values.requestProblemInformation = value === 1;
  else if (identifier === 0x18) values.willDelayS = value;
  else if (identifier === 0x21) values.receiveMaximum = value;
  else if (identifier === 0x22) values.topicAliasMaximum = value;
  else if (identifier === 0x23) values.topicAlias = value;
  else if (identifier === 0x27) values.maximumPacketBytes = value;
}
