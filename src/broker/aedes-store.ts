// What Aedes takes for its persistence. The state is ours (sessions.ts, retained.ts, wills.ts): Aedes asks here for the
// filters of a session that continues, hands over each QoS 1 and 2 message before it shows it to live subscribers, and
// stores retained messages. All else that it would write down is answered with nothing.
//
// Queues in Aedes' own store are searched from the front for each acknowledgement, their packets lose DUP, and what it
// rejects (a second PUBREL, a message that found the queue full) nobody catches.

import { Readable } from "node:stream";
import type { AedesPublishPacket, Client, Subscription as AedesSubscription } from "aedes";
import type { EventBus } from "../events.ts";
import type { Limits } from "./limits.ts";
import { ownBytes, ownProperties } from "./own-bytes.ts";
import type { RetainedMessages } from "./retained.ts";
import type { Published, Sessions } from "./sessions.ts";

interface HasId {
  readonly id: string;
}

interface HasMessageId {
  readonly messageId?: number | undefined;
}

type Packet = AedesPublishPacket & { readonly messageExpiry?: number; readonly clientId?: string };

export interface AedesStoreOptions {
  readonly sessions: Sessions;
  readonly retained: RetainedMessages;
  readonly limits: Pick<Limits, "maximumInflightQos2" | "retainedMessages">;
  readonly events: EventBus;
}

const nothing: readonly never[] = [];
/** Per message, for what is around topic and payload. */
const OVERHEAD_BYTES = 200;

export class AedesStore {
  readonly #options: AedesStoreOptions;

  constructor(options: AedesStoreOptions) {
    this.#options = options;
  }

  async setup(): Promise<void> {}

  async storeRetained(packet: Packet): Promise<void> {
    this.retain(toPublished(packet));
  }

  retain({ clientId: _publisher, ...message }: Published): void {
    const limit = this.#options.retained.store(message);
    if (limit !== undefined) this.#options.events.emit("limited", limit);
  }

  /** Retained messages are sent by the connection (retained-delivery.ts). */
  createRetainedStreamCombi(): Readable {
    return Readable.from(nothing);
  }

  async subscriptionsByClient({ id }: HasId): Promise<readonly AedesSubscription[]> {
    const session = this.#options.sessions.get(id);
    if (session === undefined) return nothing;
    return [...session.subscriptions.values()].map(
      ({ filter: topic, qos, noLocal: nl, retainAsPublished: rap, id: subscriptionIdentifier }) => ({
        topic,
        qos,
        nl,
        rap,
        rh: 2,
        ...(subscriptionIdentifier === undefined ? undefined : { subscriptionIdentifier }),
      }),
    );
  }

  async subscriptionsByTopic(): Promise<readonly never[]> {
    return nothing;
  }

  async outgoingEnqueueCombi(_: readonly never[], packet: Packet): Promise<void> {
    this.#options.sessions.deliver(toPublished(packet));
  }

  async addSubscriptions(): Promise<void> {}
  async removeSubscriptions(): Promise<void> {}
  async cleanSubscriptions(): Promise<void> {}
  async outgoingUpdate(): Promise<void> {}
  async outgoingClearMessageId(): Promise<void> {}
  outgoingStream(): Readable {
    return Readable.from(nothing);
  }

  async incomingStorePacket({ id }: Client, { messageId = 0 }: HasMessageId): Promise<void> {
    const incoming = this.#options.sessions.get(id)?.incoming;
    const { maximumInflightQos2 } = this.#options.limits;
    if (incoming === undefined || incoming.size >= maximumInflightQos2) {
      this.#options.events.emit("limited", "maximumInflightQos2");
      throw new Error(`more than ${maximumInflightQos2} unfinished QoS 2 messages`);
    }
    incoming.add(messageId);
  }

  async incomingGetPacket({ id }: Client, { messageId = 0 }: HasMessageId): Promise<HasMessageId> {
    if (this.#options.sessions.get(id)?.incoming.has(messageId) === true) return { messageId };
    throw new Error("no such packet");
  }

  async incomingDelPacket({ id }: Client, { messageId = 0 }: HasMessageId): Promise<void> {
    this.#options.sessions.get(id)?.incoming.delete(messageId);
  }

  async putWill(): Promise<void> {}
  async delWill(): Promise<void> {}
  streamWill(): Readable {
    return Readable.from(nothing);
  }
}

export const toPublished = (
  packet: Pick<Packet, "topic" | "payload" | "qos" | "retain" | "properties" | "messageExpiry" | "clientId">,
): Published => ({
  topic: packet.topic,
  payload: typeof packet.payload === "string" ? packet.payload : ownBytes(packet.payload),
  qos: packet.qos,
  retain: packet.retain,
  properties: packet.properties === undefined ? undefined : ownProperties(packet.properties),
  expiresAt: packet.messageExpiry,
  clientId: packet.clientId,
  bytes: OVERHEAD_BYTES + 2 * packet.topic.length + packet.payload.length + bytesOf(packet.properties),
});

function bytesOf(value: unknown): number {
  if (typeof value === "string" || Buffer.isBuffer(value)) return value.length;
  if (typeof value !== "object" || value === null) return 8;
  let bytes = 0;
  for (const [key, part] of Object.entries(value)) bytes += key.length + bytesOf(part);
  return bytes;
}
