// Delivery to live subscribers: of telemetry, and as the emitter that Aedes publishes through (its `mq` option).
//
// Aedes' own emitter runs at most 100 deliveries at a time and calls back when the slowest subscriber has taken the
// message, so one frozen subscriber stops live delivery for everybody. This one calls back at once; how much may wait
// for a subscriber is bounded by its outbox.
//
// QoS 0, be it the message's or what was granted, is written here: once for all subscribers alike, and without Aedes,
// which would make two objects, a closure and a packet per subscriber. QoS 1 and 2 come from the session's queue
// (sessions.ts), and their telemetry does not pass Aedes either. Each client is given one copy with the highest QoS that was
// granted to it [MQTT-3.3.4-2]; Aedes would lower the QoS for a filter without wildcards only [MQTT-3.8.4-8].

import { Buffer } from "node:buffer";
import type { AedesPublishPacket } from "aedes";
import type { EventBus } from "../events.ts";
import { type Audience, Audiences, type Keeper } from "./audience.ts";
import type { ShownMessage } from "./connection-context.ts";
import { LivePacket, Shapes } from "./live-packet.ts";
import { encodeProperties, withoutTopicAlias } from "./live-properties.ts";
import { Outbox, Outboxes, type Subscriber } from "./outbox.ts";
import type { AedesSubscription, LiveSubscription, Target } from "./target.ts";

export interface FanOutOptions {
  /** Topics of Aedes' own housekeeping (`$SYS/<broker id>/`), which no client is shown. */
  readonly privatePrefix: string;
  /** What may wait for one subscriber. */
  readonly queueBytes: number;
  readonly events: EventBus;
  readonly keeper: Keeper;
}

/** What Aedes emits; `clientId` is that of the publisher. */
type Emitted = AedesPublishPacket & { readonly clientId?: string };

const ignore = (): void => {};

export class FanOut {
  readonly #privatePrefix: string;
  readonly #audiences: Audiences;
  readonly #outboxes: Outboxes;
  readonly #packet = new LivePacket();
  /** By what Aedes registers for it. */
  readonly #live = new WeakMap<object, LiveSubscription>();
  #closed = false;

  constructor({ privatePrefix, queueBytes, events, keeper }: FanOutOptions) {
    this.#privatePrefix = privatePrefix;
    this.#audiences = new Audiences(keeper, new Shapes());
    this.#outboxes = new Outboxes(queueBytes, events);
  }

  /** Live subscriptions. */
  get subscriptions(): number {
    return this.#audiences.size;
  }

  /** Who listens to the topic; good for as long as it is current. */
  audienceOf(topic: string): Audience {
    return this.#audiences.of(topic);
  }

  /**
   * The table of a client's subscriptions, for Aedes: it writes there what it then registers with `on`, which says nothing
   * of the client or of its options.
   */
  subscriptionsOf(subscriber: Subscriber): Record<string, AedesSubscription> {
    let outbox: Outbox | undefined; // most clients only publish
    return new Proxy<Record<string, AedesSubscription>>(Object.create(null), {
      set: (table, filter: string, inAedes: AedesSubscription) => {
        table[filter] = inAedes;
        outbox ??= new Outbox(subscriber, this.#outboxes);
        this.#live.set(inAedes.func, { filter, outbox, inAedes });
        return true;
      },
    });
  }

  /** Shows a PUBLISH of accepted telemetry to those who get it with QoS 0. */
  show(audience: Audience, { clientId, buffer, view }: ShownMessage): void {
    const packet = this.#packet;
    packet.payload = buffer;
    packet.payloadStart = view.payloadStart;
    packet.payloadEnd = view.payloadEnd;
    packet.properties = buffer;
    packet.propertiesStart = view.propertiesStart;
    packet.propertiesEnd = view.propertiesEnd;
    if (view.topicAlias !== 0) this.#useProperties(withoutTopicAlias(buffer, view));
    this.#deliver(audience, clientId, view.qos, view.retain);
  }

  // — What Aedes uses of mqemitter —

  readonly current = 0;
  readonly concurrency = 0;

  on(_filter: string, deliver: object, done?: () => void): this {
    const subscription = this.#live.get(deliver);
    // Aedes listens to three topics of its own, for the sake of other brokers.
    if (subscription !== undefined) this.#audiences.add(subscription);
    if (done !== undefined) setImmediate(done);
    return this;
  }

  removeListener(_filter: string, deliver: object, done?: () => void): this {
    const subscription = this.#live.get(deliver);
    if (subscription !== undefined) this.#audiences.remove(subscription);
    // At once: a SUBSCRIBE in the same bytes must not find the filter that Aedes forgets when it is called back.
    done?.();
    return this;
  }

  emit(packet: Emitted, done: (error?: Error) => void = ignore): this {
    if (this.#closed) {
      done(new Error("the broker is closed"));
      return this;
    }
    if (!packet.topic.startsWith(this.#privatePrefix)) this.#emit(packet);
    done();
    return this;
  }

  close(done: () => void): void {
    this.#closed = true;
    setImmediate(done);
  }

  // — Both ways —

  #emit(packet: Emitted): void {
    const audience = this.#audiences.of(packet.topic);
    if (audience.targets.length === 0) return;
    this.#showPacket(audience, packet.clientId ?? "", packet);
  }

  #showPacket(audience: Audience, clientId: string, { payload, properties, qos, retain }: Emitted): void {
    const packet = this.#packet;
    packet.payload = Buffer.isBuffer(payload) ? payload : Buffer.from(payload);
    packet.payloadStart = 0;
    packet.payloadEnd = packet.payload.length;
    this.#useProperties(properties === undefined ? nothing : encodeProperties(properties));
    this.#deliver(audience, clientId, qos, retain);
  }

  #useProperties(properties: Buffer): void {
    this.#packet.properties = properties;
    this.#packet.propertiesStart = 0;
    this.#packet.propertiesEnd = properties.length;
  }

  /** Gives the packet to those whose QoS is 0, or all if the message's is. */
  #deliver(audience: Audience, clientId: string, qos: number, retain: boolean): void {
    const packet = this.#packet;
    packet.topic = audience.encodedTopic;
    packet.begin();
    for (const each of audience.targets) {
      if (qos > 0 && each.qos > 0 && each.own === undefined) continue;
      const target = targetFor(each, clientId);
      if (target === undefined || (qos > 0 && target.qos > 0)) continue;
      target.outbox.take(packet, retain ? target.retainedShape : target.shape, audience.topic);
    }
  }
}

const nothing: Buffer = Buffer.alloc(0);

/** Undefined when the client is not to be given its own message. */
function targetFor(target: Target, clientId: string): Target | undefined {
  if (target.own === undefined || target.clientId !== clientId) return target;
  return target.own === "none" ? undefined : target.own;
}
