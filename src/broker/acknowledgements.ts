// The acknowledgements that one client is owed, in the order of its PUBLISH packets [MQTT-4.6.0-2], [MQTT-4.6.0-3].
//
// Telemetry waits for the journal's watermark, everything else for Aedes' own PUBACK or PUBREC; both stand in one queue
// and leave it from the front, so that none overtakes another. All that one commit releases goes out in one buffer.
// Parallel arrays of numbers instead of an object per message: this is the hot path (bench: ingest). An answer that tells
// more than its reason code stands beside them as the packet that it will be.

import type { Offset } from "../reading.ts";
import type { Latency } from "../telemetry.ts";
import { packetType, type ProtocolVersion } from "./frames.ts";
import { encodeAckWithReason, maximumAckBytes, type Told, writeAck } from "./packet-writer.ts";

/** The answer to a QoS 1 or a QoS 2 PUBLISH. */
export type AcknowledgementType = typeof packetType.puback | typeof packetType.pubrec;
type AnswerType = AcknowledgementType | typeof packetType.pubcomp;

const READY = -1;
const WAITS_FOR_AEDES = Number.POSITIVE_INFINITY;
/** MQTT 5: a PUBREC with this code or a higher one ends the handshake [MQTT-4.3.3-9]. */
const FAILURE = 0x80;

export class Acknowledgements {
  #head = 0;
  readonly #types: AnswerType[] = [];
  readonly #packetIds: number[] = [];
  /** MQTT 5 reason code; 0 is success. */
  readonly #codes: number[] = [];
  /** The record whose durability is waited for: of the message, or of its release. */
  readonly #offsets: number[] = [];
  readonly #sinceMs: number[] = [];
  /** What Aedes wrote, and answers that tell more than a code, by queue index. */
  #frames: Map<number, Uint8Array> | undefined;

  #last = 0;

  get size(): number {
    return this.#types.length - this.#head;
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
    const index = this.#types.length - 1;
    const type = this.#types[index] ?? packetType.puback;
    const [packetId = 0, code = 0] = [this.#packetIds[index], this.#codes[index]];
    (this.#frames ??= new Map()).set(index, encodeAckWithReason(type, packetId, code, told, maximumPacketBytes));
  }

  /** The PUBCOMP for a message whose release is in the journal at `offset`. */
  afterRelease(packetId: number, offset: Offset): void {
    this.#push(packetType.pubcomp, packetId, 0, offset, 0);
  }

  /** A packet that Aedes wrote, which may only go out when the record at `offset` is durable. */
  held(packetId: number, frame: Uint8Array, offset: Offset): void {
    (this.#frames ??= new Map()).set(this.#types.length, frame);
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
    for (let index = this.#head; index < this.#types.length; index += 1) {
      if (
        this.#offsets[index] === WAITS_FOR_AEDES &&
        this.#packetIds[index] === packetId &&
        this.#types[index] === type
      ) {
        this.#offsets[index] = READY;
        if (this.#codes[index] === 0 || isFailure(frame)) (this.#frames ??= new Map()).set(index, frame);
        return true;
      }
    }
    return false;
  }

  /**
   * Takes from the front what is ready now that everything below `durable` is on disk; undefined when nothing is.
   * Observes in `latency` how long each telemetry message waited.
   */
  release(durable: Offset, version: ProtocolVersion, nowMs: number, latency: Latency): Buffer | undefined {
    const from = this.#head;
    let to = from;
    let bytes = 0;
    while (to < this.#types.length && (this.#offsets[to] ?? 0) < durable) {
      bytes += this.#frames?.get(to)?.length ?? maximumAckBytes;
      to += 1;
    }
    if (to === from) return undefined;
    const buffer = Buffer.allocUnsafe(bytes);
    let at = 0;
    for (let index = from; index < to; index += 1) at = this.#write(buffer, at, index, version, nowMs, latency);
    this.#head = to;
    this.#compact();
    return buffer.subarray(0, at);
  }

  #write(buffer: Buffer, at: number, index: number, version: ProtocolVersion, nowMs: number, latency: Latency): number {
    const type = this.#types[index] ?? packetType.puback;
    const code = this.#codes[index] ?? 0;
    if (isLast(type, code)) this.#last -= 1;
    const isMessage = this.#offsets[index] !== READY && type !== packetType.pubcomp;
    if (isMessage) latency.observe(nowMs - (this.#sinceMs[index] ?? nowMs));
    const frame = this.#frames?.get(index);
    if (frame === undefined) return writeAck(buffer, at, type, this.#packetIds[index] ?? 0, version, code);
    buffer.set(frame, at);
    return at + frame.length;
  }

  #push(type: AnswerType, packetId: number, code: number, offset: number, sinceMs: number): void {
    if (isLast(type, code)) this.#last += 1;
    this.#types.push(type);
    this.#packetIds.push(packetId);
    this.#codes.push(code);
    this.#offsets.push(offset);
    this.#sinceMs.push(sinceMs);
  }

  /** Indexes restart at 0 whenever the queue is empty, and after 4,096 that have left it. */
  #compact(): void {
    const left = this.size;
    if (left !== 0 && this.#head < 4096) return;
    for (const list of [this.#types, this.#packetIds, this.#codes, this.#offsets, this.#sinceMs])
      list.splice(0, this.#head);
    if (this.#frames !== undefined) {
      const frames = [...this.#frames].filter(([index]) => index >= this.#head);
      this.#frames =
        frames.length === 0 ? undefined : new Map(frames.map(([index, frame]) => [index - this.#head, frame]));
    }
    this.#head = 0;
  }
}

const isLast = (type: AnswerType, code: number): boolean => type === packetType.puback || code >= FAILURE;

/** The reason code of a PUBACK or PUBREC stands behind its packet identifier; without it it is a success. */
const isFailure = (frame: Uint8Array): boolean => frame.length > 4 && (frame[4] ?? 0) >= FAILURE;
