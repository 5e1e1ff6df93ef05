// SUBSCRIBE and UNSUBSCRIBE of one client: what is granted is decided here, Aedes is given only that, each filter once, and
// the answer has one code for each filter as it came [MQTT-3.8.4-6], [MQTT-3.11.3-1].
//
// Aedes would answer equal filters once, those that look like numbers in the order of numbers, and would remember for the
// session also what it refused.

import { generate, type Packet, parser as createParser } from "mqtt-packet";
import type { LimitName } from "../events.ts";
import { packetType, type ProtocolVersion } from "./frames.ts";
import type { Limits } from "./limits.ts";
import type { Session, Sessions, Subscription } from "./sessions.ts";

type Subscribe = Extract<Packet, { cmd: "subscribe" }>;
type Unsubscribe = Extract<Packet, { cmd: "unsubscribe" }>;
type AskedSubscription = Subscribe["subscriptions"][number];

/** What is done with a request. */
export interface Decision {
  /** For Aedes; undefined: nothing is left for it, `answer` may go out at once. */
  readonly forward: Buffer | undefined;
  readonly answer: Answer;
}

export interface Answer {
  readonly packet: Buffer;
  /** New subscriptions, whose retained messages are to be sent behind it. */
  readonly retained: readonly Subscription[];
}

const FAILURE = 0x80;
const NO_SUBSCRIPTION_EXISTED = 0x11;
const QUOTA_EXCEEDED = 0x97;
const SHARED_NOT_SUPPORTED = 0x9e;

export class SubscribeRequests {
  readonly #sessions: Sessions;
  readonly #session: Session;
  readonly #version: ProtocolVersion;
  readonly #maximum: number;
  readonly #limited: (limit: LimitName) => void;
  /** By type of the answer and packet identifier: what is said when Aedes has done its part. */
  readonly #pending = new Map<number, Answer>();

  constructor(
    sessions: Sessions,
    session: Session,
    version: ProtocolVersion,
    limits: Pick<Limits, "maximumSubscriptionsPerClient">,
    limited: (limit: LimitName) => void,
  ) {
    this.#sessions = sessions;
    this.#session = session;
    this.#version = version;
    this.#maximum = limits.maximumSubscriptionsPerClient;
    this.#limited = limited;
  }

  /** `bytes` is a whole SUBSCRIBE or UNSUBSCRIBE that was checked; undefined: Aedes' parser would not take it. */
  decide(bytes: Buffer): Decision | undefined {
    const packet = this.#parse(bytes);
    if (packet === undefined) return undefined;
    const decision = packet.cmd === "subscribe" ? this.#subscribe(packet) : this.#unsubscribe(packet);
    if (decision.forward !== undefined) this.#pending.set(keyOf(packet), decision.answer);
    return decision;
  }

  /** Aedes' SUBACK or UNSUBACK: what the client gets instead; undefined: nobody asked. */
  answered(type: number, messageId: number): Answer | undefined {
    const key = keyFrom(type, messageId);
    const answer = this.#pending.get(key);
    this.#pending.delete(key);
    return answer;
  }

  #subscribe(packet: Subscribe): Decision {
    const id = packet.properties?.subscriptionIdentifier;
    const granted = new Map<string, AskedSubscription>();
    const retained = new Map<string, Subscription>();
    const codes: number[] = [];
    for (const asked of packet.subscriptions) {
      const { topic: filter, qos, nl = false, rap = false, rh = 0 } = asked;
      const refusal = this.#refusal(filter);
      codes.push(refusal ?? qos);
      if (refusal !== undefined) continue;
      const isNew = !this.#session.subscriptions.has(filter);
      const subscription: Subscription = { filter, qos, noLocal: nl, retainAsPublished: rap, id };
      this.#sessions.subscribe(this.#session, subscription);
      granted.delete(filter);
      granted.set(filter, asked);
      // Retain Handling [MQTT-3.3.1-10, -11].
      if (rh === 0 || (rh === 1 && isNew)) retained.set(filter, subscription);
    }
    const answer = this.#encode({ cmd: "suback", messageId: packet.messageId ?? 0, granted: codes });
    const forward = granted.size === 0 ? undefined : this.#encode({ ...packet, subscriptions: [...granted.values()] });
    return { forward, answer: { packet: answer, retained: [...retained.values()] } };
  }

  #unsubscribe(packet: Unsubscribe): Decision {
    const known = new Set<string>();
    const codes = packet.unsubscriptions.map((filter) => {
      if (!this.#session.subscriptions.has(filter)) return NO_SUBSCRIPTION_EXISTED; // [MQTT-3.11.3-2]
      this.#sessions.unsubscribe(this.#session, filter);
      known.add(filter);
      return 0;
    });
    const answer = this.#encode({ cmd: "unsuback", messageId: packet.messageId ?? 0, granted: codes });
    const forward = known.size === 0 ? undefined : this.#encode({ ...packet, unsubscriptions: [...known] });
    return { forward, answer: { packet: answer, retained: [] } };
  }

  /** Why a filter is not granted, as the client's version says it. */
  #refusal(filter: string): number | undefined {
    if (filter.startsWith("$share/")) return this.#version === 5 ? SHARED_NOT_SUPPORTED : FAILURE;
    const { subscriptions, clientId, lasts } = this.#session;
    if (subscriptions.has(filter)) return undefined;
    const isFull = subscriptions.size >= this.#maximum;
    if (!isFull && !(lasts && this.#sessions.isOneTooMany(clientId))) return undefined;
    this.#limited(isFull ? "maximumSubscriptionsPerClient" : "sessions");
    return this.#version === 5 ? QUOTA_EXCEEDED : FAILURE;
  }

  #encode(packet: Packet): Buffer {
    return generate(packet, { protocolVersion: this.#version });
  }

  #parse(bytes: Buffer): Subscribe | Unsubscribe | undefined {
    let found: Subscribe | Unsubscribe | undefined;
    const parser = createParser({ protocolVersion: this.#version });
    parser.on("packet", (packet) => {
      if (packet.cmd === "subscribe" || packet.cmd === "unsubscribe") found = packet;
    });
    parser.on("error", () => {});
    parser.parse(bytes);
    return found;
  }
}

const keyFrom = (type: number, messageId: number): number => (type << 16) | messageId;

const keyOf = ({ cmd, messageId = 0 }: Subscribe | Unsubscribe): number =>
  keyFrom(cmd === "subscribe" ? packetType.suback : packetType.unsuback, messageId);
