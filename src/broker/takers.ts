// The sessions that get a message with QoS 1 or 2, each once, its client connected or not.

import type { QoS } from "../reading.ts";
import type { Session, Subscription } from "./sessions.ts";

/** A subscription where it is looked for by topic. */
export interface Entry extends Subscription {
  readonly session: Session;
}

export interface Taker {
  readonly session: Session;
  /** The highest that was granted [MQTT-3.3.4-2]. */
  readonly qos: 1 | 2;
  readonly retainAsPublished: boolean;
  /** Of all its subscriptions that match [MQTT-3.3.4-3…5]. */
  readonly ids: readonly number[];
  /** Set when one has No Local: what is given of the client's own messages, "none" for nothing [MQTT-3.8.3-3]. */
  readonly own: Taker | "none" | undefined;
}

/** All entries match one topic. */
export function toTakers(entries: Iterable<Entry>): readonly Taker[] {
  const bySession = Map.groupBy(entries, ({ session }) => session);
  return [...bySession].flatMap(([session, own]) => toTaker(session, own) ?? []);
}

function toTaker(session: Session, entries: readonly Entry[]): Taker | undefined {
  const qos = entries.reduce<QoS>((highest, entry) => (entry.qos > highest ? entry.qos : highest), 0);
  if (qos === 0) return undefined;
  const others = entries.filter(({ noLocal }) => !noLocal);
  return {
    session,
    qos,
    retainAsPublished: entries.some(({ retainAsPublished }) => retainAsPublished),
    ids: entries.flatMap(({ id }) => id ?? []),
    own: others.length === entries.length ? undefined : (toTaker(session, others) ?? "none"),
  };
}

/** Undefined when the client is not to be given its own message. */
export function takerFor(taker: Taker, clientId: string | undefined): Taker | undefined {
  if (taker.own === undefined || taker.session.clientId !== clientId) return taker;
  return taker.own === "none" ? undefined : taker.own;
}
