// Writes the ledger while a run goes on: one file for each thread, appended to in blocks. A block is in the system's hands when
// it is written, so that a simulator that is killed loses at most FLUSH_MS of lines; only a power cut takes more.

import { closeSync, fsyncSync, openSync, writeFileSync } from "node:fs";
import { mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { IPublishPacket, MqttClient, Packet } from "mqtt";
import type { SimOptions } from "../options.ts";
import { fingerprintOfPayload, fingerprintOfValue } from "./fingerprint.ts";
import { LEDGER_VERSION, RUN_FILE, workerFile, type LedgerLine, type Run } from "./format.ts";

const FLUSH_MS = 100;
const BLOCK_CHARACTERS = 64 * 1024;

/** Makes the folder and writes `run.json`. Rejects when the folder has a run already. Resolves to what says that the run has ended. */
export async function beginRun(
  dir: string,
  { password: _secret, ...options }: SimOptions,
): Promise<() => Promise<void>> {
  await mkdir(dir, { recursive: true });
  if ((await readdir(dir)).includes(RUN_FILE))
    throw new Error(`${dir} has the ledger of another run: give another folder`);
  const run: Run = { version: LEDGER_VERSION, startedAt: Date.now(), options };
  await writeRun(dir, run);
  return () => writeRun(dir, { ...run, endedAt: Date.now() });
}

export async function readRun(dir: string): Promise<Run> {
  return JSON.parse(await readFile(join(dir, RUN_FILE), "utf8")) as Run;
}

async function writeRun(dir: string, run: Run): Promise<void> {
  const path = join(dir, RUN_FILE);
  await writeFile(`${path}.new`, `${JSON.stringify(run)}\n`);
  await rename(`${path}.new`, path);
}

/** The lines of one thread. Everything throws when the file cannot be written: a run without its ledger proves nothing. */
export class LedgerWriter implements Disposable {
  readonly #file: number;
  readonly #timer: NodeJS.Timeout;
  #block = "";
  #devices = 0;

  constructor(dir: string, thread: number) {
    this.#file = openSync(join(dir, workerFile(thread)), "wx");
    this.#timer = setInterval(() => this.#flush(), FLUSH_MS);
  }

  add(line: LedgerLine): void {
    this.#block += `${JSON.stringify(line)}\n`;
    if (this.#block.length >= BLOCK_CHARACTERS) this.#flush();
  }

  /** The part of the ledger that is about one device. */
  openDevice(id: string, topic: string): DeviceLedger {
    const device = this.#devices;
    this.#devices += 1;
    this.add(["device", device, id, topic]);
    return new DeviceLedger(this, device, topic);
  }

  /** Everything is on disk then. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#flush();
    fsyncSync(this.#file);
    closeSync(this.#file);
  }

  #flush(): void {
    if (this.#block === "") return;
    writeFileSync(this.#file, this.#block);
    this.#block = "";
  }
}

/** What a device knows of a message that the packet does not say. */
export interface Announcement {
  readonly seq: number;
  /** The very value that is handed to the client. */
  readonly payload: string | Buffer;
  /** What a sink is to have of a payload that is not JSON, such as CBOR: the value that it stands for. */
  readonly value?: unknown;
  /** How it is spoilt, and the reason for which it is to be rejected. */
  readonly fault?: { readonly kind: string; readonly reason: string } | undefined;
}

/** Listens to a client's packets, so that the ledger has what was on the wire and not what was meant to be. */
export class DeviceLedger {
  readonly #writer: LedgerWriter;
  readonly #device: number;
  readonly #topic: string;
  /** By packet identifier: messages that are not finished. */
  readonly #unfinished = new Map<number, number>();
  #messages = 0;
  #announced: Announcement | undefined;
  #session: 0 | 1 = 0;

  constructor(writer: LedgerWriter, device: number, topic: string) {
    this.#writer = writer;
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

  #onPublish({ messageId = 0, topic, payload, qos }: IPublishPacket): void {
    const announced = this.#announced;
    if (announced?.payload !== payload) {
      const message = this.#unfinished.get(messageId);
      if (message !== undefined) this.#writer.add(["again", this.#device, message, Date.now(), this.#session]);
      return;
    }
    this.#announced = undefined;
    const { seq, value, fault } = announced;
    const message = this.#messages;
    this.#messages += 1;
    if (qos > 0) this.#unfinished.set(messageId, message);
    const print = value === undefined ? fingerprintOfPayload(payload) : fingerprintOfValue(value);
    const bytes = Buffer.byteLength(payload);
    const sent = ["sent", this.#device, message, Date.now(), qos, seq, bytes, print] as const;
    if (fault === undefined && topic === this.#topic) this.#writer.add(sent);
    else this.#writer.add([...sent, fault?.kind ?? "", fault?.reason ?? "", topic]);
  }

  #onPacket(packet: Packet): void {
    if (packet.cmd === "connack") this.#session = packet.sessionPresent ? 1 : 0;
    else if (packet.cmd === "puback" || packet.cmd === "pubrec") this.#onAcknowledged(packet);
    else if (packet.cmd === "pubcomp") {
      const message = this.#finish(packet.messageId);
      if (message !== undefined) this.#writer.add(["done", this.#device, message, Date.now()]);
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
    if (code === 0) this.#writer.add(["ack", this.#device, message, at]);
    else this.#writer.add(["ack", this.#device, message, at, code, reason]);
  }

  #finish(messageId = 0): number | undefined {
    const message = this.#unfinished.get(messageId);
    this.#unfinished.delete(messageId);
    return message;
  }
}
