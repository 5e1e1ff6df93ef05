// The QoS 1 and 2 messages that one session's client has still to get: those in flight and those that wait. The queue
// outlives its connection when the session does; while a connection is attached it sends what the client takes.
//
// Kept here: packet identifiers (of the session, so that none is used twice [MQTT-2.2.1-4]), DUP on a second sending
// [MQTT-3.3.1-1], the handshake of QoS 2 [MQTT-4.3.3-7…], order also over a new connection [MQTT-4.6.0-1…3], the client's
// Receive Maximum [MQTT-3.3.4-9] and Maximum Packet Size [MQTT-3.1.2-24], message expiry [MQTT-3.3.2-5, -6], and the
// bounds in messages and bytes, of this session and of all together.

import type { LimitName } from "../events.ts";
import { packetType, type ProtocolVersion } from "./frames.ts";
import type { Limits } from "./limits.ts";
import { encodePublish, isExpired, type QueuedMessage } from "./outgoing-message.ts";
import { encodePubrel } from "./packet-writer.ts";

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
  readonly #dropped: (topic: string, limit?: LimitName) => void;
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
  #isDue = false;

  /** `dropped`: a message is not delivered, because of a limit if one is named. */
  constructor(bounds: Bounds, total: QueuedTotal, dropped: (topic: string, limit?: LimitName) => void) {
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
    if (this.#limitFor(message) !== undefined) this.#makeRoom(message, nowMs);
    const limit = this.#limitFor(message);
    if (limit !== undefined) {
      this.#dropped(message.topic, limit);
      return;
    }
    this.#account(message.bytes);
    this.#waiting.push(message);
    if (this.#isDue || this.#link === undefined) return;
    // What one turn of the event loop brings leaves in one write.
    this.#isDue = true;
    setImmediate(endTurn, this);
  }

  /** True when a message of any size would be dropped. */
  isClosed(nowMs: number): boolean {
    const { queuedMessagesPerSession, whenQueueFull } = this.#bounds;
    if (whenQueueFull === "oldest" || this.size < Math.min(queuedMessagesPerSession, LARGEST_ID)) return false;
    const first = this.#waiting[this.#head];
    return first === undefined || !isExpired(first, nowMs);
  }

  /** Counts a message that was not pushed, because the queue is closed. */
  refuse(topic: string): void {
    this.#dropped(topic, "queuedMessagesPerSession");
  }

  /** Called once after the turn in which something came. */
  endTurn(): void {
    this.#isDue = false;
    this.pump();
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

  /** What keeps the message from being held. */
  #limitFor({ bytes }: QueuedMessage): LimitName | undefined {
    const { queuedMessagesPerSession, queuedBytesPerSession, queuedBytes } = this.#bounds;
    if (this.size >= Math.min(queuedMessagesPerSession, LARGEST_ID)) return "queuedMessagesPerSession";
    if (this.#bytes + bytes > queuedBytesPerSession) return "queuedBytesPerSession";
    return this.#total.bytes + bytes > queuedBytes ? "queuedBytes" : undefined;
  }

  /** What has expired leaves first, then with `oldest` what has waited longest. In flight is never given up. */
  #makeRoom(message: QueuedMessage, nowMs: number): void {
    let limit = this.#limitFor(message);
    while (this.#waiting.length > this.#head && limit !== undefined) {
      const first = this.#waiting[this.#head];
      const hasExpired = first !== undefined && isExpired(first, nowMs);
      if (first === undefined || (this.#bounds.whenQueueFull === "newest" && !hasExpired)) return;
      this.#shift();
      this.#leave(first, hasExpired ? undefined : limit);
      limit = this.#limitFor(message);
    }
  }

  /** A message that is not delivered. */
  #leave(message: QueuedMessage, limit?: LimitName): void {
    this.#account(-message.bytes);
    this.#dropped(message.topic, limit);
  }

  #account(bytes: number): void {
    this.#bytes += bytes;
    this.#total.bytes += bytes;
  }
}

const endTurn = (queue: OutgoingQueue): void => queue.endTurn();

const isLast = (type: number, { qos, message }: InFlight): boolean =>
  type === packetType.puback ? qos === 1 : qos === 2 && message === undefined;
