// The connection of an MQTT.js client in the hands of faults. MQTT.js keeps what was not acknowledged, and sends it again after
// each CONNACK; what it must not notice is hidden from it here.

import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import type { IPublishPacket, MqttClient, Packet } from "mqtt";
import type { Dial } from "../connection/dialer.ts";
import type { Identity } from "../connection/identities.ts";
import type { SimOptions } from "../options.ts";
import type { Schedule } from "../schedule.ts";
import type { Link } from "./fault.ts";

export interface ClientLinkParts {
  readonly identity: Identity;
  readonly dial: Dial;
  readonly client: MqttClient;
  readonly options: SimOptions;
  readonly schedule: Schedule;
  /** The broker did not do what it must. */
  readonly onSurprise: (text: string) => void;
}

type Mark = "unheard" | "doomed";

export class ClientLink implements Link {
  readonly #parts: ClientLinkParts;
  #isAway = false;
  #isProvoked = false;
  /** The message that is about to be handed to the client, and what is to become of it. */
  #next: { readonly payload: string | Buffer; readonly mark: Mark } | undefined;
  /** Packet identifiers of messages that are not finished. */
  readonly #unfinished = new Set<number>();
  /** By packet identifier. */
  readonly #marks = new Map<number, Mark>();

  /** Listens to the client before anybody who wants to know what it receives. */
  constructor(parts: ClientLinkParts) {
    this.#parts = parts;
    parts.client.on("packetsend", (packet: Packet) => {
      if (packet.cmd === "publish") this.#onPublish(packet);
    });
    parts.client.on("packetreceive", (packet: Packet) => {
      if (packet.cmd === "puback" || packet.cmd === "pubrec") this.#onAcknowledged(packet);
      if (packet.cmd === "puback" || packet.cmd === "pubcomp") this.#unfinished.delete(packet.messageId ?? 0);
      // An error ends the handshake of QoS 2 too [MQTT-4.3.3-4].
      if (packet.cmd === "pubrec" && (packet.reasonCode ?? 0) >= 0x80) this.#unfinished.delete(packet.messageId ?? 0);
    });
    parts.client.on("close", () => this.#giveUpDoomed());
  }

  get identity(): Identity {
    return this.#parts.identity;
  }

  get options(): SimOptions {
    return this.#parts.options;
  }

  /** The device stays away on purpose. */
  get isAway(): boolean {
    return this.#isAway;
  }

  /** Whether a fault has ended the connection that has just been closed. */
  takeProvoked(): boolean {
    const isProvoked = this.#isProvoked;
    this.#isProvoked = false;
    return isProvoked;
  }

  /** Just before a message is given to the client. unheard: its acknowledgement gets lost. doomed: it is not sent again. */
  mark(payload: string | Buffer, mark: Mark): void {
    this.#next = { payload, mark };
  }

  leave(): void {
    const { client } = this.#parts;
    this.#isAway = true;
    // MQTT.js sets no timer then.
    client.options.reconnectPeriod = 0;
    this.#end(client.stream);
  }

  comeBack(): void {
    if (!this.#isAway) return;
    this.#isAway = false;
    const { client } = this.#parts;
    if (!client.connected) this.#reconnect();
    else if (client.stream.destroyed) client.once("close", () => this.#reconnect());
  }

  reset(): void {
    const { stream } = this.#parts.client;
    this.#isProvoked = true;
    // What is wrapped, as by TLS, has no reset of its own.
    if (stream instanceof Socket && !(stream instanceof TLSSocket)) stream.resetAndDestroy();
    else stream.destroy();
  }

  openStream(): Duplex {
    return this.#parts.dial(this.#parts.client);
  }

  after(delayMs: number, run: () => void): void {
    const { schedule } = this.#parts;
    schedule.at(schedule.now() + delayMs, () => {
      run();
      return undefined;
    });
  }

  surprise(text: string): void {
    this.#parts.onSurprise(text);
  }

  #end(stream: Duplex): void {
    this.#isProvoked = true;
    stream.destroy();
  }

  /** With the messages that it has: without stores it would forget them. */
  #reconnect(): void {
    const { client } = this.#parts;
    if (client.disconnecting) return;
    client.reconnect({ incomingStore: client.incomingStore, outgoingStore: client.outgoingStore });
  }

  /** Told before the packet is written. */
  #onPublish(packet: IPublishPacket): void {
    const { messageId = 0, payload, qos } = packet;
    if (qos === 0) return;
    // MQTT.js leaves out what [MQTT-3.3.1-1] asks of a client that sends again.
    if (this.#unfinished.has(messageId)) packet.dup = true;
    this.#unfinished.add(messageId);
    if (this.#next?.payload !== payload) return;
    this.#marks.set(messageId, this.#next.mark);
    this.#next = undefined;
  }

  #onAcknowledged(packet: Extract<Packet, { cmd: "puback" | "pubrec" }>): void {
    const { messageId = 0 } = packet;
    const mark = this.#marks.get(messageId);
    if (mark === undefined) return;
    this.#marks.delete(messageId);
    if (mark === "doomed") return;
    // No message has this identifier: neither MQTT.js nor the ledger hears of the acknowledgement.
    packet.messageId = 0;
    this.#end(this.#parts.client.stream);
  }

  #giveUpDoomed(): void {
    for (const [messageId, mark] of this.#marks) {
      if (mark !== "doomed") continue;
      this.#marks.delete(messageId);
      this.#unfinished.delete(messageId);
      this.#parts.client.removeOutgoingMessage(messageId);
    }
  }
}
