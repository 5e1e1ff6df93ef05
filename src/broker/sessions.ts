// What Aedes remembers between packets: subscriptions of sessions, queues of clients that are away, retained messages.
// In memory, with the bounds that Aedes' own store lacks, and without the rejections that Aedes leaves uncaught.

import { Readable } from "node:stream";
import type { AedesPublishPacket, Client, Subscription } from "aedes";
import MemoryPersistence from "aedes-persistence/asyncPersistence.js";
import type { EventBus } from "../events.ts";
import { KeptFilters } from "./kept-filters.ts";
import type { Limits } from "./limits.ts";

async function* concatenate(streams: readonly Readable[]): AsyncGenerator<AedesPublishPacket> {
  for (const stream of streams) yield* stream as AsyncIterable<AedesPublishPacket>;
}

export class Sessions extends MemoryPersistence {
  readonly #limits: Limits;
  readonly #events: EventBus;
  readonly #retainedTopics = new Set<string>();
  readonly #queued = new Map<string, number>();
  readonly #clients = new Set<string>();

  /** The filters of sessions that outlive their connection. */
  readonly kept = new KeptFilters();

  constructor(limits: Limits, events: EventBus) {
    super();
    this.#limits = limits;
    this.#events = events;
  }

  /** Retained messages held. */
  get retained(): number {
    return this.#retainedTopics.size;
  }

  /** Sessions that outlive their connection and have subscriptions, connected or not. */
  get clients(): number {
    return this.#clients.size;
  }

  /** True when a session that is not held yet would be one too many. */
  isOneTooMany(clientId: string): boolean {
    return this.#clients.size >= this.#limits.sessions && !this.#clients.has(clientId);
  }

  /** True when as many messages wait for this session as may wait. */
  isFull(clientId: string): boolean {
    return (this.#queued.get(clientId) ?? 0) >= this.#limits.queuedMessagesPerSession;
  }

  override async storeRetained(packet: AedesPublishPacket): Promise<void> {
    const { topic } = packet;
    if (topic.startsWith("$")) {
      // The gateway's own, of a fixed number.
    } else if (packet.payload.length === 0) {
      this.#retainedTopics.delete(topic); // [MQTT-3.3.1-6]
    } else if (this.#retainedTopics.size >= this.#limits.retainedMessages && !this.#retainedTopics.has(topic)) {
      this.#events.emit("dropped", "retained", topic);
      return;
    } else {
      this.#retainedTopics.add(topic);
    }
    await super.storeRetained(packet);
  }

  /** A filter that begins with a wildcard does not match topics that begin with $ [MQTT-4.7.2-1]. */
  override createRetainedStreamCombi(filters: string[]): Readable {
    const visible = (filter: string): Readable => {
      const all = super.createRetainedStream(filter);
      return /^[+#]/.test(filter) ? all.filter(({ topic }: AedesPublishPacket) => !topic.startsWith("$")) : all;
    };
    return Readable.from(concatenate(filters.map(visible)));
  }

  override async addSubscriptions(client: Client, subscriptions: Subscription[]): Promise<void> {
    this.#clients.add(client.id);
    for (const { topic, qos } of subscriptions) this.kept.set(client.id, topic, qos);
    await super.addSubscriptions(client, subscriptions);
  }

  override async removeSubscriptions(client: Client, filters: string[]): Promise<void> {
    this.kept.delete(client.id, filters);
    await super.removeSubscriptions(client, filters);
    if ((await this.subscriptionsByClient(client)).length === 0) this.#clients.delete(client.id);
  }

  override async cleanSubscriptions(client: Client): Promise<void> {
    this.#clients.delete(client.id);
    this.kept.deleteAll(client.id);
    await super.cleanSubscriptions(client);
  }

  override async outgoingEnqueueCombi(
    subscriptions: { clientId: string }[],
    packet: AedesPublishPacket,
  ): Promise<void> {
    const taken: { clientId: string }[] = [];
    for (const subscription of subscriptions) {
      const { clientId } = subscription;
      if (this.isFull(clientId)) {
        this.#events.emit("dropped", clientId, packet.topic);
      } else {
        this.#queued.set(clientId, (this.#queued.get(clientId) ?? 0) + 1);
        taken.push(subscription);
      }
    }
    if (taken.length > 0) await super.outgoingEnqueueCombi(taken, packet);
  }

  /** A message that found the queue full is not there to be updated; Aedes would end the client's connection for it. */
  override async outgoingUpdate(client: Client, packet: AedesPublishPacket): Promise<void> {
    await super.outgoingUpdate(client, packet).catch(() => {});
  }

  override async outgoingClearMessageId(
    client: Client,
    packet: AedesPublishPacket,
  ): Promise<AedesPublishPacket | undefined> {
    const cleared = await super.outgoingClearMessageId(client, packet);
    if (cleared !== undefined) {
      const left = (this.#queued.get(client.id) ?? 1) - 1;
      if (left > 0) this.#queued.set(client.id, left);
      else this.#queued.delete(client.id);
    }
    return cleared;
  }

  /** Two PUBRELs for one packet in one chunk: the second finds nothing, and Aedes would not catch that. */
  override async incomingDelPacket(client: Client, packet: AedesPublishPacket): Promise<void> {
    await super.incomingDelPacket(client, packet).catch(() => {});
  }
}
