// The acknowledgements that one client is owed, in the order of its PUBLISH packets [MQTT-4.6.0-2], [MQTT-4.6.0-3].
//
// Telemetry waits for the journal's watermark, everything else for Aedes' own PUBACK or PUBREC; both stand in one queue
// and leave it from the front, so that none overtakes another. All that one commit releases goes out in one buffer.
// Three numbers for each in one list that is used again and again, instead of objects or a list per field: this is the hot path, and a client
// that sends one message after a while finds little of its memory in the processor's caches (bench: sparse). An answer that
// tells more than its reason code stands beside them as the packet that it will be.
//
//   type << 24 | reason code << 16 | packet identifier
//   offset of the record whose durability is waited for, of the message or of its release
//   since when it waits: performance.now()

import type { Offset } from "../reading.ts";
import type { Latency } from "../telemetry.ts";
import { packetType, type ProtocolVersion } from "./frames.ts";
import { ackBytes, encodeAckWithReason, type Told, writeAck } from "./packet-writer.ts";

/** The answer to a QoS 1 or a QoS 2 PUBLISH. */
export type AcknowledgementType = typeof packetType.puback | typeof packetType.pubrec;
type AnswerType = AcknowledgementType | typeof packetType.pubcomp;

const READY = -1;
const WAITS_FOR_AEDES = Number.POSITIVE_INFINITY;
/** MQTT 5: a PUBREC with this code or a higher one ends the handshake [MQTT-4.3.3-9]. */
const FAILURE = 0x80;

/** Numbers for each. */
const STRIDE = 3;
/** A list that has grown beyond this is given back when it is empty, and closes up when so much of it has left. */
const LONG = 4096 * STRIDE;

export class Acknowledgements {
  #list: number[] = [];
  /** The first one, and behind the last one. What lies beyond is of earlier ones. */
  #head = 0;
  #tail = 0;
  /** What Aedes wrote, and answers that tell more than a code, by place in the list. */
  #frames: Map<number, Uint8Array> | undefined;
  #last = 0;

