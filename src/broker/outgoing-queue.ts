// The QoS 1 and 2 messages that one session's client has still to get: those in flight and those that wait. The queue
// outlives its connection when the session does; while a connection is attached it sends what the client takes.
//
// Kept here: packet identifiers (of the session, so that none is used twice [MQTT-2.2.1-4]), DUP on a second sending
// [MQTT-3.3.1-1], the handshake of QoS 2 [MQTT-4.3.3-7…], order also over a new connection [MQTT-4.6.0-1…3], the client's
// Receive Maximum [MQTT-3.3.4-9] and Maximum Packet Size [MQTT-3.1.2-24], message expiry [MQTT-3.3.2-5, -6], and the
// bounds in messages and bytes, of this session and of all together.

import type { PublishPacket } from "aedes";
import { generate } from "mqtt-packet";
import type { QoS } from "../reading.ts";
import { packetType, type ProtocolVersion } from "./frames.ts";
import type { Limits } from "./limits.ts";
import { maximumAckBytes, writeAck } from "./packet-writer.ts";

/** One message for one client; the payload and properties are shared between all who get it. */
export interface OutgoingMessage {
  readonly topic: string;
  readonly payload: Buffer | string;
  readonly qos: QoS;
  readonly retain: boolean;
  readonly properties: PublishPacket["properties"];
  /** Of all subscriptions of the client that match [MQTT-3.3.4-3]. */
  readonly subscriptionIds: readonly number[];
  readonly expiresAt: number | undefined;
}

export interface QueuedMessage extends OutgoingMessage {
  readonly qos: 1 | 2;
  /** What it takes in memory, roughly. */
  readonly bytes: number;
}

/** The connection, as far as the queue needs it. */
export interface QueueLink {
  readonly version: ProtocolVersion;
  readonly receiveMaximum: number;
  readonly maximumPacketBytes: number;
  /** False: the socket takes no more for now; the owner calls `pump` when it does. */
  readonly writable: boolean;
  /** Whole packets. */
  readonly write: (frames: readonly Buffer[]) => void;
}

/** Bytes that wait in all queues together. */
export interface QueuedTotal {
  bytes: number;
}

type Bounds = Pick<Limits, "queuedMessagesPerSession" | "queuedBytesPerSession" | "queuedBytes" | "whenQueueFull">;

interface InFlight {
  readonly qos: 1 | 2;
  /** Undefined once PUBREC has come: only PUBREL is left to be sent. */
  message: QueuedMessage | undefined;
  /** Sent over this connection, and counted against the Receive Maximum. */
  sent: boolean;
}

/** What one write takes together. */
const BATCH_BYTES = 65_536;
const LARGEST_ID = 65_535;
const PACKET_ID_NOT_FOUND = 0x92;
const ERROR = 0x80;

export class OutgoingQueue {
  readonly #bounds: Bounds;
  readonly #total: QueuedTotal;
  readonly #dropped: (topic: string) => void;
  #link: QueueLink | undefined;
  #waiting: QueuedMessage[] = [];
  #head = 0;
  /** In the order of their first sending. */
  readonly #inFlight = new Map<number, InFlight>();
  /** Identifiers in flight that this connection has not sent yet. */
  #again: number[] = [];
  #lastId = 0;
  /** PUBLISH packets that this connection has sent and that are not complete. */
  #unacknowledged = 0;
  #bytes = 0;
  #pumpsSoon = false;

  constructor(bounds: Bounds, total: QueuedTotal, dropped: (topic: string) => void) {
    this.#bounds = bounds;
    this.#total = total;
    this.#dropped = dropped;
  }

  /** Messages held, in flight or waiting. */
  get size(): number {
    return this.#inFlight.size + this.#waiting.length - this.#head;
  }

