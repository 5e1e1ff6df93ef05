// The MQTT 5 properties of a record, as MQTT 5 section 2.2.2.2 has them on the wire, so that they never take more room than in
// the PUBLISH that they came with:
//
//   identifier u8, then its value: 0x01 payload format u8 | 0x02 expiry u32 in seconds | 0x03 content type, 0x08 response topic:
//   length u16, UTF-8 | 0x09 correlation data: length u16, bytes | 0x26 user property: twice length u16, UTF-8
//
// Unlike all else in the journal the integers are big-endian. Nothing follows the last property.

import type { MessageProperties } from "../reading.ts";

const payloadFormatId = 0x01;
const expiryId = 0x02;
const contentTypeId = 0x03;
const responseTopicId = 0x08;
const correlationDataId = 0x09;
const userId = 0x26;

/** RangeError: a text or the correlation data has more than 65,535 bytes, which MQTT cannot carry. */
export function encodeProperties(properties: MessageProperties): Buffer {
  const { payloadFormat, expiryS, contentType, responseTopic, correlationData, user = [] } = properties;
  const parts: Uint8Array[] = [];
  if (payloadFormat !== undefined) parts.push(Uint8Array.of(payloadFormatId, payloadFormat));
  if (expiryS !== undefined) {
    const expiry = Buffer.from([expiryId, 0, 0, 0, 0]);
    expiry.writeUInt32BE(expiryS, 1);
    parts.push(expiry);
  }
  if (contentType !== undefined) parts.push(Uint8Array.of(contentTypeId), ...toSized(Buffer.from(contentType)));
  if (responseTopic !== undefined) parts.push(Uint8Array.of(responseTopicId), ...toSized(Buffer.from(responseTopic)));
  if (correlationData !== undefined) parts.push(Uint8Array.of(correlationDataId), ...toSized(correlationData));
  for (const [name, value] of user)
    parts.push(Uint8Array.of(userId), ...toSized(Buffer.from(name)), ...toSized(Buffer.from(value)));
  return Buffer.concat(parts);
}

function toSized(bytes: Uint8Array): readonly [length: Uint8Array, bytes: Uint8Array] {
  if (bytes.length > 0xffff) throw new RangeError("an MQTT property has at most 65,535 bytes");
  return [Uint8Array.of(bytes.length >>> 8, bytes.length & 0xff), bytes];
}

/** From `start` to `end` of a frame whose checksum is right. */
export function decodeProperties(bytes: Buffer, start: number, end: number): MessageProperties {
  const properties: { -readonly [Key in keyof MessageProperties]: MessageProperties[Key] } = {};
  const user: [name: string, value: string][] = [];
  let at = start;
  const sized = (): Buffer => {
    const from = at + 2;
    at = from + bytes.readUInt16BE(at);
    return bytes.subarray(from, at);
  };
  while (at < end) {
    const identifier = bytes[at++];
    if (identifier === payloadFormatId) properties.payloadFormat = bytes[at++] === 1 ? 1 : 0;
    else if (identifier === expiryId) {
      properties.expiryS = bytes.readUInt32BE(at);
      at += 4;
    } else if (identifier === contentTypeId) properties.contentType = sized().toString("utf8");
    else if (identifier === responseTopicId) properties.responseTopic = sized().toString("utf8");
    else if (identifier === correlationDataId) properties.correlationData = Buffer.from(sized());
    else if (identifier === userId) user.push([sized().toString("utf8"), sized().toString("utf8")]);
    else break;
  }
  if (user.length > 0) properties.user = user;
  return properties;
}
