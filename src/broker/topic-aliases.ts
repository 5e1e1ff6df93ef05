// The topic aliases that one MQTT 5 client has set on its connection (section 3.3.2.3.4). How many there may be is told to it in
// CONNACK; a topic is no longer than `limits.maximumTopicBytes`.

import { Buffer } from "node:buffer";
import type { Route } from "../reading.ts";
import { withoutTopicAlias } from "./live-properties.ts";
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

/**
 * The PUBLISH with its topic in full and without the alias, for who knows nothing of this connection's aliases:
 * [MQTT-3.3.2-7], an alias is not carried from one connection to another.
 */
export function inFull(buffer: Buffer, start: number, view: PublishView, topic: Buffer): Buffer {
  const properties = withoutTopicAlias(buffer, view);
  const body = Buffer.concat([
    Buffer.from([topic.length >>> 8, topic.length & 0xff]),
    topic,
    view.qos > 0 ? Buffer.from([view.packetId >>> 8, view.packetId & 0xff]) : Buffer.alloc(0),
    variable(properties.length),
    properties,
    buffer.subarray(view.payloadStart, view.payloadEnd),
  ]);
  return Buffer.concat([buffer.subarray(start, start + 1), variable(body.length), body]);
}
