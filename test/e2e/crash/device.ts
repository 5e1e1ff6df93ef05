// A device on a bare socket, for tests of what happens when connections break: it decides itself what is sent again, with
// the same packet identifier, and it takes each acknowledgement at its word. MQTT 3.1.1.

import { createConnection, type Socket } from "node:net";
import { generate, type IConnackPacket, type Packet, parser } from "mqtt-packet";
import type { Random } from "../../../devices-sim/random.ts";

/**
 * What a device does with what was not acknowledged when its connection broke.
 * qos0: nothing ever is. qos1-once: it is given up. qos1-again: it is sent again, in order, with DUP. qos2: PUBLISH with
 * DUP, or PUBREL after a PUBREC, as [MQTT-4.4.0-1] asks.
 */
export const deviceKinds = ["qos0", "qos1-once", "qos1-again", "qos2"] as const;
export type DeviceKind = (typeof deviceKinds)[number];

export interface DeviceOptions {
  readonly id: string;
  readonly kind: DeviceKind;
  readonly port: number;
  /** Unfinished messages at a time. */
  readonly window: number;
  /** lowest: an identifier is used again at once; counting: as late as possible. Both are allowed [MQTT-2.3.1-2]. */
  readonly packetIds: "lowest" | "counting";
  /** What a reading has beside its numbers. */
  readonly padBytes: number;
  readonly random: Random;
}

interface Unfinished {
  readonly seq: number;
  /** PUBREC has come: from now on only PUBREL is sent. */
  received: boolean;
}

const qosOf = { qos0: 0, "qos1-once": 1, "qos1-again": 1, qos2: 2 } as const;
const reconnectMs = { least: 20, spread: 80 };

export class Device {
  readonly id: string;
  readonly kind: DeviceKind;
  /** Sequence numbers in the order of their PUBACK or PUBREC; of QoS 0, of their sending. */
  readonly acknowledged: number[] = [];
  readonly #options: DeviceOptions;
  readonly #pad: string;
  /** By packet identifier, in the order of their first sending. */
  readonly #unfinished = new Map<number, Unfinished>();
  #seq = 0;
  #lastId = 0;
  #socket: Socket | undefined;
  #online = false;
  #stopped = false;

  constructor(options: DeviceOptions) {
    this.#options = options;
    this.#pad = "x".repeat(options.padBytes);
    this.id = options.id;
    this.kind = options.kind;
    this.#connect();
  }

  get topic(): string {
    return this.kind === "qos1-again" ? `again/${this.id}/telemetry` : `devices/${this.id}/telemetry`;
  }

  /** True while nothing waits for an acknowledgement. */
  get settled(): boolean {
    return this.#unfinished.size === 0;
  }

  /** From now on nothing that arrives is noticed, until the next connection. */
  deafen(): void {
    this.#socket?.removeAllListeners("data");
  }

  get online(): boolean {
    return this.#online;
  }

  /** Sends the next reading, unless the window is full or the connection is down. */
  publish(): void {
    if (!this.#online || this.#unfinished.size >= this.#options.window) return;
    this.#seq += 1;
    if (this.kind === "qos0") {
      this.acknowledged.push(this.#seq);
      this.#send(0, this.#seq, false);
    } else {
      const packetId = this.#nextId();
      this.#unfinished.set(packetId, { seq: this.#seq, received: false });
      this.#send(packetId, this.#seq, false);
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#socket?.destroy();
  }

  #connect(): void {
    if (this.#stopped) return;
    const socket = createConnection({ host: "127.0.0.1", port: this.#options.port, noDelay: true });
    const packets = parser({ protocolVersion: 4 });
    packets.on("packet", (packet) => this.#receive(packet));
    // One object a packet is slow, and 200 of these devices share a machine with the gateway: no hot path here.
    socket.on("data", (chunk) => void packets.parse(chunk));
    socket.on("connect", () => {
      const clean = this.kind === "qos0" || this.kind === "qos1-once";
      socket.write(generate({ cmd: "connect", protocolId: "MQTT", clientId: this.id, clean, keepalive: 0 }));
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#online = false;
      setTimeout(() => this.#connect(), reconnectMs.least + this.#options.random() * reconnectMs.spread);
    });
    this.#socket = socket;
  }

  #receive(packet: Packet): void {
    const { cmd, messageId = 0 } = packet;
    if (cmd === "connack") this.#resume(packet);
    else if (cmd === "puback" || cmd === "pubrec") this.#acknowledge(messageId);
    else if (cmd !== "pubcomp") throw new TypeError(`${this.id} received ${cmd}`);
    if (cmd === "pubrec") this.#release(messageId);
    else this.#unfinished.delete(messageId);
  }

  #resume({ returnCode }: IConnackPacket): void {
    if (returnCode !== 0) throw new Error(`${this.id} was refused: ${returnCode}`);
    this.#online = true;
    if (this.kind === "qos1-once") this.#unfinished.clear();
    for (const [packetId, { seq, received }] of this.#unfinished) {
      if (received) this.#release(packetId);
      else this.#send(packetId, seq, true);
    }
  }

  #acknowledge(packetId: number): void {
    const message = this.#unfinished.get(packetId);
    if (message === undefined) throw new Error(`${this.id}: nothing was sent with the identifier ${packetId}`);
    if (message.received) return;
    message.received = true;
    this.acknowledged.push(message.seq);
  }

  #send(packetId: number, seq: number, dup: boolean): void {
    const payload = `{"ts":${Date.now()},"seq":${seq},"metrics":{"temperature":21.5,"humidity":40},"pad":"${this.#pad}"}`;
    const qos = qosOf[this.kind];
    const { topic } = this;
    this.#socket?.write(generate({ cmd: "publish", topic, payload, qos, dup, retain: false, messageId: packetId }));
  }

  #release(packetId: number): void {
    this.#socket?.write(generate({ cmd: "pubrel", messageId: packetId }));
  }

  #nextId(): number {
    let id = this.#options.packetIds === "lowest" ? 1 : this.#lastId + 1;
    while (id > 65_535 || this.#unfinished.has(id)) id = id >= 65_535 ? 1 : id + 1;
    this.#lastId = id;
    return id;
  }
}
