// The live QoS 0 messages of one subscriber: what one turn of the event loop brings leaves in one write. What may wait for
// a subscriber is bounded; beyond that a message is dropped for it, at the cost of a comparison, and counted.

import { Buffer } from "node:buffer";
import type { EventBus } from "../events.ts";
import type { ProtocolVersion } from "./frames.ts";
import type { LivePacket, Shape } from "./live-packet.ts";

/** The connection of a subscriber. */
export interface Subscriber {
  readonly clientId: string;
  readonly version: ProtocolVersion;
  /** Of its CONNECT [MQTT-3.1.2-24]. */
  readonly largestPacketBytes: number;
  /** What was written and has not left; undefined while it is to be given nothing: before CONNACK, or at its end. */
  readonly waitingBytes: number | undefined;
  /** Whole QoS 0 PUBLISH packets. The bytes are not changed any more. */
  sendPublishes(bytes: Buffer, packets: number, payloadBytes: number): void;
}

/** The outboxes that have something to do at the end of the turn. */
export class Outboxes {
  readonly queueBytes: number;
  readonly events: EventBus;
  #busy: Outbox[] = [];
  #spare: Outbox[] = [];

  constructor(queueBytes: number, events: EventBus) {
    this.queueBytes = queueBytes;
    this.events = events;
  }

  /** `outbox` has something to send, or to tell, once the turn is over. */
  add(outbox: Outbox): void {
    if (this.#busy.length === 0) setImmediate(this.#flush);
    this.#busy.push(outbox);
  }

  readonly #flush = (): void => {
    const busy = this.#busy;
    this.#busy = this.#spare;
    for (const outbox of busy) outbox.endTurn();
    busy.length = 0;
    this.#spare = busy;
  };
}

/** A turn may bring more than this: it is sent at once, so that the far end has something to do meanwhile. */
const SEND_BYTES = 65_536;
/** A smaller part of a block is copied, so that what waits in a socket does not hold whole blocks. */
const SHARED_PART = 0.25;

export class Outbox {
  readonly subscriber: Subscriber;
  readonly #outboxes: Outboxes;
  #isBusy = false;
  /** Who is not connected yet, or not any more, misses nothing that was promised. */
  #isLive = false;
  /** How much more it may be given, until something is sent. */
  #roomBytes = 0;
  // The packets not yet sent: pieces that are not contiguous, and the last one, from #start to #end of #block.
  readonly #pieces: Buffer[] = [];
  #block: Buffer | undefined;
  #start = 0;
  #end = 0;
  #bytes = 0;
  #packets = 0;
  #payloadBytes = 0;
  #dropped = 0;
  /** Of them, those larger than the client takes. */
  #oversized = 0;
  #droppedTopic = "";

  constructor(subscriber: Subscriber, outboxes: Outboxes) {
    this.subscriber = subscriber;
    this.#outboxes = outboxes;
  }

  /** Gives the subscriber the message in this shape, or drops it for this subscriber. */
  take(packet: LivePacket, shape: Shape, topic: string): void {
    if (!this.#isBusy) this.#beginTurn();
    if (this.#roomBytes <= 0) {
      if (this.#isLive) this.#drop(topic);
      return;
    }
    const fits = packet.encode(shape);
    const { bytes, start, end } = shape;
    const size = end - start;
    if (!fits || size > this.subscriber.largestPacketBytes) {
      this.#oversized += 1; // [MQTT-3.1.2-25]
      this.#drop(topic);
      return;
    }
    if (this.#block === bytes && this.#end === start) this.#end = end;
    else {
      this.#endPiece();
      this.#block = bytes;
      this.#start = start;
      this.#end = end;
    }
    this.#roomBytes -= size;
    this.#bytes += size;
    this.#packets += 1;
    this.#payloadBytes += packet.payloadBytes;
    if (this.#bytes >= SEND_BYTES) this.#send();
  }

  /** Sends and tells what the turn has brought. */
  endTurn(): void {
    this.#isBusy = false;
    if (this.#bytes > 0) this.#send();
    if (this.#dropped === 0) return;
    const { events } = this.#outboxes;
    events.emit("dropped", this.subscriber.clientId, this.#droppedTopic, this.#dropped);
    if (this.#dropped > this.#oversized)
      events.emit("limited", "subscriberQueueBytes", this.#dropped - this.#oversized);
    this.#dropped = this.#oversized = 0;
    this.#droppedTopic = "";
  }

  #beginTurn(): void {
    this.#isBusy = true;
    this.#outboxes.add(this);
    this.#measure();
  }

  #measure(): void {
    const { waitingBytes } = this.subscriber;
    this.#isLive = waitingBytes !== undefined;
    this.#roomBytes = waitingBytes === undefined ? 0 : this.#outboxes.queueBytes - waitingBytes;
  }

  #drop(topic: string): void {
    this.#dropped += 1;
    this.#droppedTopic = topic;
  }

  #endPiece(): void {
    const block = this.#block;
    if (block === undefined) return;
    this.#pieces.push(block.subarray(this.#start, this.#end));
    this.#block = undefined;
  }

  #send(): void {
    this.#endPiece();
    const pieces = this.#pieces;
    const [first] = pieces;
    if (first === undefined) return;
    const shares = pieces.length === 1 && first.length >= first.buffer.byteLength * SHARED_PART;
    this.subscriber.sendPublishes(shares ? first : Buffer.concat(pieces), this.#packets, this.#payloadBytes);
    pieces.length = 0;
    this.#bytes = 0;
    this.#packets = 0;
    this.#payloadBytes = 0;
    this.#measure();
  }
}
