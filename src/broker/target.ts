// What one connected client is given of a message with QoS 0: one copy, however many of its filters match.

import type { QoS } from "../reading.ts";
import type { Shape, Shapes } from "./live-packet.ts";
import type { Outbox } from "./outbox.ts";

/** What Aedes keeps of a subscription in `client.subscriptions`. */
export interface AedesSubscription {
  /** What Aedes registers with its emitter. */
  readonly func: object;
  readonly qos: QoS;
  readonly nl?: boolean;
  readonly rap?: boolean;
  /** Subscription identifier. */
  readonly si?: number;
}

/** One filter of one connected client. */
export interface LiveSubscription {
  readonly filter: string;
  readonly outbox: Outbox;
  readonly inAedes: AedesSubscription;
}

export interface Target {
  readonly clientId: string;
  readonly outbox: Outbox;
  /** The highest that was granted [MQTT-3.3.4-2]. */
  readonly qos: QoS;
  /** With the identifiers of all filters that match [MQTT-3.3.4-4]; one that came twice is given twice [MQTT-3.3.4-5]. */
  readonly shape: Shape;
  /** For a message that was published with RETAIN [MQTT-3.3.1-12] [MQTT-3.3.1-13]. */
  readonly retainedShape: Shape;
  /** Set when a filter has No Local: what the client is given of its own messages, "none" for nothing [MQTT-3.8.3-3]. */
  readonly own: Target | "none" | undefined;
}

/** A target for each client, in the order of the subscriptions. All of them match one topic. */
export function toTargets(subscriptions: Iterable<LiveSubscription>, shapes: Shapes): readonly Target[] {
  const byClient = Map.groupBy(subscriptions, ({ outbox }) => outbox);
  return [...byClient.values()].map((own) => toTarget(own, shapes));
}

function toTarget(subscriptions: readonly LiveSubscription[], shapes: Shapes): Target {
  const [{ outbox }] = subscriptions as readonly [LiveSubscription];
  const { subscriber } = outbox;
  const qos = subscriptions.reduce<QoS>((highest, { inAedes }) => (inAedes.qos > highest ? inAedes.qos : highest), 0);
  const identifiers = subscriptions.flatMap(({ inAedes: { si } }) => (si === undefined ? [] : [si]));
  const retainAsPublished = subscriptions.some(({ inAedes }) => inAedes.rap === true);
  const shape = shapes.of(subscriber.version, false, identifiers);
  const others = subscriptions.filter(({ inAedes }) => inAedes.nl !== true);
  return {
    clientId: subscriber.clientId,
    outbox,
    qos,
    shape,
    retainedShape: retainAsPublished ? shapes.of(subscriber.version, true, identifiers) : shape,
    own: ownOf(subscriptions, others, shapes),
  };
}

function ownOf(all: readonly LiveSubscription[], others: readonly LiveSubscription[], shapes: Shapes): Target["own"] {
  if (others.length === all.length) return undefined;
  return others.length === 0 ? "none" : toTarget(others, shapes);
}
