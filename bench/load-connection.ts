// One MQTT 3.1.1 connection of the load generator on a raw socket. It must cost much less than what it measures, so nothing
// is encoded twice:
//
//   CONNECT   10 | remaining length | 00 04 "MQTT" | 04 | 02 clean session | keep alive u16 | client id
//   PUBLISH   32 | remaining length (2 bytes) | topic | packet id u16 | JSON payload, seq 8 digits
//   PUBACK    40 02 | packet id u16
//
// A connection owns one buffer with its slots, PUBLISH packets side by side; only packet id and seq digits are patched.
// Slot n % slots is written again only after the PUBACK of message n, so the kernel has taken its bytes by then, and
// the packets that are due together leave in one write. All sockets read into the same buffer: it is used up at once.

import { connect, type Socket } from "node:net";
import type { RecordableHistogram } from "node:perf_hooks";

/** Of all connections together. */
export interface Totals {
  sent: number;
  acknowledged: number;
  /** False: what is acknowledged makes no room for more. */
  sending: boolean;
  measuring: boolean;
  /** In microseconds. */
  readonly latency: RecordableHistogram;
  readonly late: RecordableHistogram;
}

/** When the messages of a connection are due in a paced run: `burst` at once, each `everyMs`. */
export interface Schedule {
  readonly firstMs: number;
  readonly everyMs: number;
  readonly burst: number;
}

export interface ConnectionOptions {
  /** Client id and device. */
  readonly name: string;
  readonly port: number;
  /** Address of this machine that the connection comes from. */
  readonly from: string;
  readonly window: number;
  readonly payloadBytes: number;
  readonly totals: Totals;
  readonly connected: () => void;
  readonly fail: (reason: string) => void;
}

/** Packet ids are 1 to this, in turn [MQTT-2.3.1-1]. */
const PACKET_IDS = 65_535;
const FIRST_SEQ = 10_000_000;
/** No measurement lasts as long. */
const KEEP_ALIVE_S = 600;
/** Slots per message of the window: a paced run may have more in flight when the server falls behind. */
const SLOTS = 4;
const READ_BYTES = 64 * 1024;
const readBuffer = Buffer.alloc(READ_BYTES);

export class Connection {
  readonly #socket: Socket;
  readonly #packetBytes: number;
  readonly #packetIdAt: number;
  readonly #seqAt: number;
  readonly #packets: Buffer;
  readonly #slots: number;
  readonly #startedMs: Float64Array;
  readonly #options: ConnectionOptions;
  readonly #totals: Totals;
  readonly #scratch = Buffer.alloc(4);
  #held = 0;
  #greeted = false;
  #sent = 0;
  #acknowledged = 0;
  #schedule: Schedule | undefined;
  /** Count of the first message of the schedule, and of the one behind the last that is due. */
  #scheduled = 0;
  #due = 0;

  constructor(options: ConnectionOptions) {
    const { name, port, payloadBytes, window } = options;
    const packet = encodePublish(`devices/${name}/telemetry`, createPayload(payloadBytes));
    this.#packetBytes = packet.length;
    this.#packetIdAt = packet.length - payloadBytes - 2;
    this.#seqAt = packet.indexOf(String(FIRST_SEQ));
    this.#slots = window * SLOTS;
    this.#packets = Buffer.concat(Array.from({ length: this.#slots }, () => packet));
    this.#startedMs = new Float64Array(this.#slots);
    this.#options = options;
    this.#totals = options.totals;
    const onread = {
      buffer: readBuffer,
      callback: (bytes: number): boolean => {
        this.#onData(bytes);
        return true;
      },
    };
    this.#socket = connect({ host: "127.0.0.1", port, localAddress: options.from, noDelay: true, onread });
    this.#socket.on("connect", () => this.#socket.write(encodeConnect(name)));
    this.#socket.on("error", (error) => options.fail(`${name}: ${error.message}`));
    this.#socket.on("close", () => options.fail(`${name}: the server closed the connection`));
  }

  /** Fills the window, now and with each acknowledgement. Everything sent before must be acknowledged. */
  saturate(): void {
    this.#schedule = undefined;
    this.#send(this.#options.window);
  }

  /** From now on messages go when they are due. Everything sent before must be acknowledged. */
  follow(schedule: Schedule): void {
    this.#schedule = schedule;
    this.#scheduled = this.#sent;
    this.#due = this.#sent;
  }

  /** The next burst of the schedule is due. */
  sendBurst(): void {
    this.#due += this.#schedule?.burst ?? 0;
    this.#sendDue();
  }

  close(): void {
    this.#socket.removeAllListeners("close");
    this.#socket.end(Buffer.from([0xe0, 0x00]));
  }

