// The sessions of all clients, in memory: subscriptions, the messages that wait, the QoS 2 messages that are half received.
// A session begins with a CONNECT and ends with its connection, or as long after it as the client asked for and the
// gateway allows [MQTT-3.1.2-23]. Clients that are away are looked through by one sweep, without a timer for each.

import type { PublishPacket } from "aedes";
import { Qlobber } from "qlobber";
import type { EventBus } from "../events.ts";
import type { QoS } from "../reading.ts";
import { filterSyntax, isHidden } from "./filters.ts";
import type { Limits } from "./limits.ts";
import { OutgoingQueue, type QueuedTotal, type QueueLink } from "./outgoing-queue.ts";
import { type Entry, type Taker, takerFor, toTakers } from "./takers.ts";

export interface Subscription {
  readonly filter: string;
  readonly qos: QoS;
  readonly noLocal: boolean;
  readonly retainAsPublished: boolean;
  readonly id: number | undefined;
}

/** A message for all who subscribe to its topic. */
export interface Published {
  readonly topic: string;
  readonly payload: Buffer | string;
  readonly qos: QoS;
  readonly retain: boolean;
  readonly properties: PublishPacket["properties"];
  readonly expiresAt: number | undefined;
  /** Who published it, for No Local. */
  readonly clientId: string | undefined;
  readonly bytes: number;
}

export class Session {
  readonly clientId: string;
  readonly subscriptions = new Map<string, Subscription>();
  /** It outlives its connection. */
  lasts: boolean;
  /** performance.now() at which it ends; undefined while its client is connected. */
  endsAtMs: number | undefined;
  readonly #createQueue: (clientId: string) => OutgoingQueue;
  #queue: OutgoingQueue | undefined;
  #link: QueueLink | undefined;
  #incoming: Set<number> | undefined;

  constructor(clientId: string, lasts: boolean, createQueue: (clientId: string) => OutgoingQueue) {
    this.clientId = clientId;
    this.lasts = lasts;
    this.#createQueue = createQueue;
  }

  /** Made when it is first needed: most clients only publish. */
  get queue(): OutgoingQueue {
    if (this.#queue === undefined) {
      this.#queue = this.#createQueue(this.clientId);
      if (this.#link !== undefined) this.#queue.attach(this.#link);
    }
    return this.#queue;
  }

  /** Packet identifiers of QoS 2 messages that are no telemetry, received and not released. */
  get incoming(): Set<number> {
    this.#incoming ??= new Set();
    return this.#incoming;
  }

  attach(link: QueueLink): void {
    this.#link = link;
    this.#queue?.attach(link);
  }

  detach(): void {
    this.#link = undefined;
    this.#queue?.detach();
  }

  pump(): void {
    this.#queue?.pump();
  }

  clear(): void {
    this.detach();
    this.#queue?.clear();
    this.#incoming = undefined;
    this.subscriptions.clear();
  }
}

type SessionLimits = Pick<
  Limits,
  "sessions" | "sessionExpiryS" | "queuedMessagesPerSession" | "queuedBytesPerSession" | "queuedBytes" | "whenQueueFull"
>;

/** Sessions that one sweep looks at. */
const SWEPT = 5_000;

export class Sessions {
  readonly #limits: SessionLimits;
  readonly #events: EventBus;
  readonly #onEnded: (clientId: string) => void;
  readonly #createQueue: (clientId: string) => OutgoingQueue;
  readonly #sessions = new Map<string, Session>();
  /** Of clients that are away. */
  readonly #away = new Set<Session>();
  /** That last and have subscriptions, connected or not: what `limits.sessions` bounds. */
  readonly #kept = new Set<Session>();
  readonly #queued: QueuedTotal = { bytes: 0 };
  readonly #filters = new Qlobber<Entry>(filterSyntax);
  #swept: Iterator<Session> = this.#away.values();

  /** Called with the filter when a subscription has come or gone. */
  onChange: (filter: string) => void = () => {};
  #subscriptions = 0;

  /** `onEnded`: what else is known of the client's session is void. */
  constructor(limits: SessionLimits, events: EventBus, onEnded: (clientId: string) => void) {
    this.#limits = limits;
    this.#events = events;
    this.#onEnded = onEnded;
    this.#createQueue = (clientId) =>
      new OutgoingQueue(limits, this.#queued, (topic, limit) => {
        events.emit("dropped", clientId, topic);
        if (limit !== undefined) events.emit("limited", limit);
      });
  }

  /** Sessions whose client is away. */
  get away(): number {
    return this.#away.size;
  }

  get(clientId: string): Session | undefined {
    return this.#sessions.get(clientId);
  }

  /** True when a session with subscriptions that is not held yet would be one too many. */
  isOneTooMany(clientId: string): boolean {
    const known = this.#sessions.get(clientId);
    return this.#kept.size >= this.#limits.sessions && !(known !== undefined && this.#kept.has(known));
  }

