// The packets that the connection writes itself; their layout stands at the head of frames.ts.

import { Buffer } from "node:buffer";
import { packetType, reasonCode } from "./frames.ts";
import type { AckType, ProtocolVersion } from "./frames.ts";

/** With a reason code. */
const maximumAckBytes = 5;

/** What `writeAck` writes. */
export const ackBytes = (version: ProtocolVersion, code: number): number =>
  code === 0 || version !== 5 ? 4 : maximumAckBytes;

const nothing = Buffer.alloc(0);
const reasonStringProperty = 0x1f;
const userProperty = 0x26;
/** Enough for a path and a sentence. */
const maximumReasonBytes = 1024;

/** PUBREL is the only acknowledgement whose flags are not zero, [MQTT-3.6.1-1]. */
const firstByteOf = (type: AckType): number => (type << 4) | (type === packetType.pubrel ? 2 : 0);

/**
 * Writes PUBACK, PUBREC, PUBREL or PUBCOMP at `at`, in 4 or 5 bytes; returns the place behind it. `code` is an MQTT 5
 * reason code and is not sent in 3.1 and 3.1.1, where there is nothing but success.
 */
export function writeAck(
  buffer: Buffer,
  at: number,
  type: AckType,
  packetId: number,
  version: ProtocolVersion,
  code: number,
): number {
  const short = ackBytes(version, code) < maximumAckBytes;
  buffer[at] = firstByteOf(type);
  buffer[at + 1] = short ? 2 : 3;
  buffer[at + 2] = packetId >>> 8;
  buffer[at + 3] = packetId & 0xff;
  if (short) return at + 4;
  buffer[at + 4] = code;
  return at + maximumAckBytes;
}

/** What an acknowledgement tells beside its code. */
export interface Told {
  /** A sentence. */
  readonly reason: string;
  readonly user?: readonly (readonly [name: string, value: string])[];
}

/**
 * The MQTT 5 acknowledgement that tells the device why. The user properties are left out when the packet would be larger than
 * the client takes, then the reason, [MQTT-3.4.2-3] and [MQTT-3.4.2-2]. The caller leaves out both when the client asked for
 * no problem information, [MQTT-3.1.2-29].
 */
export function encodeAckWithReason(
  type: AckType,
  packetId: number,
  code: number,
  { reason, user = [] }: Told,
  maximumPacketBytes = Number.POSITIVE_INFINITY,
): Buffer {
  const head = Buffer.from([packetId >>> 8, packetId & 0xff, code]);
  for (const pairs of user.length > 0 ? [user, []] : [[]]) {
    const packet = packetOf(firstByteOf(type), Buffer.concat([head, tellingProperties(reason, pairs)]));
    if (packet.length <= maximumPacketBytes) return packet;
  }
  const short = Buffer.alloc(maximumAckBytes);
  return short.subarray(0, writeAck(short, 0, type, packetId, 5, code));
}

/** A server's DISCONNECT. 3.1 and 3.1.1 have none: empty, the connection is just closed. */
export function encodeDisconnect(
  version: ProtocolVersion,
  code: number,
  reason?: string,
  maximumPacketBytes = Number.POSITIVE_INFINITY,
): Buffer {
  if (version !== 5) return nothing;
  const first = packetType.disconnect << 4;
  const bare = Buffer.from([first, 2, code, 0]);
  if (reason === undefined) return bare;
  const packet = packetOf(first, Buffer.concat([Buffer.from([code]), tellingProperties(reason)]));
  return packet.length <= maximumPacketBytes ? packet : bare;
}

export function encodePubrel(packetId: number, version: ProtocolVersion, code: number): Buffer {
  const frame = Buffer.allocUnsafe(maximumAckBytes);
  return frame.subarray(0, writeAck(frame, 0, packetType.pubrel, packetId, version, code));
}

/** CONNACK that accepts; `properties` are encoded, without their length, of at most 16 KiB. In 3.1 there is no session present. */
export function encodeConnack(version: ProtocolVersion, sessionPresent: boolean, properties = nothing): Buffer {
  const body = Buffer.from([version !== 3 && sessionPresent ? 1 : 0, 0]);
  if (version !== 5) return packetOf(packetType.connack << 4, body);
  return packetOf(packetType.connack << 4, Buffer.concat([body, variable(properties.length), properties]));
}

/**
 * CONNACK that refuses. `code` is an MQTT 5 reason code; in 3.1 and 3.1.1 it becomes the return code that says the same.
 * Empty where there is none: a malformed CONNECT is answered by closing, MQTT 3.1.1 [MQTT-3.1.4-1]. The reason is left out
 * when the packet would be larger than the client takes, [MQTT-3.2.2-19].
 */
export function encodeConnackRefusal(
  version: ProtocolVersion,
  code: number,
  reason?: string,
  maximumPacketBytes = Number.POSITIVE_INFINITY,
): Buffer {
  const first = packetType.connack << 4;
  if (version === 5) {
    const bare = Buffer.from([first, 3, 0, code, 0]);
    if (reason === undefined) return bare;
    const packet = packetOf(first, Buffer.concat([Buffer.from([0, code]), tellingProperties(reason)]));
    return packet.length <= maximumPacketBytes ? packet : bare;
  }
  const returnCode = returnCodeOf(code);
  return returnCode === undefined ? nothing : Buffer.from([first, 2, 0, returnCode]);
}

/** MQTT 3.1.1 table 3.1. */
function returnCodeOf(code: number): number | undefined {
  switch (code) {
    case reasonCode.unsupportedProtocolVersion:
      return 1;
    case reasonCode.clientIdentifierNotValid:
      return 2;
    case 0x88: // Server unavailable
    case 0x89: // Server busy
    case 0x97: // Quota exceeded
    case 0x9f: // Connection rate exceeded
      return 3;
    case 0x86: // Bad User Name or Password: 4 is for those that are malformed
    case 0x87: // Not authorized
    case 0x8a: // Banned
    case 0x8c: // Bad authentication method
      return 5;
    default:
      return undefined;
  }
}

/** With their length in front. */
function tellingProperties(reason: string, user: Told["user"] = []): Buffer {
  const parts = [Buffer.from([reasonStringProperty]), counted(reason)];
  for (const [name, value] of user) parts.push(Buffer.from([userProperty]), counted(name), counted(value));
  const properties = Buffer.concat(parts);
  return Buffer.concat([variable(properties.length), properties]);
}

function counted(text: string): Buffer {
  const bytes = Buffer.from(clip(text), "utf8");
  return Buffer.concat([Buffer.from([bytes.length >>> 8, bytes.length & 0xff]), bytes]);
}

/** Text that MQTT can carry, at most maximumReasonBytes of UTF-8, [MQTT-1.5.4-1] and [MQTT-1.5.4-2]. */
function clip(reason: string): string {
  const text = reason.replaceAll("\0", "").slice(0, maximumReasonBytes).toWellFormed();
  const bytes = Buffer.from(text, "utf8");
  let end = maximumReasonBytes;
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end);
}

const packetOf = (first: number, body: Buffer): Buffer =>
  Buffer.concat([Buffer.from([first]), variable(body.length), body]);

/** A Variable Byte Integer, MQTT 5 section 1.5.5. */
export function variable(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    bytes.push(rest < 0x80 ? rest : (rest & 0x7f) | 0x80);
    if (rest < 0x80) return Buffer.from(bytes);
  }
}
