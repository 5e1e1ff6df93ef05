// Writes the ledger while a run goes on: a file for each thread, with what its devices send and are told.

import { join } from "node:path";
import type { IPublishPacket, MqttClient, Packet } from "mqtt";
import { fingerprintOfPayload, fingerprintOfValue } from "./fingerprint.ts";
import { workerFile, type LedgerLine } from "./format.ts";
import { LineWriter } from "./line-writer.ts";

/** The lines of one thread. */
export class LedgerWriter implements Disposable {
  readonly #lines: LineWriter<LedgerLine>;
  #devices = 0;

  constructor(dir: string, thread: number) {
    this.#lines = new LineWriter(join(dir, workerFile(thread)));
  }

  /** The part of the ledger that is about one device. */
  openDevice(id: string, topic: string): DeviceLedger {
    const device = this.#devices;
    this.#devices += 1;
    this.#lines.add(["device", device, id, topic]);
    return new DeviceLedger(this.#lines, device, topic);
  }

  [Symbol.dispose](): void {
    this.#lines[Symbol.dispose]();
  }
}

/** What a device knows of a message that the packet does not say. */
export interface Announcement {
  readonly seq: number;
  /** The very value that is handed to the client. */
  readonly payload: string | Buffer;
  /** What a sink is to have of a payload that is not JSON, such as CBOR: the value that it stands for. */
  readonly value?: unknown;
  /** What it suffers on purpose, and the reason for which it is to be rejected; "": a good one. */
  readonly fault?: { readonly kind: string; readonly reason: string } | undefined;
  /** The message before, sent once more: it may be there twice. */
  readonly isCopy?: boolean;
}

/** Listens to a client's packets, so that the ledger has what was on the wire and not what was meant to be. */
export class DeviceLedger {
  readonly #lines: LineWriter<LedgerLine>;
  readonly #device: number;
  readonly #topic: string;
  /** By packet identifier: messages that are not finished. */
  readonly #unfinished = new Map<number, number>();
  #messages = 0;
  #announced: Announcement | undefined;
  #session: 0 | 1 = 0;

  constructor(lines: LineWriter<LedgerLine>, device: number, topic: string) {
    this.#lines = lines;
    this.#device = device;
    this.#topic = topic;
  }

  /** Before the client connects. */
  watch(client: MqttClient): void {
    client.on("packetsend", (packet: Packet) => {
      if (packet.cmd === "publish") this.#onPublish(packet);
    });
    client.on("packetreceive", (packet: Packet) => this.#onPacket(packet));
  }

  /** Just before the message is given to the client. */
  announce(announcement: Announcement): void {
    this.#announced = announcement;
  }

  /** Something happens to the device's clock or connection. */
  fault(name: string): void {
    this.#lines.add(["fault", this.#device, name, Date.now()]);
  }

  #onPublish({ messageId = 0, topic, payload, qos }: IPublishPacket): void {
    const announced = this.#announced;
    if (announced?.payload !== payload) {
      const message = this.#unfinished.get(messageId);
      if (message !== undefined) this.#lines.add(["again", this.#device, message, Date.now(), this.#session]);
      return;
    }
    this.#announced = undefined;
    const { seq, value, fault, isCopy = false } = announced;
    if (isCopy) {
      const message = this.#messages - 1;
      if (qos > 0) this.#unfinished.set(messageId, message);
      this.#lines.add(["again", this.#device, message, Date.now(), 0]);
      return;
    }
    const message = this.#messages;
    this.#messages += 1;
    if (qos > 0) this.#unfinished.set(messageId, message);
    const print = value === undefined ? fingerprintOfPayload(payload) : fingerprintOfValue(value);
    const bytes = Buffer.byteLength(payload);
    const sent = ["sent", this.#device, message, Date.now(), qos, seq, bytes, print] as const;
    if (fault === undefined && topic === this.#topic) this.#lines.add(sent);
    else this.#lines.add([...sent, fault?.kind ?? "", fault?.reason ?? "", topic]);
  }

  #onPacket(packet: Packet): void {
    if (packet.cmd === "connack") this.#session = packet.sessionPresent ? 1 : 0;
    else if (packet.cmd === "puback" || packet.cmd === "pubrec") this.#onAcknowledged(packet);
    else if (packet.cmd === "pubcomp") {
      const message = this.#finish(packet.messageId);
      if (message !== undefined) this.#lines.add(["done", this.#device, message, Date.now()]);
    }
  }

  #onAcknowledged({
    cmd,
    messageId = 0,
    reasonCode: code = 0,
    properties,
  }: Extract<Packet, { cmd: "puback" | "pubrec" }>): void {
    const message = this.#unfinished.get(messageId);
    if (message === undefined) return;
    // An error ends the handshake of QoS 2 too [MQTT-4.3.3-4].
    if (cmd === "puback" || code >= 0x80) this.#finish(messageId);
    const { reason = "" } = (properties?.userProperties ?? {}) as { readonly reason?: string };
    const at = Date.now();
    if (code === 0) this.#lines.add(["ack", this.#device, message, at]);
    else this.#lines.add(["ack", this.#device, message, at, code, reason]);
  }

  #finish(messageId = 0): number | undefined {
    const message = this.#unfinished.get(messageId);
    this.#unfinished.delete(messageId);
    return message;
  }
}
