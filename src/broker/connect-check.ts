// The strict check of CONNECT, and what it says.
//
//   CONNECT   protocol name : string, level : u8, flags : u8, keep alive : u16 s, properties in 5, client id : string,
//             will properties in 5, will topic : string, will payload : binary, user name : string, password : binary
//   flags     bit 0 reserved, 1 clean start, 2 will, 3–4 will QoS, 5 will retain, 6 password, 7 user name

import type { Buffer } from "node:buffer";
import type { QoS } from "../reading.ts";
import { packetType, reasonCode } from "./frames.ts";
import type { Fault, ProtocolVersion, WireLimits } from "./frames.ts";
import { PacketReader } from "./packet-reader.ts";
import { readProperties, willProperties } from "./properties.ts";
import type { PropertyValues } from "./properties.ts";

const { clientIdentifierNotValid, malformedPacket, protocolError, unsupportedProtocolVersion } = reasonCode;

/** What a CONNECT says. Where 3.1 and 3.1.1 have no such thing, what MQTT 5 takes as the default. */
export interface ConnectFacts {
  readonly kind: "connect";
  readonly version: ProtocolVersion;
  /** A mosquitto bridge: the protocol level has bit 7 set. */
  readonly bridge: boolean;
  /** May be "", then the broker gives one. Any other text, also the names of Object.prototype. */
  readonly clientId: string;
  readonly cleanStart: boolean;
  /** 0: none. */
  readonly keepAliveS: number;
  readonly username: string | undefined;
  readonly hasPassword: boolean;
  readonly will: WillFacts | undefined;
  /** undefined in 3.1 and 3.1.1, where the session lasts until a clean start, or not at all. */
  readonly sessionExpiryS: number | undefined;
  /** How many QoS 1 and 2 messages the client takes at once. */
  readonly receiveMaximum: number;
  /** The largest packet that the client takes; undefined: any. */
  readonly maximumPacketBytes: number | undefined;
  readonly topicAliasMaximum: number;
  readonly requestProblemInformation: boolean;
  readonly authenticationMethod: string | undefined;
}

interface WillFacts {
  readonly topic: string;
  readonly qos: QoS;
  readonly retain: boolean;
  readonly payloadBytes: number;
  readonly delayS: number;
}

export type ConnectCheck = ConnectFacts | ({ readonly kind: "fault" } & Fault);

/** Checks the packet whose fixed header is at `start`, the first of a connection: only a CONNECT may come [MQTT-3.1.0-1]. */
export function checkConnect(
  buffer: Buffer,
  start: number,
  bodyStart: number,
  end: number,
  limits: WireLimits,
): ConnectCheck {
  const first = buffer[start] as number;
  if (first >>> 4 !== packetType.connect) {
    return { kind: "fault", reason: "the first packet is not a CONNECT [MQTT-3.1.0-1]", code: protocolError };
  }
  const reader = new PacketReader(buffer, bodyStart, end, "CONNECT", limits);
  if (first !== packetType.connect << 4) reader.fail(malformedPacket, "flags are not 0 [MQTT-2.1.3-1]");
  const protocol = readProtocol(reader);
  const facts = readConnect(reader, protocol.version, protocol.bridge);
  reader.finish();
  const { fault } = reader;
  if (fault === undefined) return facts;
  return { kind: "fault", ...fault, version: protocol.version };
}

/** Name and level, [MQTT-3.1.2-1] and [MQTT-3.1.2-2]. A level that nobody knows is answered as MQTT 5 does. */
function readProtocol(reader: PacketReader): { readonly version: ProtocolVersion; readonly bridge: boolean } {
  const name = reader.text("protocol name");
  const level = reader.byte("protocol level");
  const bridge = level === 0x83 || level === 0x84;
  const plain = bridge ? level & 0x7f : level;
  if (plain === 3 && name === "MQIsdp") return { version: 3, bridge };
  if (plain === 4 && name === "MQTT") return { version: 4, bridge };
  if (plain === 5 && name === "MQTT") return { version: 5, bridge };
  const known = name === "MQTT" || name === "MQIsdp";
  const code = known ? unsupportedProtocolVersion : malformedPacket;
  reader.fail(code, `level ${level} of this protocol name is not known [MQTT-3.1.2-1] [MQTT-3.1.2-2]`);
  return { version: name === "MQTT" && level >= 5 ? 5 : 4, bridge };
}

