// MQTT on the wire: whole packets out of a socket's bytes, and the few packets that the connection writes itself.
//
//   packet            type << 4 | flags : u8, remaining length : variable, body
//   variable          1 to 4 bytes of 7 bits, the lowest first; bit 7 says that another follows
//   PUBACK … PUBCOMP  type << 4 | flags, 2, packet id : u16                                       3.1, 3.1.1, and 5 on success
//                     type << 4 | flags, 3, packet id : u16, reason : u8                          5
//                     type << 4 | flags, n, packet id : u16, reason : u8, properties              5, with a reason to tell
//   DISCONNECT        0xe0, n, reason : u8, properties                                            5 only
//   CONNACK           0x20, 2, 0, return code : u8                                                3.1, 3.1.1
//                     0x20, n, 0, reason : u8, properties                                         5
//   properties        length : variable, then 0x1f (Reason String), length : u16, UTF-8,
//                     then for each 0x26 (User Property), length : u16, name, length : u16, value
//
// Clauses are cited with their number in MQTT 5; those that only 3.1.1 has say so.

import { Buffer } from "node:buffer";
import type { LimitName } from "../events.ts";

/** MQTT 3.1 (3), 3.1.1 (4) and 5 (5): the protocol level of CONNECT. */
export type ProtocolVersion = 3 | 4 | 5;

export const packetType = {
  connect: 1,
  connack: 2,
  publish: 3,
  puback: 4,
  pubrec: 5,
  pubrel: 6,
  pubcomp: 7,
  subscribe: 8,
  suback: 9,
  unsubscribe: 10,
  unsuback: 11,
  pingreq: 12,
  pingresp: 13,
  disconnect: 14,
  auth: 15,
} as const;

export type AckType = 4 | 5 | 6 | 7;

/** The MQTT 5 reason codes that the checks and the connection give. */
export const reasonCode = {
  noMatchingSubscribers: 0x10,
  unspecifiedError: 0x80,
  malformedPacket: 0x81,
  protocolError: 0x82,
  /** The packet is right but this gateway does not take it. */
  implementationSpecific: 0x83,
  unsupportedProtocolVersion: 0x84,
  clientIdentifierNotValid: 0x85,
  badUserNameOrPassword: 0x86,
  notAuthorized: 0x87,
  serverUnavailable: 0x88,
  serverShuttingDown: 0x8b,
  badAuthenticationMethod: 0x8c,
  keepAliveTimeout: 0x8d,
  sessionTakenOver: 0x8e,
  topicFilterInvalid: 0x8f,
  topicNameInvalid: 0x90,
  receiveMaximumExceeded: 0x93,
  topicAliasInvalid: 0x94,
  packetTooLarge: 0x95,
  quotaExceeded: 0x97,
  payloadFormatInvalid: 0x99,
  retainNotSupported: 0x9a,
} as const;

/** Why a packet must be refused. The connection ends with it: nothing of the packet, nor what follows, may be used. */
export interface Fault {
  /** A sentence for the log that names the clause. It holds nothing of what the client sent but numbers. */
  readonly reason: string;
  /** MQTT 5 reason code, for DISCONNECT, or for CONNACK when the packet was a CONNECT. */
  readonly code: number;
  /** Of a CONNECT: the version in which the client can be answered; undefined while it is not known. */
  readonly version?: ProtocolVersion | undefined;
  /** The limit of the configuration that the packet is beyond, if it is that. */
  readonly limit?: LimitName | undefined;
}

/** Bounds of the gateway's own, beyond what MQTT says. */
export interface WireLimits {
  /** Levels of a topic or filter. Aedes throws beyond 100. */
  readonly maximumTopicLevels: number;
  readonly maximumTopicBytes: number;
  readonly maximumFiltersPerSubscribe: number;
  /** What CONNACK told the client; 0: no aliases. */
  readonly topicAliasMaximum: number;
}

export const defaultWireLimits: WireLimits = Object.freeze({
  maximumTopicLevels: 64,
  maximumTopicBytes: 1024,
  maximumFiltersPerSubscribe: 100,
  topicAliasMaximum: 0,
});

const nothing = Buffer.alloc(0);
/** Fixed header byte and at most four of remaining length. */
const maximumHeaderBytes = 5;
const smallestPartialBytes = 512;

/**
 * Splits a socket's bytes into whole packets:
 *
 *     splitter.push(chunk);
 *     while (splitter.next()) handle(splitter.buffer, splitter.start, splitter.bodyStart, splitter.end);
 *     if (splitter.fault !== undefined) …
 *
 * A packet that lies within one chunk is not copied and nothing is allocated for it. To pause, stop calling `next` and
 * go on with it later, after `keep`; a chunk that is pushed meanwhile is copied behind what is left. The splitter never writes
 * to bytes that it has handed out, so a view of them stays good for as long as the chunk does.
 */
export class FrameSplitter {
  /** Where the packet of the last `next` lies: its fixed header at `start`, its body from `bodyStart` to `end`. */
  buffer: Buffer = nothing;
  start = 0;
  bodyStart = 0;
  end = 0;
  /** Set when the bytes cannot be split any further; `next` is false from then on. */
  fault: Fault | undefined = undefined;