  #onData(bytes: number): void {
    let at = 0;
    let acknowledged = 0;
    const nowMs = performance.now();
    while (at < bytes) {
      // All packets that a server sends here have 4 bytes; one may be cut by the end of a chunk.
      const whole = this.#held === 0 && bytes - at >= 4;
      const packet = whole ? readBuffer : this.#scratch;
      const start = whole ? at : 0;
      if (whole) at += 4;
      else {
        const taken = readBuffer.copy(this.#scratch, this.#held, at, Math.min(bytes, at + 4 - this.#held));
        at += taken;
        this.#held += taken;
        if (this.#held < 4) break;
        this.#held = 0;
      }
      const head = packet.readUInt16BE(start);
      const body = packet.readUInt16BE(start + 2);
      if (head === 0x4002 && body === 1 + (this.#acknowledged % PACKET_IDS) && this.#acknowledged < this.#sent) {
        if (this.#totals.measuring) {
          record(this.#totals.latency, nowMs - (this.#startedMs[this.#acknowledged % this.#slots] ?? 0));
        }
        this.#acknowledged += 1;
        acknowledged += 1;
      } else if (head === 0x2002 && body === 0 && !this.#greeted) {
        this.#greeted = true;
        this.#options.connected();
      } else {
        const said = packet.toString("hex", start, start + 4);
        this.#options.fail(`${this.#options.name}: unexpected ${said} after ${this.#acknowledged} PUBACKs`);
        return;
      }
    }
    this.#totals.acknowledged += acknowledged;
    if (acknowledged === 0 || !this.#totals.sending) return;
    if (this.#schedule === undefined) this.#send(acknowledged);
    else if (this.#sent < this.#due) this.#sendDue();
  }

  #sendDue(): void {
    const count = Math.min(this.#due - this.#sent, this.#slots - (this.#sent - this.#acknowledged));
    if (count > 0) this.#send(count);
  }

  #send(count: number): void {
    const first = this.#sent % this.#slots;
    const nowMs = performance.now();
    for (let i = 0; i < count; i += 1) {
      const slot = this.#sent % this.#slots;
      const start = slot * this.#packetBytes;
      this.#packets.writeUInt16BE(1 + (this.#sent % PACKET_IDS), start + this.#packetIdAt);
      writeDigits(this.#packets, start + this.#seqAt, FIRST_SEQ + this.#sent);
      this.#startedMs[slot] = this.#schedule === undefined ? nowMs : this.#dueMs(this.#schedule, nowMs);
      this.#sent += 1;
    }
    this.#totals.sent += count;
    const end = first + count;
    if (end <= this.#slots) this.#socket.write(this.#view(first, end));
    else {
      this.#socket.cork();
      this.#socket.write(this.#view(first, this.#slots));
      this.#socket.write(this.#view(0, end - this.#slots));
      this.#socket.uncork();
    }
  }

  /** When the message that is sent next was due. */
  #dueMs({ firstMs, everyMs, burst }: Schedule, nowMs: number): number {
    const dueMs = firstMs + Math.floor((this.#sent - this.#scheduled) / burst) * everyMs;
    if (this.#totals.measuring) record(this.#totals.late, nowMs - dueMs);
    return dueMs;
  }

  #view(from: number, to: number): Buffer {
    return this.#packets.subarray(from * this.#packetBytes, to * this.#packetBytes);
  }
}

/** In µs: a histogram takes whole numbers from 1. */
function record(histogram: RecordableHistogram, ms: number): void {
  histogram.record(Math.max(1, Math.round(ms * 1000)));
}

/** A climate reading of exactly this size: spaces at the end of JSON mean nothing. */
function createPayload(bytes: number): Buffer {
  const text =
    `{"ts":${Date.now()},"seq":${FIRST_SEQ},"metrics":{"temperature":21.37,"humidity":45.12,` +
    `"pressure":1013.25,"battery":87.53,"dew_point":9.12,"rssi":-67}}`;
  if (text.length > bytes) throw new RangeError(`a payload has at least ${text.length} bytes`);
  return Buffer.from(text.padEnd(bytes));
}

function encodePublish(topic: string, payload: Buffer): Buffer {
  const length = 2 + topic.length + 2 + payload.length;
  const head = Buffer.from([0x32, (length & 0x7f) | 0x80, length >> 7, topic.length >> 8, topic.length & 0xff]);
  return Buffer.concat([head, Buffer.from(topic), Buffer.alloc(2), payload]);
}

function encodeConnect(clientId: string): Buffer {
  const head = [0x10, 12 + clientId.length, 0x00, 0x04, ...Buffer.from("MQTT"), 0x04, 0x02];
  return Buffer.from([
    ...head,
    KEEP_ALIVE_S >> 8,
    KEEP_ALIVE_S & 0xff,
    0x00,
    clientId.length,
    ...Buffer.from(clientId),
  ]);
}

/** The value's 8 decimal digits. */
function writeDigits(buffer: Buffer, at: number, value: number): void {
  let rest = value;
  for (let place = at + 7; place >= at; place -= 1) {
    const next = Math.floor(rest / 10);
    buffer[place] = 48 + rest - next * 10;
    rest = next;
  }
}
