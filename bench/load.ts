// The load generator of the benchmarks: a child process with many MQTT 3.1.1 connections on raw sockets that keep a
// window of QoS 1 messages in flight each. It must cost much less than what it measures, so nothing is encoded twice:
//
//   CONNECT   10 | remaining length | 00 04 "MQTT" | 04 | 02 clean session | keep alive u16 | client id
//   PUBLISH   32 | remaining length (2 bytes) | topic | packet id u16 | JSON payload, seq 8 digits
//   PUBACK    40 02 | packet id u16
//
// A connection owns one buffer with `window` PUBLISH packets side by side; only packet id and seq digits are patched.
// Slot n % window is written again only after the PUBACK of message n, so the kernel has taken its bytes by then, and
// the packets for all PUBACKs of a chunk leave in one write.

import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { createHistogram, performance } from "node:perf_hooks";

/** What to do; sent to the child as its first message. */
export interface LoadOptions {
  readonly port: number;
  /** The server's process id, whose CPU time is read at both ends of the measured window. */
  readonly serverPid: number;
  readonly connections: number;
  /** Unacknowledged messages per connection. */
  readonly window: number;
  readonly payloadBytes: number;
  readonly warmupMs: number;
  readonly measureMs: number;
}

/** The measured window; the load was the same before and after it. */
export interface LoadResult {
  readonly messages: number;
  readonly seconds: number;
  /** User and system time of all threads of the server. */
  readonly serverCpuSeconds: number;
  readonly loadCpuSeconds: number;
  /** At saturation: connections × window messages wait, so this is the queue, not the server's answer to one message. */
  readonly pubackMs: { readonly p50: number; readonly p99: number };
  /** In the whole run, warm-up included; equal, or the run failed. */
  readonly sent: number;
  readonly acknowledged: number;
}

export type LoadMessage =
  | { readonly kind: "result"; readonly result: LoadResult }
  | { readonly kind: "failed"; readonly reason: string };

const CONNECT_AT_ONCE = 50;
/** How long the last acknowledgements may take. */
const DRAIN_MS = 15_000;
/** Packet ids are 1 to this, in turn [MQTT-2.3.1-1]. */
const PACKET_IDS = 65_535;
const FIRST_SEQ = 10_000_000;
/** USER_HZ, the unit of /proc/<pid>/stat: 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** Counts of all connections, and the histogram while it is being measured. */
class Totals {
  sent = 0;
  acknowledged = 0;
  sending = true;
  readonly latency = createHistogram();
  measuring = false;
}

class Connection {
  readonly #socket: Socket;
  readonly #packetBytes: number;
  readonly #packetIdAt: number;
  readonly #seqAt: number;
  readonly #slots: Buffer;
  readonly #sentMs: Float64Array;
  readonly #window: number;
  readonly #totals: Totals;
  readonly #fail: (reason: string) => void;
  readonly #connected: () => void;
  readonly #scratch = Buffer.alloc(4);
  #held = 0;
  #greeted = false;
  #sent = 0;
  #acknowledged = 0;

  constructor(options: {
    readonly name: string;
    readonly load: LoadOptions;
    readonly totals: Totals;
    readonly connected: () => void;
    readonly fail: (reason: string) => void;
  }) {
    const { name, load } = options;
    const packet = encodePublish(`devices/${name}/telemetry`, createPayload(load.payloadBytes));
    this.#packetBytes = packet.length;
    this.#packetIdAt = packet.length - load.payloadBytes - 2;
    this.#seqAt = packet.indexOf(String(FIRST_SEQ));
    this.#slots = Buffer.concat(Array.from({ length: load.window }, () => packet));
    this.#window = load.window;
    this.#sentMs = new Float64Array(load.window);
    this.#totals = options.totals;
    this.#fail = options.fail;
    this.#connected = options.connected;
    this.#socket = connect({ host: "127.0.0.1", port: load.port, noDelay: true });
    this.#socket.on("connect", () => this.#socket.write(encodeConnect(name)));
    this.#socket.on("data", (chunk) => this.#onData(chunk));
    this.#socket.on("error", (error) => options.fail(`${name}: ${error.message}`));
    this.#socket.on("close", () => options.fail(`${name}: the server closed the connection`));
  }

  /** Sends the first window of messages. */
  start(): void {
    this.#send(this.#window);
  }

  close(): void {
    this.#socket.removeAllListeners("close");
    this.#socket.end(Buffer.from([0xe0, 0x00]));
  }

