// Reads the fields of one packet's body and finds the first that is wrong.

import { isUtf8 } from "node:buffer";
import type { Buffer } from "node:buffer";
import type { LimitName } from "../events.ts";
import { reasonCode } from "./frames.ts";
import type { Fault, WireLimits } from "./frames.ts";

const { malformedPacket, protocolError, topicFilterInvalid, topicNameInvalid } = reasonCode;

const notAscii = 1;
const hasNull = 2;
const hasWildcard = 4;

/**
 * What is in the text from `start` to `end`: flags in the low three bits, the number of slashes above them. The only
 * loop over a PUBLISH's topic, so it looks for everything at once.
 */
export function scanText(buffer: Buffer, start: number, end: number): number {
  let flags = 0;
  let slashes = 0;
  for (let at = start; at < end; at++) {
    const byte = buffer[at] as number;
    if (byte > 0x2f && byte < 0x80) continue; // letters and digits first: half the time
    if (byte === 0x2f) slashes++;
    else if (byte >= 0x80) flags |= notAscii;
    else if (byte === 0x2b || byte === 0x23) flags |= hasWildcard;
    else if (byte === 0) flags |= hasNull;
  }
  return flags | (slashes << 3);
}

export const isAscii = (scan: number): boolean => (scan & notAscii) === 0;

/** What is wrong with a UTF-8 Encoded String, or undefined. */
function textFault(buffer: Buffer, start: number, end: number, scan: number, what: string): Fault | undefined {
  if ((scan & hasNull) !== 0) return { reason: `${what} has U+0000 [MQTT-1.5.4-2]`, code: malformedPacket };
  // isUtf8 refuses surrogates and overlong forms too.
  if (isAscii(scan) || isUtf8(buffer.subarray(start, end))) return undefined;
  return { reason: `${what} is not well-formed UTF-8 [MQTT-1.5.4-1]`, code: malformedPacket };
}

/** What is wrong with a topic name, or undefined. Whether it may be empty is for the caller to say. */
export function topicNameFault(
  buffer: Buffer,
  start: number,
  end: number,
  scan: number,
  limits: WireLimits,
  what: string,
): Fault | undefined {
  const fault = textFault(buffer, start, end, scan, what);
  if (fault !== undefined) return fault;
  if ((scan & hasWildcard) !== 0) {
    return { reason: `${what} has a wildcard [MQTT-4.7.0-1]`, code: topicNameInvalid };
  }
  return sizeFault(end - start, scan, limits, what, topicNameInvalid);
}

function sizeFault(bytes: number, scan: number, limits: WireLimits, what: string, code: number): Fault | undefined {
  if (bytes > limits.maximumTopicBytes) {
    const reason = `${what} has ${bytes} bytes, at most ${limits.maximumTopicBytes} are allowed`;
    return { reason, code, limit: "maximumTopicBytes" };
  }
  const levels = (scan >>> 3) + 1;
  if (levels <= limits.maximumTopicLevels) return undefined;
  const reason = `${what} has ${levels} levels, at most ${limits.maximumTopicLevels} are allowed`;
  return { reason, code, limit: "maximumTopicLevels" };
}

/**
 * True for the names that every object inherits: as a key they find something in a table that has nothing. Such a name
 * is allowed as a client id (the broker's tables have no prototype) but not as a topic filter or user property.
 */
export const isPrototypeName = (text: string): boolean => Object.hasOwn(Object.prototype, text);

/**
 * A cursor over the body of one packet. The first thing that is wrong is kept in `fault`; after it every read gives 0 or
 * "", and `more` is false, so that a caller may look at `fault` once at its end.
 */
export class PacketReader {
  readonly buffer: Buffer;
  at: number;
  end: number;
  fault: Fault | undefined = undefined;
  readonly limits: WireLimits;
  /** The packet's name: begins the sentence of every fault. */
  readonly #packet: string;

  constructor(buffer: Buffer, start: number, end: number, packet: string, limits: WireLimits) {
    this.buffer = buffer;
    this.at = start;
    this.end = end;
    this.limits = limits;
    this.#packet = packet;
  }

  get more(): boolean {
    return this.fault === undefined && this.at < this.end;
  }

  fail(code: number, reason: string, limit?: LimitName): void {
    this.fault ??= { reason: `${this.#packet}: ${reason}`, code, limit };
  }

  byte(what: string): number {
    return this.#has(1, what) ? (this.buffer[this.at++] as number) : 0;
  }