  /** For the packets after the one that `next` has moved to. */
  maximumPacketBytes: number;
  /** The setting that it comes from. */
  limit: LimitName | undefined;
  #chunk: Buffer = nothing;
  #at = 0;
  /** The begin of a packet whose rest has not arrived: the first #partialBytes of #partial. Grows as bytes arrive. */
  #partial: Buffer = nothing;
  #partialBytes = 0;

  /** `maximumPacketBytes` counts the whole packet with its fixed header, as Maximum Packet Size of MQTT 5 does. */
  constructor(maximumPacketBytes: number, limit?: LimitName) {
    this.maximumPacketBytes = maximumPacketBytes;
    this.limit = limit;
  }

  /** Bytes that were pushed and not handed out yet. */
  get pendingBytes(): number {
    return this.#partialBytes + this.#chunk.length - this.#at;
  }

  /** The first byte of the packet that `next` would move to; undefined while nothing of it is there. */
  get nextByte(): number | undefined {
    return this.#partialBytes > 0 ? this.#partial[0] : this.#chunk[this.#at];
  }

  push(chunk: Buffer): void {
    const left = this.#chunk.length - this.#at;
    this.#chunk = left === 0 ? chunk : Buffer.concat([this.#chunk.subarray(this.#at), chunk]);
    this.#at = 0;
  }

  /** The memory of the chunk is used again: what is left of it is copied. */
  keep(): void {
    const left = this.#chunk.length - this.#at;
    this.#chunk = left === 0 ? nothing : Buffer.from(this.#chunk.subarray(this.#at));
    this.#at = 0;
  }

  /** Moves to the next whole packet; false when there is none. */
  next(): boolean {
    if (this.fault !== undefined) return false;
    if (this.#partialBytes > 0) return this.#completePartial();
    const size = this.#sizeAt(this.#chunk, this.#at, this.#chunk.length);
    if (size === 0 || this.#at + size > this.#chunk.length) {
      this.#keepRest(size);
      return false;
    }
    this.buffer = this.#chunk;
    this.start = this.#at;
    this.end = this.#at += size;
    return true;
  }

  /** The size of the packet that begins at `at`, with `bodyStart` set; 0 when that is not known yet, or is a fault. */
  #sizeAt(buffer: Buffer, at: number, end: number): number {
    let length = 0;
    for (let index = 1; index < maximumHeaderBytes; index++) {
      if (at + index >= end) return 0;
      const byte = buffer[at + index] as number;
      length |= (byte & 0x7f) << (7 * (index - 1));
      if (byte < 0x80) {
        const size = index + 1 + length;
        if (size <= this.maximumPacketBytes) {
          this.bodyStart = at + index + 1;
          return size;
        }
        const reason = `packet of ${size} bytes, at most ${this.maximumPacketBytes} are allowed`;
        this.fault = { reason, code: reasonCode.packetTooLarge, limit: this.limit };
        return 0;
      }
    }
    const reason = "remaining length has more than four bytes, MQTT 5 section 1.5.5";
    this.fault = { reason, code: reasonCode.malformedPacket };
    return 0;
  }

  /** The chunk ends within a packet of `size` bytes (0: unknown): keeps what is there and lets go of the chunk. */
  #keepRest(size: number): void {
    const rest = this.#chunk.length - this.#at;
    if (rest > 0 && this.fault === undefined) {
      this.#reserve(rest, size);
      this.#takeIntoPartial(rest);
    }
    this.#chunk = nothing;
    this.#at = 0;
  }

  #completePartial(): boolean {
    let size = this.#sizeAt(this.#partial, 0, this.#partialBytes);
    while (size === 0 && this.fault === undefined && this.#at < this.#chunk.length) {
      this.#reserve(this.#partialBytes + 1, maximumHeaderBytes);
      this.#takeIntoPartial(1);
      size = this.#sizeAt(this.#partial, 0, this.#partialBytes);
    }
    if (size === 0) return false;
    const bytes = Math.min(size - this.#partialBytes, this.#chunk.length - this.#at);
    this.#reserve(this.#partialBytes + bytes, size);
    this.#takeIntoPartial(bytes);
    if (this.#partialBytes < size) return false;
    this.buffer = this.#partial.subarray(0, size);
    this.start = 0;
    this.end = size;
    this.#partial = nothing;
    this.#partialBytes = 0;
    return true;
  }

  #takeIntoPartial(bytes: number): void {
    this.#chunk.copy(this.#partial, this.#partialBytes, this.#at, this.#at + bytes);
    this.#partialBytes += bytes;
    this.#at += bytes;
  }

  /**
   * Makes room for `bytes` of a packet of `size`. It doubles rather than taking `size` at once, so that a header alone
   * does not make the gateway reserve a whole packet.
   */
  #reserve(bytes: number, size: number): void {
    if (bytes <= this.#partial.length) return;
    const room = Math.max(bytes, Math.min(size, Math.max(2 * bytes, smallestPartialBytes)));
    const larger = Buffer.allocUnsafe(room);
    this.#partial.copy(larger, 0, 0, this.#partialBytes);
    this.#partial = larger;
  }
}
