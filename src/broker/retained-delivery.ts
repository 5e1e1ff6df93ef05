// Retained messages for new subscriptions of one client [MQTT-3.3.1-9…11]: one search at a time, which goes on as fast as
// the client takes them, so that nothing is dropped for a client that reads and little is held for one that does not.

import type { ProtocolVersion } from "./frames.ts";
import { encodePublish } from "./outgoing-message.ts";
import type { RetainedMessage, RetainedMessages } from "./retained.ts";
import type { Session, Subscription } from "./sessions.ts";

export interface RetainedReceiver {
  readonly session: Session | undefined;
  readonly version: ProtocolVersion;
  readonly maximumPacketBytes: number;
  /** The socket takes more; when it does so again, `wake` is called. */
  readonly writable: boolean;
  readonly write: (frames: readonly Buffer[]) => void;
  readonly dropped: (topic: string) => void;
  readonly failed: (cause: unknown) => void;
}

export class RetainedDelivery {
  readonly #retained: RetainedMessages;
  readonly #receiver: RetainedReceiver;
  /** By filter: bounded by the subscriptions that the client may have. */
  readonly #asked = new Map<string, Subscription>();
  #running = false;
  #stopped = false;
  #wake: (() => void) | undefined;

  constructor(retained: RetainedMessages, receiver: RetainedReceiver) {
    this.#retained = retained;
    this.#receiver = receiver;
  }

  start(subscription: Subscription): void {
    this.#asked.set(subscription.filter, subscription);
    if (this.#running) return;
    this.#running = true;
    this.#run().catch((cause: unknown) => this.#receiver.failed(cause));
  }

  /** The client has taken something. */
  wake(): void {
    this.#wake?.();
  }

  stop(): void {
    this.#stopped = true;
    this.#asked.clear();
    this.#wake?.();
  }

  async #run(): Promise<void> {
    try {
      for (const [filter, subscription] of this.#asked) {
        this.#asked.delete(filter);
        await this.#deliver(filter, subscription);
        if (this.#stopped) return;
      }
    } finally {
      this.#running = false; // in the same step in which nothing more was asked for: what comes now is not passed over
    }
  }

  async #deliver(filter: string, subscription: Subscription): Promise<void> {
    for await (const message of this.#retained.match(filter)) {
      const qos = Math.min(message.qos, subscription.qos);
      while (!this.#stopped && !this.#hasRoom(qos)) await this.#room();
      if (this.#stopped || this.#receiver.session?.subscriptions.has(filter) !== true) return;
      this.#send(message, subscription);
    }
  }

  #hasRoom(qos: number): boolean {
    const { session, writable } = this.#receiver;
    return qos === 0 ? writable : session?.queue.isHalfFull !== true;
  }

  #room(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #send(retained: RetainedMessage, { qos, id }: Subscription): void {
    const receiver = this.#receiver;
    const nowMs = Date.now();
    const message = { ...retained, retain: true, subscriptionIds: id === undefined ? [] : [id] };
    const granted = Math.min(qos, retained.qos);
    if (granted === 1 || granted === 2) {
      receiver.session?.queue.push({ ...message, qos: granted }, nowMs);
      return;
    }
    const frame = encodePublish({ ...message, qos: 0 }, receiver.version, 0, false, nowMs);
    if (frame.length <= receiver.maximumPacketBytes) receiver.write([frame]);
    else receiver.dropped(retained.topic);
  }
}
