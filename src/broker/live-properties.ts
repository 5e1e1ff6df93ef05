// The MQTT 5 properties of a message on its way to subscribers: as bytes without their length in front, or as Aedes knows them.

import { Buffer } from "node:buffer";
import type { PublishPacket } from "aedes";
import { generate, parser as createParser } from "mqtt-packet";
import type { PublishView } from "./packet-check.ts";

const TOPIC_ALIAS = 0x23;

/** Of a PUBLISH that was checked. A topic alias is between the publisher and the gateway alone. */
export function withoutTopicAlias(buffer: Buffer, { propertiesStart, propertiesEnd }: PublishView): Buffer {
  let at = propertiesStart;
  while (at < propertiesEnd && buffer[at] !== TOPIC_ALIAS) at += propertyBytes(buffer, at);
  return Buffer.concat([buffer.subarray(propertiesStart, at), buffer.subarray(at + 3, propertiesEnd)]);
}

/** The size of a property that a client may send in a PUBLISH, MQTT 5 table 2-4. */
function propertyBytes(buffer: Buffer, at: number): number {
  switch (buffer.readUInt8(at)) {
    case 0x01: // Payload Format Indicator
      return 2;
    case 0x02: // Message Expiry Interval
      return 5;
    case TOPIC_ALIAS:
      return 3;
    case 0x26: {
      // User Property: name and value
      const name = buffer.readUInt16BE(at + 1);
      return 5 + name + buffer.readUInt16BE(at + 3 + name);
    }
    default: // Content Type, Response Topic, Correlation Data
      return 3 + buffer.readUInt16BE(at + 1);
  }
}

type Properties = NonNullable<PublishPacket["properties"]>;

/** Of a whole PUBLISH in MQTT 5 that was checked, as Aedes knows them. */
export function decodeProperties(publish: Buffer): Properties | undefined {
  let properties: Properties | undefined;
  const parser = createParser({ protocolVersion: 5 });
  parser.on("packet", (packet) => {
    if (packet.cmd === "publish") properties = packet.properties;
  });
  parser.parse(Buffer.from(publish)); // a copy: Correlation Data would be a view of it
  if (properties !== undefined) delete properties.topicAlias;
  return properties;
}

/** Those that Aedes has parsed, as bytes. */
export function encodeProperties(properties: Properties): Buffer {
  const { topicAlias: _alias, subscriptionIdentifier: _identifier, ...given } = properties;
  const packet = generate(
    { cmd: "publish", topic: "t", payload: "", qos: 0, dup: false, retain: false, properties: given },
    { protocolVersion: 5 },
  );
  const topicAt = passVariable(packet, 1);
  return packet.subarray(passVariable(packet, topicAt + 3));
}

function passVariable(buffer: Buffer, start: number): number {
  let at = start;
  while (((buffer[at] ?? 0) & 0x80) !== 0) at += 1;
  return at + 1;
}