  /** A session of an earlier run of the gateway, of which something else is still known. */
  adopt(clientId: string, nowMs: number): void {
    const { session } = this.open(clientId, false, true);
    this.close(session, this.#limits.sessionExpiryS * 1_000, nowMs);
  }

  /** A client was authenticated: its session is continued or, always with a clean start, begun [MQTT-3.1.2-4, -5, -6]. */
  open(
    clientId: string,
    cleanStart: boolean,
    lasts: boolean,
  ): { readonly session: Session; readonly present: boolean } {
    const known = this.#sessions.get(clientId);
    if (known !== undefined && cleanStart) this.#end(known);
    const present = known !== undefined && !cleanStart;
    const session = present ? known : new Session(clientId, lasts, this.#createQueue);
    session.lasts = lasts;
    session.endsAtMs = undefined;
    this.#away.delete(session);
    this.#sessions.set(clientId, session);
    this.#keep(session);
    return { session, present };
  }

  /** Its connection is gone. `expiryMs` may be Infinity. `nowMs` is performance.now(). */
  close(session: Session, expiryMs: number, nowMs: number): void {
    session.detach();
    if (this.#sessions.get(session.clientId) !== session) return;
    const isOneTooMany = session.subscriptions.size === 0 && this.#away.size >= this.#limits.sessions;
    if (expiryMs > 0 && isOneTooMany) this.#events.emit("limited", "sessions");
    if (expiryMs <= 0 || isOneTooMany) {
      this.#end(session);
      return;
    }
    session.lasts = true;
    session.endsAtMs = nowMs + expiryMs;
    this.#away.add(session);
    this.#keep(session);
  }

  /** Ends what has expired, a slice at a time. */
  sweep(nowMs: number): void {
    for (let count = 0; count < SWEPT; count += 1) {
      const next = this.#swept.next();
      if (next.done === true) {
        this.#swept = this.#away.values();
        return;
      }
      if ((next.value.endsAtMs ?? Infinity) <= nowMs) this.#end(next.value);
    }
  }

  subscribe(session: Session, subscription: Subscription): void {
    this.#remove(session, subscription.filter);
    const entry: Entry = { ...subscription, session };
    session.subscriptions.set(entry.filter, entry);
    this.#filters.add(entry.filter, entry);
    this.#subscriptions += 1;
    this.onChange(entry.filter);
    this.#keep(session);
  }

  unsubscribe(session: Session, filter: string): void {
    if (this.#remove(session, filter)) this.#keep(session);
  }

  /** True when there is no subscription at all. */
  get isDeserted(): boolean {
    return this.#subscriptions === 0;
  }

  /** Who gets messages of the topic with QoS 1 or 2, until a subscription that matches changes. */
  takersOf(topic: string): readonly Taker[] {
    if (this.isDeserted) return [];
    return toTakers(this.#filters.match(topic).filter(({ filter }) => !isHidden(topic, filter)));
  }

  /** Queues a QoS 1 or 2 message for those who get it with QoS 1 or 2 [MQTT-3.8.4-8]. QoS 0 is for the fan-out. */
  deliver(published: Published, takers = this.takersOf(published.topic)): void {
    const nowMs = Date.now();
    for (const each of takers) {
      const taker = takerFor(each, published.clientId);
      if (taker === undefined) continue;
      const qos = taker.qos === 2 && published.qos === 2 ? 2 : 1;
      const retain = published.retain && taker.retainAsPublished; // [MQTT-3.3.1-12, -13]
      taker.session.queue.push({ ...published, qos, retain, subscriptionIds: taker.ids }, nowMs);
    }
  }

  /** True when a message would be dropped by all takers, and is: so that those who do not read cost little. */
  refuse(topic: string, clientId: string, takers: readonly Taker[]): boolean {
    const nowMs = Date.now();
    for (const each of takers) if (takerFor(each, clientId)?.session.queue.isClosed(nowMs) === false) return false;
    for (const each of takers) takerFor(each, clientId)?.session.queue.refuse(topic);
    return true;
  }

  #end(session: Session): void {
    for (const filter of session.subscriptions.keys()) this.#remove(session, filter);
    session.clear();
    this.#sessions.delete(session.clientId);
    this.#away.delete(session);
    this.#kept.delete(session);
    this.#onEnded(session.clientId);
  }

  #remove(session: Session, filter: string): boolean {
    const known = session.subscriptions.get(filter);
    if (known === undefined) return false;
    session.subscriptions.delete(filter);
    this.#filters.remove(filter, known as Entry);
    this.#subscriptions -= 1;
    this.onChange(filter);
    return true;
  }

  #keep(session: Session): void {
    if (session.lasts && session.subscriptions.size > 0) this.#kept.add(session);
    else this.#kept.delete(session);
  }
}