function readConnect(reader: PacketReader, version: ProtocolVersion, bridge: boolean): ConnectFacts {
  const flags = reader.byte("flags");
  checkFlags(reader, flags, version);
  const keepAliveS = reader.uint16("keep alive");
  const properties = version === 5 ? readProperties(reader, packetType.connect) : undefined;
  if (properties?.hasAuthenticationData === true && properties.authenticationMethod === undefined) {
    reader.fail(protocolError, "Authentication Data without an Authentication Method, MQTT 5 section 3.1.2.11.10");
  }
  const clientId = reader.text("client identifier");
  const cleanStart = (flags & 0x02) !== 0;
  checkClientId(reader, clientId, cleanStart, version);
  const will = (flags & 0x04) === 0 ? undefined : readWill(reader, flags, version);
  const username = (flags & 0x80) === 0 ? undefined : reader.text("user name");
  const hasPassword = (flags & 0x40) !== 0;
  if (hasPassword) reader.binary("password");
  const { sessionExpiryS, ...rest } = toDefaults(properties);
  return {
    kind: "connect",
    version,
    bridge,
    clientId,
    cleanStart,
    keepAliveS,
    username,
    hasPassword,
    will,
    sessionExpiryS: version === 5 ? sessionExpiryS : undefined,
    ...rest,
  };
}

function toDefaults(properties: PropertyValues | undefined) {
  return {
    sessionExpiryS: properties?.sessionExpiryS ?? 0,
    receiveMaximum: properties?.receiveMaximum ?? 65_535,
    maximumPacketBytes: properties?.maximumPacketBytes,
    topicAliasMaximum: properties?.topicAliasMaximum ?? 0,
    requestProblemInformation: properties?.requestProblemInformation ?? true,
    authenticationMethod: properties?.authenticationMethod,
  };
}

function checkFlags(reader: PacketReader, flags: number, version: ProtocolVersion): void {
  if ((flags & 0x01) !== 0) reader.fail(malformedPacket, "reserved flag is 1 [MQTT-3.1.2-3]");
  const willQos = (flags >>> 3) & 3;
  if (willQos === 3) reader.fail(malformedPacket, "Will QoS is 3 [MQTT-3.1.2-12]");
  if ((flags & 0x04) === 0) {
    if (willQos !== 0) reader.fail(malformedPacket, "Will QoS without a Will [MQTT-3.1.2-11]");
    if ((flags & 0x20) !== 0) reader.fail(malformedPacket, "Will Retain without a Will [MQTT-3.1.2-13]");
  }
  // MQTT 5 allows a password alone.
  if (version !== 5 && (flags & 0xc0) === 0x40) {
    reader.fail(malformedPacket, "password without a user name, MQTT 3.1.1 [MQTT-3.1.2-22]");
  }
}

function checkClientId(reader: PacketReader, clientId: string, cleanStart: boolean, version: ProtocolVersion): void {
  if (clientId !== "") return;
  if (version === 3) reader.fail(clientIdentifierNotValid, "client identifier is empty, MQTT 3.1 section 3.1");
  if (version === 4 && !cleanStart) {
    reader.fail(clientIdentifierNotValid, "no client identifier with Clean Session 0, MQTT 3.1.1 [MQTT-3.1.3-8]");
  }
}

function readWill(reader: PacketReader, flags: number, version: ProtocolVersion): WillFacts {
  const properties = version === 5 ? readProperties(reader, willProperties) : undefined;
  const topic = reader.topicName("Will Topic");
  const payloadBytes = reader.binary("Will Payload");
  return {
    topic,
    qos: ((flags >>> 3) & 3) as QoS,
    retain: (flags & 0x20) !== 0,
    payloadBytes,
    delayS: properties?.willDelayS ?? 0,
  };
}