  /** The client is connected. What was in flight is sent again, in its order, before anything else [MQTT-4.4.0-1]. */
  attach(link: QueueLink): void {
    this.#link = link;
    this.#unacknowledged = 0;
    this.#again = [...this.#inFlight.keys()];
    for (const entry of this.#inFlight.values()) entry.sent = false;
    this.pump();
  }

  detach(): void {
    this.#link = undefined;
  }

  /** Forgets everything: the session has ended. */
  clear(): void {
    this.#total.bytes -= this.#bytes;
    this.#bytes = 0;
    this.#waiting = [];
    this.#head = 0;
    this.#again = [];
    this.#inFlight.clear();
  }

  /** A message for the client; when there is no room, this or an older one is dropped, and counted. */
  push(message: QueuedMessage, nowMs: number): void {
    if (!this.#hasRoomFor(message)) this.#makeRoom(message, nowMs);
    if (!this.#hasRoomFor(message)) {
      this.#dropped(message.topic);
      return;
    }
    this.#account(message.bytes);
    this.#waiting.push(message);
    this.#pumpAfterTurn();
  }

  /** What one turn of the event loop brings leaves in one write. */
  #pumpAfterTurn(): void {
    if (this.#pumpsSoon || this.#link === undefined) return;
    this.#pumpsSoon = true;
    setImmediate(() => {
      this.#pumpsSoon = false;
      this.pump();
    });
  }

  /** True when so much is held that somebody who can wait with the next message should. */
  get isHalfFull(): boolean {
    const { queuedMessagesPerSession, queuedBytesPerSession, queuedBytes } = this.#bounds;
    return (
      2 * this.size >= queuedMessagesPerSession ||
      2 * this.#bytes >= queuedBytesPerSession ||
      2 * this.#total.bytes >= queuedBytes
    );
  }

  /** Sends what the client and its socket take. */
  pump(nowMs: number = Date.now()): void {
    const link = this.#link;
    if (link === undefined) return;
    while (link.writable) {
      const frames: Buffer[] = [];
      let bytes = 0;
      while (bytes < BATCH_BYTES) {
        const frame = this.#again.length > 0 ? this.#nextAgain(link, nowMs) : this.#nextWaiting(link, nowMs);
        if (frame === undefined) break;
        frames.push(frame);
        bytes += frame.length;
      }
      if (frames.length === 0) break;
      link.write(frames);
    }
  }

  /** PUBACK, PUBREC or PUBCOMP of the client. `code` is 0 before MQTT 5. */
  answered(type: number, packetId: number, code: number): void {
    const entry = this.#inFlight.get(packetId);
    if (type === packetType.pubrec) this.#received(packetId, code, entry);
    else if (entry !== undefined && isLast(type, entry)) this.#complete(packetId, entry);
    this.pump();
  }

  #received(packetId: number, code: number, entry: InFlight | undefined): void {
    if (entry?.qos === 1) return;
    if (entry !== undefined && code >= ERROR) {
      this.#complete(packetId, entry); // [MQTT-4.3.3-5]: no PUBREL follows
      return;
    }
    if (code >= ERROR) return;
    if (entry?.message !== undefined) {
      this.#account(-entry.message.bytes);
      entry.message = undefined;
    }
    const link = this.#link;
    link?.write([encodePubrel(packetId, link.version, entry === undefined ? PACKET_ID_NOT_FOUND : 0)]);
  }

  #complete(packetId: number, entry: InFlight): void {
    this.#inFlight.delete(packetId);
    if (entry.message !== undefined) this.#account(-entry.message.bytes);
    if (entry.sent) this.#unacknowledged -= 1;
    if (this.#again.length > 0) this.#again = this.#again.filter((id) => id !== packetId);
  }

  /** The next of what an earlier connection has sent; undefined when the client takes no more. */
  #nextAgain(link: QueueLink, nowMs: number): Buffer | undefined {
    for (;;) {
      const packetId = this.#again[0];
      const entry = packetId === undefined ? undefined : this.#inFlight.get(packetId);
      if (packetId === undefined || entry === undefined) return this.#nextWaiting(link, nowMs);
      if (entry.message !== undefined && this.#unacknowledged >= link.receiveMaximum) return undefined;
      this.#again.shift();
      if (entry.message === undefined) return encodePubrel(packetId, link.version, 0);
      const frame = encodePublish(entry.message, link.version, packetId, true, nowMs);
      if (frame.length <= link.maximumPacketBytes) {
        entry.sent = true;
        this.#unacknowledged += 1;
        return frame;
      }
      this.#complete(packetId, entry);
      this.#dropped(entry.message.topic);
    }
  }

  #nextWaiting(link: QueueLink, nowMs: number): Buffer | undefined {
    while (this.#waiting.length > this.#head && this.#unacknowledged < link.receiveMaximum) {
      const message = this.#shift();
      if (message === undefined) return undefined;
      if (isExpired(message, nowMs)) {
        this.#leave(message);
        continue;
      }
      const packetId = this.#nextId();
      const frame = encodePublish(message, link.version, packetId, false, nowMs);
      if (frame.length > link.maximumPacketBytes) {
        this.#leave(message); // [MQTT-3.1.2-25]: as if it had been delivered
        continue;
      }
      this.#inFlight.set(packetId, { qos: message.qos, message, sent: true });
      this.#unacknowledged += 1;
      return frame;
    }
    return undefined;
  }

