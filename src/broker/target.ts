// What one client is given of a message: one copy, however many of its filters match.

import type { AedesPublishPacket, Client } from "aedes";
import type { QoS } from "../reading.ts";
import { hasWildcard } from "./kept-filters.ts";
import type { Shape, Shapes } from "./live-packet.ts";
import type { Outbox } from "./outbox.ts";

/** Aedes' client with what it does not declare: delivery of QoS 1 and 2. */
export interface AedesClient extends Client {
  readonly deliverQoS: (packet: AedesPublishPacket, done: () => void) => void;
}

/** What Aedes keeps of a subscription in `client.subscriptions`. */
export interface AedesSubscription {
  /** What Aedes registers with its emitter. */
  readonly func: object;
  qos: QoS;
  readonly nl?: boolean;
  readonly rap?: boolean;
  /** Subscription identifier. */
  readonly si?: number;
}

/** One filter of one connected client. */
export interface LiveSubscription {
  readonly filter: string;
  readonly client: AedesClient;
  readonly outbox: Outbox;
  readonly granted: QoS;
  readonly inAedes: AedesSubscription;
}

export interface Target {
  readonly client: AedesClient;
  readonly clientId: string;
  readonly outbox: Outbox;
  /** The highest that was granted [MQTT-3.3.4-2]. */
  readonly qos: QoS;
  readonly retainAsPublished: boolean;
  /** Of all filters that match [MQTT-3.3.4-4]; one that came twice is given twice [MQTT-3.3.4-5]. */
  readonly identifiers: readonly number[];
  readonly shape: Shape;
  /** For a message that was published with RETAIN [MQTT-3.3.1-12] [MQTT-3.3.1-13]. */
  readonly retainedShape: Shape;
  /** Set when a filter has No Local: what the client is given of its own messages, "none" for nothing [MQTT-3.8.3-3]. */
  readonly own: Target | "none" | undefined;
}

/** A target for each client, in the order of the subscriptions. All of them match one topic. */
export function toTargets(subscriptions: Iterable<LiveSubscription>, shapes: Shapes): readonly Target[] {
  const byClient = Map.groupBy(subscriptions, ({ client }) => client);
  return [...byClient.values()].map((own) => toTarget(own, shapes));
}

function toTarget(subscriptions: readonly LiveSubscription[], shapes: Shapes): Target {
  const [{ client, outbox }] = subscriptions as readonly [LiveSubscription];
  const qos = subscriptions.reduce<QoS>((highest, { granted }) => (granted > highest ? granted : highest), 0);
  // Aedes lowers a message to what was granted for the filter that equals its topic; here it was lowered already, to the
  // highest of all filters. (When the client subscribes again, Aedes replaces the object.)
  for (const { inAedes, filter } of subscriptions) if (!hasWildcard(filter)) inAedes.qos = qos;
  const identifiers = subscriptions.flatMap(({ inAedes: { si } }) => (si === undefined ? [] : [si]));
  const retainAsPublished = subscriptions.some(({ inAedes }) => inAedes.rap === true);
  const shape = shapes.of(outbox.subscriber.version, false, identifiers);
  const others = subscriptions.filter(({ inAedes }) => inAedes.nl !== true);
  return {
    client,
    clientId: client.id,
    outbox,
    qos,
    retainAsPublished,
    identifiers,
    shape,
    retainedShape: retainAsPublished ? shapes.of(outbox.subscriber.version, true, identifiers) : shape,
    own: ownOf(subscriptions, others, shapes),
  };
}

function ownOf(all: readonly LiveSubscription[], others: readonly LiveSubscription[], shapes: Shapes): Target["own"] {
  if (others.length === all.length) return undefined;
  return others.length === 0 ? "none" : toTarget(others, shapes);
}
