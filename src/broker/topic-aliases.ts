// The topic aliases that one MQTT 5 client has set on its connection (section 3.3.2.3.4). How many there may be is told to it in
// CONNACK; a topic is no longer than `limits.maximumTopicBytes`.

import { Buffer } from "node:buffer";
import type { Route } from "../reading.ts";
import type { PublishView } from "./packet-check.ts";
import { variable } from "./packet-writer.ts";

/** A topic as it was looked up when the alias was set. */
export interface AliasedTopic {
  readonly bytes: Buffer;
  readonly topic: string;
  readonly route: Route | undefined;
}

export class TopicAliases {
  readonly #topics: (AliasedTopic | undefined)[] = [];

  get(alias: number): AliasedTopic | undefined {
    return this.#topics[alias - 1];
  }

  /** The same bytes again, as long as they are the same object, cost nothing. */
  set(alias: number, bytes: Buffer, topic: string, route: Route | undefined): void {
    while (this.#topics.length < alias) this.#topics.push(undefined);
    if (this.#topics[alias - 1]?.bytes !== bytes) this.#topics[alias - 1] = { bytes, topic, route };
  }
}

const topicAliasProperty = 0x23;
const userProperty = 0x26;

/**
 * The PUBLISH with its topic in full and without the alias, for who knows nothing of this connection's aliases:
 * [MQTT-3.3.2-7], an alias is not carried from one connection to another.
 */
export function withoutTopicAlias(buffer: Buffer, start: number, view: PublishView, topic: Buffer): Buffer {
  const properties = buffer.subarray(view.propertiesStart, view.propertiesEnd);
  const aliasAt = findAlias(properties);
  const length = properties.length - 3;
  const body = Buffer.concat([
    Buffer.from([topic.length >>> 8, topic.length & 0xff]),
    topic,
    view.qos > 0 ? Buffer.from([view.packetId >>> 8, view.packetId & 0xff]) : Buffer.alloc(0),
    variable(length),
    properties.subarray(0, aliasAt),
    properties.subarray(aliasAt + 3),
    buffer.subarray(view.payloadStart, view.payloadEnd),
  ]);
  return Buffer.concat([buffer.subarray(start, start + 1), variable(body.length), body]);
}

/** Where the Topic Alias begins. It is there, once. */
function findAlias(properties: Buffer): number {
  let at = 0;
  while (properties[at] !== topicAliasProperty) at += propertyBytes(properties, at);
  return at;
}

/** The length of the property at `at`, of those that a client may send in a PUBLISH. */
function propertyBytes(properties: Buffer, at: number): number {
  const identifier = properties[at];
  if (identifier === 0x01) return 2;
  if (identifier === 0x02) return 5;
  const first = 3 + properties.readUInt16BE(at + 1);
  return identifier === userProperty ? first + 2 + properties.readUInt16BE(at + first) : first;
}