  get size(): number {
    return (this.#tail - this.#head) / STRIDE;
  }

  /** Those after which nothing more follows for their message: of QoS 1, and of QoS 2 that was not taken. */
  get last(): number {
    return this.#last;
  }

  /** A telemetry message in the journal at `offset`. */
  afterCommit(type: AcknowledgementType, packetId: number, offset: Offset, sinceMs: number, code = 0): void {
    this.#push(type, packetId, code, offset, sinceMs);
  }

  /** MQTT 5: the answer that was pushed last tells this too, unless the client takes no packet of that size. */
  tell(told: Told, maximumPacketBytes: number | undefined): void {
    const at = this.#tail - STRIDE;
    const what = this.#list[at] ?? 0;
    const frame = encodeAckWithReason(typeOf(what), packetIdOf(what), codeOf(what), told, maximumPacketBytes);
    (this.#frames ??= new Map()).set(at, frame);
  }

  /** The PUBCOMP for a message whose release is in the journal at `offset`. */
  afterRelease(packetId: number, offset: Offset): void {
    this.#push(packetType.pubcomp, packetId, 0, offset, 0);
  }

  /** A packet that Aedes wrote, which may only go out when the record at `offset` is durable. */
  held(packetId: number, frame: Uint8Array, offset: Offset): void {
    (this.#frames ??= new Map()).set(this.#tail, frame);
    this.#push(packetType.pubcomp, packetId, 0, offset, 0);
  }

  /** A packet that the gateway answers itself, without a record. */
  ready(type: AnswerType, packetId: number, code: number, sinceMs: number): void {
    this.#push(type, packetId, code, READY, sinceMs);
  }

  /** A PUBLISH that was handed to Aedes, which will answer it; `code` is what takes the place of its plain success. */
  afterAedes(type: AcknowledgementType, packetId: number, sinceMs: number, code = 0): void {
    this.#push(type, packetId, code, WAITS_FOR_AEDES, sinceMs);
  }

  /** Aedes' answer; false: nobody waits for it (a repeated PUBREC), so it may go out as it is. */
  answered(type: AcknowledgementType, packetId: number, frame: Uint8Array): boolean {
    const list = this.#list;
    for (let at = this.#head; at < this.#tail; at += STRIDE) {
      const what = list[at] ?? 0;
      if (list[at + 1] !== WAITS_FOR_AEDES || packetIdOf(what) !== packetId || typeOf(what) !== type) continue;
      list[at + 1] = READY;
      if (codeOf(what) === 0 || isFailure(frame)) (this.#frames ??= new Map()).set(at, frame);
      return true;
    }
    return false;
  }

  /**
   * Takes from the front what is ready now that everything below `durable` is on disk; undefined when nothing is.
   * Observes in `latency` how long each telemetry message waited.
   */
  release(durable: Offset, version: ProtocolVersion, nowMs: number, latency: Latency): Buffer | undefined {
    const list = this.#list;
    const from = this.#head;
    let to = from;
    let bytes = 0;
    for (; to < this.#tail && (list[to + 1] ?? 0) < durable; to += STRIDE)
      bytes += this.#frames?.get(to)?.length ?? ackBytes(version, codeOf(list[to] ?? 0));
    if (to === from) return undefined;
    const buffer = Buffer.allocUnsafe(bytes);
    let at = 0;
    for (let place = from; place < to; place += STRIDE) at = this.#write(buffer, at, place, version, nowMs, latency);
    this.#head = to;
    this.#compact();
    return buffer;
  }

  #write(buffer: Buffer, at: number, place: number, version: ProtocolVersion, nowMs: number, latency: Latency): number {
    const what = this.#list[place] ?? 0;
    const type = typeOf(what);
    const code = codeOf(what);
    if (isLast(type, code)) this.#last -= 1;
    const isMessage = this.#list[place + 1] !== READY && type !== packetType.pubcomp;
    if (isMessage) latency.observe(nowMs - (this.#list[place + 2] ?? nowMs));
    const frame = this.#frames?.get(place);
    if (frame === undefined) return writeAck(buffer, at, type, packetIdOf(what), version, code);
    buffer.set(frame, at);
    return at + frame.length;
  }

  #push(type: AnswerType, packetId: number, code: number, offset: number, sinceMs: number): void {
    if (isLast(type, code)) this.#last += 1;
    const list = this.#list;
    const at = this.#tail;
    list[at] = (type << 24) | (code << 16) | packetId;
    list[at + 1] = offset;
    list[at + 2] = sinceMs;
    this.#tail = at + STRIDE;
  }

  /** Places begin again at 0 whenever the queue is empty, and when many have left it. */
  #compact(): void {
    const head = this.#head;
    if (head === this.#tail) {
      if (this.#list.length > LONG) this.#list = [];
      this.#head = this.#tail = 0;
      this.#frames = undefined;
    } else if (head >= LONG) {
      this.#list.splice(0, head);
      this.#head = 0;
      this.#tail -= head;
      const frames = [...(this.#frames ?? [])].filter(([at]) => at >= head);
      this.#frames = frames.length === 0 ? undefined : new Map(frames.map(([at, frame]) => [at - head, frame]));
    }
  }
}

const typeOf = (what: number): AnswerType => (what >>> 24) as AnswerType;
const codeOf = (what: number): number => (what >>> 16) & 0xff;
const packetIdOf = (what: number): number => what & 0xffff;

const isLast = (type: AnswerType, code: number): boolean => type === packetType.puback || code >= FAILURE;

/** The reason code of a PUBACK or PUBREC stands behind its packet identifier; without it it is a success. */
const isFailure = (frame: Uint8Array): boolean => frame.length > 4 && (frame[4] ?? 0) >= FAILURE;
