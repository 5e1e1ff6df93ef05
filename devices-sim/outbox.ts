// What a device has measured and its broker has not acknowledged. It waits here while the device is away, comes back from there,
// or delivers late or twice; else it is sent at once.

import type { MqttClient } from "mqtt";
import type { ClientLink } from "./faults/client-link.ts";
import type { MessageFault } from "./faults/device-faults.ts";
import type { DeviceLedger } from "./ledger/writer.ts";
import type { Message } from "./payloads/payload.ts";
import type { Tally } from "./tally.ts";

/** One PUBLISH to be. */
export interface Outgoing {
  readonly message: Message;
  readonly seq: number;
  readonly suffers: MessageFault | undefined;
  /** It says the same as the one before, on purpose. */
  readonly isCopy?: boolean;
}

export interface OutboxParts {
  readonly qos: 0 | 1 | 2;
  readonly tally: Tally;
  readonly ledger: DeviceLedger | undefined;
  /** A message is acknowledged, refused or given up. */
  readonly onSettled: () => void;
}

export class Outbox {
  readonly #parts: OutboxParts;
  #waiting: Outgoing[] = [];
  /** Kept until the next message is there, to be sent behind it. */
  #late: Outgoing[] = [];
  #inFlight = 0;

  constructor(parts: OutboxParts) {
    this.#parts = parts;
  }

  /** Messages that may be sent. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Messages that were sent and wait for their acknowledgement; at QoS 0 for being written. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** The messages of one reading. */
  add(messages: readonly Outgoing[]): void {
    const fault = messages[0]?.suffers?.fault;
    const how = fault?.kind === "delivery" ? fault.how : undefined;
    if (how === "late" && this.#late.length === 0) {
      this.#late = [...messages];
      return;
    }
    for (const outgoing of messages) {
      this.#waiting.push(outgoing);
      if (how === "twice") this.#waiting.push({ ...outgoing, isCopy: true });
    }
    this.release();
  }

  /** Nothing follows any more: what was to be late may be sent now. */
  release(): void {
    this.#waiting.push(...this.#late);
    this.#late = [];
  }

  /** Throws away what was not sent, and returns how many messages that were. */
  clear(): number {
    const count = this.#waiting.length + this.#late.length;
    this.#waiting = [];
    this.#late = [];
    return count;
  }

  /** Sends until so many are in flight. */
  send(client: MqttClient, link: ClientLink, maxInFlight: number): void {
    while (this.#inFlight < maxInFlight) {
      const outgoing = this.#waiting.shift();
      if (outgoing === undefined) return;
      this.#publish(client, link, outgoing);
    }
  }

  #publish(client: MqttClient, link: ClientLink, { message, seq, suffers, isCopy = false }: Outgoing): void {
    const { qos, tally, ledger, onSettled } = this.#parts;
    const { topic, payload, value } = message;
    const fault = suffers && {
      kind: suffers.name,
      reason: suffers.fault.kind === "payload" ? suffers.fault.outcome : "",
    };
    const isDoomed = fault?.reason === "too-large";
    this.#inFlight += 1;
    tally.sent(isCopy ? undefined : fault);
    ledger?.announce({ seq, payload, value, fault, isCopy });
    if (isDoomed) link.mark(payload, "doomed");
    if (suffers?.fault.kind === "delivery" && suffers.fault.how === "unheard") link.mark(payload, "unheard");
    const sentMs = performance.now();
    client.publish(topic, payload, { qos }, (error) => {
      this.#inFlight -= 1;
      const afterMs = performance.now() - sentMs;
      if (error === undefined || error === null) {
        if (qos === 0) tally.written();
        else tally.acknowledged(afterMs);
      } else if ("code" in error && typeof error.code === "number") {
        tally.refused(error.code, fault, afterMs);
      } else if (isDoomed) {
        tally.withdrawn();
      } else {
        tally.abandoned();
        tally.error("publish", error.message);
      }
      onSettled();
    });
  }
}