  #nextId(): number {
    do this.#lastId = (this.#lastId % LARGEST_ID) + 1;
    while (this.#inFlight.has(this.#lastId));
    return this.#lastId;
  }

  #shift(): QueuedMessage | undefined {
    const message = this.#waiting[this.#head];
    this.#head += 1;
    if (this.#head === this.#waiting.length || this.#head > 1_024) {
      this.#waiting.splice(0, this.#head);
      this.#head = 0;
    }
    return message;
  }

  #hasRoomFor({ bytes }: QueuedMessage): boolean {
    const { queuedMessagesPerSession, queuedBytesPerSession, queuedBytes } = this.#bounds;
    return (
      this.size < Math.min(queuedMessagesPerSession, LARGEST_ID) &&
      this.#bytes + bytes <= queuedBytesPerSession &&
      this.#total.bytes + bytes <= queuedBytes
    );
  }

  /** What has expired leaves first, then with `oldest` what has waited longest. In flight is never given up. */
  #makeRoom(message: QueuedMessage, nowMs: number): void {
    while (this.#waiting.length > this.#head && !this.#hasRoomFor(message)) {
      const first = this.#waiting[this.#head];
      if (first === undefined || (this.#bounds.whenQueueFull === "newest" && !isExpired(first, nowMs))) return;
      this.#shift();
      this.#leave(first);
    }
  }

  /** A message that is not delivered. */
  #leave(message: QueuedMessage): void {
    this.#account(-message.bytes);
    this.#dropped(message.topic);
  }

  #account(bytes: number): void {
    this.#bytes += bytes;
    this.#total.bytes += bytes;
  }
}

const isLast = (type: number, { qos, message }: InFlight): boolean =>
  type === packetType.puback ? qos === 1 : qos === 2 && message === undefined;

const isExpired = ({ expiresAt }: QueuedMessage, nowMs: number): boolean =>
  expiresAt !== undefined && expiresAt <= nowMs;

function encodePubrel(packetId: number, version: ProtocolVersion, code: number): Buffer {
  const frame = Buffer.allocUnsafe(maximumAckBytes);
  return frame.subarray(0, writeAck(frame, 0, packetType.pubrel, packetId, version, code));
}

/** The PUBLISH for a client; `packetId` is not used with QoS 0. */
export function encodePublish(
  { topic, payload, qos, retain, properties, subscriptionIds, expiresAt }: OutgoingMessage,
  version: ProtocolVersion,
  packetId: number,
  dup: boolean,
  nowMs: number,
): Buffer {
  const packet = { cmd: "publish", topic, payload, qos, retain, dup, messageId: packetId } as const;
  if (version !== 5 || (properties === undefined && subscriptionIds.length === 0)) {
    return generate(packet, { protocolVersion: version });
  }
  const own = {
    ...properties,
    // What is left of it [MQTT-3.3.2-6].
    ...(expiresAt === undefined
      ? undefined
      : { messageExpiryInterval: Math.max(1, Math.ceil((expiresAt - nowMs) / 1_000)) }),
    ...(subscriptionIds.length === 0 ? undefined : { subscriptionIdentifier: [...subscriptionIds] }),
  };
  return generate({ ...packet, properties: own }, { protocolVersion: 5 });
}
