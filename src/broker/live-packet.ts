// QoS 0 PUBLISH packets for live subscribers, each encoded once for all who get the same bytes.
//
//   PUBLISH   0x30 | retain, remaining length : variable, topic : string, in 5: properties, payload
//   properties in 5: length : variable, the publisher's as they came without a topic alias [MQTT-3.3.2-4], then of the
//             subscriber: 0x0b (Subscription Identifier), variable, for each that matched [MQTT-3.3.4-3]
//
// A message is delivered in the turn that it came in, so its Message Expiry Interval is passed on as it is [MQTT-3.3.2-6].

import { Buffer } from "node:buffer";
import { packetType, type ProtocolVersion } from "./frames.ts";

/** Packets of one shape lie side by side in a block, so that a subscriber who takes them all is given one piece. */
const BLOCK_BYTES = 65_536;
const LARGEST_BODY = 268_435_455;
const SUBSCRIPTION_IDENTIFIER = 0x0b;
const nothing: Buffer = Buffer.alloc(0);

/** Packets are only ever added to a block: what was handed out of it stays good. */
class Block {
  bytes = nothing;
  at = 0;

  /** Where a packet of `size` goes. */
  reserve(size: number): number {
    if (this.at + size > this.bytes.length) {
      this.bytes = Buffer.allocUnsafeSlow(Math.max(BLOCK_BYTES, size));
      this.at = 0;
    }
    const start = this.at;
    this.at += size;
    return start;
  }
}

/** What makes the packets of two subscribers differ. */
export class Shape {
  readonly hasProperties: boolean;
  readonly firstByte: number;
  readonly identifiers: Buffer;
  readonly block: Block;
  /** The message that is encoded, and where its packet lies. */
  message = 0;
  bytes = nothing;
  start = 0;
  end = 0;

  constructor(version: ProtocolVersion, retain: boolean, identifiers: Buffer, block: Block) {
    this.hasProperties = version === 5;
    this.firstByte = (packetType.publish << 4) | (retain ? 1 : 0);
    this.identifiers = identifiers;
    this.block = block;
  }
}

/** Shapes with subscription identifiers are as many as the clients like; beyond this they are shared no more. */
const MOST_SHAPES = 1000;

/** The shapes of one broker. */
export class Shapes {
  readonly #known = new Map<string, Shape>();
  /** One block for all shapes with identifiers, so that these cost no memory each. */
  readonly #common = new Block();

  of(version: ProtocolVersion, retain: boolean, identifiers: readonly number[]): Shape {
    const inVersion = version === 5 ? 5 : 4;
    const given = inVersion === 5 ? identifiers : [];
    const key = `${inVersion}${retain ? "r" : ""} ${given.join(" ")}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    if (this.#known.size >= MOST_SHAPES) this.#known.clear();
    const block = given.length === 0 ? new Block() : this.#common;
    const shape = new Shape(inVersion, retain, encodeIdentifiers(given), block);
    this.#known.set(key, shape);
    return shape;
  }
}

/** One message, filled in for each: nothing is allocated for it. */
export class LivePacket {
  /** Topic with its length in front. */
  topic = nothing;
  payload = nothing;
  payloadStart = 0;
  payloadEnd = 0;
  /** MQTT 5 properties without their length. */
  properties = nothing;
  propertiesStart = 0;
  propertiesEnd = 0;
  #message = 0;

  get payloadBytes(): number {
    return this.payloadEnd - this.payloadStart;
  }

  /** What the fields say is a new message from now on. */
  begin(): void {
    this.#message += 1;
  }

  /** Has the message in the shape: `shape.bytes` from `start` to `end`. False: it cannot be written in MQTT. */
  encode(shape: Shape): boolean {
    if (shape.message === this.#message) return shape.end > shape.start;
    shape.message = this.#message;
    const { topic, payloadBytes } = this;
    const own = this.propertiesEnd - this.propertiesStart;
    const propertiesBytes = shape.hasProperties ? own + shape.identifiers.length : 0;
    const lengthBytes = shape.hasProperties ? variableBytes(propertiesBytes) : 0;
    const bodyBytes = topic.length + lengthBytes + propertiesBytes + payloadBytes;
    if (bodyBytes > LARGEST_BODY) {
      shape.start = shape.end = 0;
      return false;
    }
    const size = 1 + variableBytes(bodyBytes) + bodyBytes;
    const { block } = shape;
    shape.start = block.reserve(size);
    shape.end = shape.start + size;
    const bytes = (shape.bytes = block.bytes);
    bytes[shape.start] = shape.firstByte;
    let at = writeVariable(bytes, shape.start + 1, bodyBytes);
    at += topic.copy(bytes, at);
    if (shape.hasProperties) {
      at = writeVariable(bytes, at, propertiesBytes);
      if (own > 0) at += this.properties.copy(bytes, at, this.propertiesStart, this.propertiesEnd);
      if (shape.identifiers.length > 0) at += shape.identifiers.copy(bytes, at);
    }
    if (payloadBytes > 0) this.payload.copy(bytes, at, this.payloadStart, this.payloadEnd);
    return true;
  }
}

/** A topic as it stands in a PUBLISH. */
export function encodeTopic(topic: string): Buffer {
  const bytes = Buffer.byteLength(topic);
  const encoded = Buffer.allocUnsafeSlow(2 + bytes); // it is kept: see own-bytes.ts
  encoded.writeUInt16BE(bytes, 0);
  encoded.write(topic, 2);
  return encoded;
}

function encodeIdentifiers(identifiers: readonly number[]): Buffer {
  const encoded = Buffer.alloc(5 * identifiers.length);
  let at = 0;
  for (const identifier of identifiers) {
    encoded[at] = SUBSCRIPTION_IDENTIFIER;
    at = writeVariable(encoded, at + 1, identifier);
  }
  return encoded.subarray(0, at);
}

function variableBytes(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  return value < 0x20_0000 ? 3 : 4;
}

function writeVariable(bytes: Buffer, start: number, value: number): number {
  let at = start;
  let rest = value;
  while (rest >= 0x80) {
    bytes[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  bytes[at++] = rest;
  return at;
}
