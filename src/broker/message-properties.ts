// What an MQTT 5 PUBLISH says beside its payload, as streams are given it (MQTT 5 section 3.3.2.3), and the memory of the
// PUBLISH before: a device gives the same properties each time, so that checking and decoding them again is seldom needed.

import { Buffer } from "node:buffer";
import type { PublishPacket } from "aedes";
import type { MessageProperties } from "../reading.ts";

type Values = { -readonly [Key in keyof MessageProperties]: MessageProperties[Key] };

const nothing = Buffer.alloc(0);
/** Longer ones are looked at each time: what is remembered is memory of each connection. */
const rememberedBytes = 512;

/**
 * Decodes what `readProperties` has found to be right, from `start` to `end`; undefined when nothing of it is for streams. Keeps no
 * view of the buffer.
 */
function decodeMessageProperties(buffer: Buffer, start: number, end: number): MessageProperties | undefined {
  const values: Values = {};
  const user: [string, string][] = [];
  let at = start;
  const text = (): string => {
    const from = at + 2;
    at = from + buffer.readUInt16BE(at);
    return buffer.toString("utf8", from, at);
  };
  let found = false;
  while (at < end) {
    const identifier = buffer[at++] ?? 0;
    found ||= identifier !== 0x23;
    switch (identifier) {
      case 0x01:
        values.payloadFormat = buffer[at++] === 1 ? 1 : 0;
        break;
      case 0x02:
        values.expiryS = buffer.readUInt32BE(at);
        at += 4;
        break;
      case 0x03:
        values.contentType = text();
        break;
      case 0x08:
        values.responseTopic = text();
        break;
      case 0x09: {
        const from = at + 2;
        at = from + buffer.readUInt16BE(at);
        values.correlationData = Uint8Array.from(buffer.subarray(from, at));
        break;
      }
      case 0x26:
        user.push([text(), text()]);
        break;
      default: // Topic Alias, the only other one that a client may send
        at += 2;
    }
  }
  if (user.length > 0) values.user = user;
  return found ? values : undefined;
}

/** The same of a packet that Aedes has decoded: a will. */
export function toMessageProperties(given: PublishPacket["properties"]): MessageProperties | undefined {
  if (given === undefined) return undefined;
  const values: Values = {};
  const { payloadFormatIndicator, messageExpiryInterval, contentType, responseTopic, correlationData } = given;
  // The parser gives a boolean.
  if (payloadFormatIndicator !== undefined) values.payloadFormat = Number(payloadFormatIndicator) === 1 ? 1 : 0;
  if (messageExpiryInterval !== undefined) values.expiryS = messageExpiryInterval;
  if (contentType !== undefined) values.contentType = contentType;
  if (responseTopic !== undefined) values.responseTopic = responseTopic;
  if (correlationData !== undefined) values.correlationData = Uint8Array.from(correlationData);
  const user = Object.entries(given.userProperties ?? {}).flatMap(([name, texts]) =>
    [texts].flat().map((value) => [name, value] as const),
  );
  if (user.length > 0) values.user = user;
  return Object.keys(values).length === 0 ? undefined : values;
}

/**
 * The properties of one PUBLISH, with the length in front of them. What it says of the same bytes holds for whoever sends
 * them. Filled anew again and again: it allocates when they grow, or are decoded.
 */
export class PropertyMemory {
  #bytes: Buffer = nothing;
  /** 0: nothing is remembered. */
  #length = 0;
  #lengthBytes = 0;
  #topicAlias = 0;
  #isDecoded = false;
  #properties: MessageProperties | undefined;

  /** With the length in front. */
  get length(): number {
    return this.#length;
  }

  /** Of the length in front. */
  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  get topicAlias(): number {
    return this.#topicAlias;
  }

  /** True when the bytes at `at` are those that are remembered. */
  isAt(buffer: Buffer, at: number, end: number): boolean {
    const length = this.#length;
    if (length === 0 || at + length > end) return false;
    return buffer.compare(this.#bytes, 0, length, at, at + length) === 0;
  }

  /** Remembers properties that are right: their length at `at`, themselves from `start` to `end`. */
  remember(buffer: Buffer, at: number, start: number, end: number, topicAlias: number): void {
    const length = end - at;
    this.#isDecoded = false;
    this.#properties = undefined;
    this.#length = length > rememberedBytes ? 0 : length;
    if (this.#length === 0) return;
    if (this.#bytes.length < length) this.#bytes = Buffer.allocUnsafeSlow(length);
    buffer.copy(this.#bytes, 0, at, end);
    this.#lengthBytes = start - at;
    this.#topicAlias = topicAlias;
  }

  /** Those that were just found here or were just remembered, from `start` to `end`. */
  decode(buffer: Buffer, start: number, end: number): MessageProperties | undefined {
    if (!this.#isDecoded) {
      this.#properties = decodeMessageProperties(buffer, start, end);
      this.#isDecoded = true;
    }
    return this.#properties;
  }
}