  #onData(chunk: Buffer): void {
    let at = 0;
    let acknowledged = 0;
    const nowMs = performance.now();
    while (at < chunk.length) {
      // All packets that a server sends here have 4 bytes; one may be cut by the end of a chunk.
      const whole = this.#held === 0 && chunk.length - at >= 4;
      const packet = whole ? chunk : this.#scratch;
      const start = whole ? at : 0;
      if (whole) at += 4;
      else {
        const taken = chunk.copy(this.#scratch, this.#held, at, at + 4 - this.#held);
        at += taken;
        this.#held += taken;
        if (this.#held < 4) break;
        this.#held = 0;
      }
      const head = packet.readUInt16BE(start);
      const body = packet.readUInt16BE(start + 2);
      if (head === 0x4002 && body === 1 + (this.#acknowledged % PACKET_IDS)) {
        if (this.#totals.measuring) {
          const afterMs = nowMs - (this.#sentMs[this.#acknowledged % this.#window] ?? 0);
          this.#totals.latency.record(Math.max(1, Math.round(afterMs * 1000)));
        }
        this.#acknowledged += 1;
        acknowledged += 1;
      } else if (head === 0x2002 && body === 0 && !this.#greeted) {
        this.#greeted = true;
        this.#connected();
      } else {
        this.#fail(`unexpected bytes ${packet.toString("hex", start, start + 4)} after ${this.#acknowledged} PUBACKs`);
        return;
      }
    }
    this.#totals.acknowledged += acknowledged;
    if (acknowledged > 0 && this.#totals.sending) this.#send(acknowledged);
  }

  #send(count: number): void {
    const first = this.#sent % this.#window;
    const nowMs = performance.now();
    for (let i = 0; i < count; i += 1) {
      const slot = this.#sent % this.#window;
      const start = slot * this.#packetBytes;
      this.#slots.writeUInt16BE(1 + (this.#sent % PACKET_IDS), start + this.#packetIdAt);
      writeDigits(this.#slots, start + this.#seqAt, FIRST_SEQ + this.#sent);
      this.#sentMs[slot] = nowMs;
      this.#sent += 1;
    }
    this.#totals.sent += count;
    const end = first + count;
    if (end <= this.#window) this.#socket.write(this.#view(first, end));
    else {
      this.#socket.cork();
      this.#socket.write(this.#view(first, this.#window));
      this.#socket.write(this.#view(0, end - this.#window));
      this.#socket.uncork();
    }
  }

  #view(from: number, to: number): Buffer {
    return this.#slots.subarray(from * this.#packetBytes, to * this.#packetBytes);
  }
}

async function runLoad(load: LoadOptions): Promise<LoadResult> {
  const totals = new Totals();
  const { promise: failed, reject } = Promise.withResolvers<never>();
  const fail = (reason: string): void => reject(new Error(reason));
  const work = async (): Promise<LoadResult> => {
    const connections = await connectAll(load, totals, fail);
    for (const connection of connections) connection.start();
    await sleep(load.warmupMs);
    const result = await measure(load, totals);
    totals.sending = false;
    const deadlineMs = performance.now() + DRAIN_MS;
    while (totals.acknowledged < totals.sent && performance.now() < deadlineMs) await sleep(20);
    if (totals.acknowledged < totals.sent)
      fail(`${totals.sent - totals.acknowledged} messages were never acknowledged`);
    for (const connection of connections) connection.close();
    return { ...result, sent: totals.sent, acknowledged: totals.acknowledged };
  };
  return Promise.race([work(), failed]);
}

async function measure(load: LoadOptions, totals: Totals): Promise<Omit<LoadResult, "sent" | "acknowledged">> {
  totals.measuring = true;
  const before = {
    ms: performance.now(),
    messages: totals.acknowledged,
    server: cpuSeconds(load.serverPid),
    own: process.cpuUsage(),
  };
  await sleep(load.measureMs);
  const own = process.cpuUsage(before.own);
  const result = {
    messages: totals.acknowledged - before.messages,
    seconds: (performance.now() - before.ms) / 1000,
    serverCpuSeconds: cpuSeconds(load.serverPid) - before.server,
    loadCpuSeconds: (own.user + own.system) / 1e6,
  };
  totals.measuring = false;
  const { latency } = totals;
  return { ...result, pubackMs: { p50: latency.percentile(50) / 1000, p99: latency.percentile(99) / 1000 } };
}

/** Opens the connections, a few at a time; resolves when every CONNACK is there. */
async function connectAll(load: LoadOptions, totals: Totals, fail: (reason: string) => void): Promise<Connection[]> {
  const connections: Connection[] = [];
  for (let from = 0; from < load.connections; from += CONNECT_AT_ONCE) {
    const group: Promise<void>[] = [];
    for (let index = from; index < Math.min(from + CONNECT_AT_ONCE, load.connections); index += 1) {
      const { promise, resolve: connected } = Promise.withResolvers<void>();
      const name = `bench-${String(index + 1).padStart(4, "0")}`;
      connections.push(new Connection({ name, load, totals, connected, fail }));
      group.push(promise);
    }
    await Promise.all(group);
  }
  return connections;
}

/** User and system time of a process with all its threads, from proc(5): fields 14 and 15, after the name in brackets. */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
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
  const head = [0x10, 12 + clientId.length, 0x00, 0x04, ...Buffer.from("MQTT"), 0x04, 0x02, 0x00, 0x3c];
  return Buffer.concat([Buffer.from([...head, 0x00, clientId.length]), Buffer.from(clientId)]);
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

const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

const answer = (message: LoadMessage): void => {
  process.send?.(message, () => process.exit(0));
};

process.once("message", (load: LoadOptions) => {
  runLoad(load).then(
    (result) => answer({ kind: "result", result }),
    (error: unknown) => answer({ kind: "failed", reason: String(error) }),
  );
});
// The benchmark is gone: so is the reason to load anything.
process.on("disconnect", () => process.exit(1));