  uint16(what: string): number {
    if (!this.#has(2, what)) return 0;
    const value = this.buffer.readUInt16BE(this.at);
    this.at += 2;
    return value;
  }

  uint32(what: string): number {
    if (!this.#has(4, what)) return 0;
    const value = this.buffer.readUInt32BE(this.at);
    this.at += 4;
    return value;
  }

  /** A Variable Byte Integer, which must be in its shortest form [MQTT-1.5.5-1]. */
  variable(what: string): number {
    let value = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.byte(what);
      value |= (byte & 0x7f) << shift;
      if (byte >= 0x80) continue;
      if (byte === 0 && shift > 0) this.fail(malformedPacket, `${what} is not in its shortest form [MQTT-1.5.5-1]`);
      return this.fault === undefined ? value : 0;
    }
    this.fail(malformedPacket, `${what} has more than four bytes, MQTT 5 section 1.5.5`);
    return 0;
  }

  /** [MQTT-2.2.1-3] */
  packetId(): number {
    const id = this.uint16("packet identifier");
    if (id === 0) this.fail(protocolError, "packet identifier is 0 [MQTT-2.2.1-3]");
    return id;
  }

  /** Passes over Binary Data; returns its length. */
  binary(what: string): number {
    const length = this.uint16(what);
    if (!this.#has(length, what)) return 0;
    this.at += length;
    return length;
  }

  text(what: string): string {
    return this.#decode(this.passText(what));
  }

  /** Passes over a UTF-8 Encoded String; returns where its text starts, it ends at `at`. */
  passText(what: string): number {
    const start = this.#passString(what);
    this.#keep(textFault(this.buffer, start, this.at, scanText(this.buffer, start, this.at), what));
    return start;
  }

  topicName(what: string): string {
    return this.#decode(this.passTopicName(what));
  }

  /** A topic name that must be complete: not empty [MQTT-4.7.3-1], no wildcards. Returns where it starts. */
  passTopicName(what: string): number {
    const start = this.#passString(what);
    if (start === this.at) this.fail(topicNameInvalid, `${what} is empty [MQTT-4.7.3-1]`);
    const scan = scanText(this.buffer, start, this.at);
    this.#keep(topicNameFault(this.buffer, start, this.at, scan, this.limits, what));
    return start;
  }

  /** A topic filter: wildcards fill their level, `#` is the last [MQTT-4.7.1-1] [MQTT-4.7.1-2]. */
  topicFilter(): string {
    const what = "topic filter";
    const start = this.#passString(what);
    const scan = scanText(this.buffer, start, this.at);
    this.#keep(textFault(this.buffer, start, this.at, scan, what));
    const filter = this.#decode(start);
    if (filter === "") this.fail(topicFilterInvalid, `${what} is empty [MQTT-4.7.3-1]`);
    this.#keep(sizeFault(this.at - start, scan, this.limits, what, topicFilterInvalid));
    if ((scan & hasWildcard) !== 0) this.#checkWildcards(filter);
    if (isPrototypeName(filter)) this.fail(topicFilterInvalid, `${what} is a name that this gateway does not take`);
    return filter;
  }

  /** A body must be used up: MQTT 5 section 4.13, bytes that no field explains are malformed. */
  finish(): void {
    if (this.more) this.fail(malformedPacket, `${this.end - this.at} bytes too many, MQTT 5 section 4.13`);
  }

  #checkWildcards(filter: string): void {
    for (const [index, level] of filter.split("/").entries()) {
      if (level.length > 1 && /[+#]/.test(level)) {
        this.fail(topicFilterInvalid, "topic filter has a wildcard that does not fill its level [MQTT-4.7.1-2]");
      }
      if (level === "#" && index < filter.split("/").length - 1) {
        this.fail(topicFilterInvalid, "topic filter has # before its last level [MQTT-4.7.1-1]");
      }
    }
  }

  #passString(what: string): number {
    const length = this.uint16(what);
    const start = this.at;
    if (this.#has(length, what)) this.at += length;
    return start;
  }

  #decode(start: number): string {
    return this.fault === undefined ? this.buffer.toString("utf8", start, this.at) : "";
  }

  #keep(fault: Fault | undefined): void {
    if (fault !== undefined) this.fail(fault.code, fault.reason, fault.limit);
  }

  #has(bytes: number, what: string): boolean {
    if (this.fault !== undefined) return false;
    if (this.at + bytes <= this.end) return true;
    this.fail(malformedPacket, `ends within ${what}`);
    return false;
  }
}
