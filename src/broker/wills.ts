// Will messages, from the moment that their connection is gone: published at once, or after their delay unless the client
// comes back before [MQTT-3.1.3-9]. In memory like the sessions; one sweep, no timer per client.
//
// Aedes is given none: it would drop a will whose session ends with a clean start, drop it with every reason code of
// DISCONNECT but 4, forward the delay to subscribers, and publish those of connected clients every four minutes, because
// it takes them for the wills of another broker.

import type { ConnectPacket, PublishPacket } from "aedes";
import type { EventBus } from "../events.ts";
import type { Message, QoS } from "../reading.ts";
import { isReservedTopic } from "./authorize.ts";
import type { TelemetryTarget } from "./broker.ts";
import { toMessageProperties } from "./message-properties.ts";
import { ownBytes } from "./own-bytes.ts";

export interface Will {
  readonly clientId: string;
  /** The device that the client's credentials stand for. */
  readonly identity: string | undefined;
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: QoS;
  readonly retain: boolean;
  /** Without the delay, which is not for subscribers. */
  readonly properties: PublishPacket["properties"];
}

export class Wills {
  readonly #publish: (will: Will) => void;
  readonly #maximum: number;
  readonly #pending = new Map<string, { readonly will: Will; readonly dueAtMs: number }>();

  /** More than `maximum` do not wait: they are published at once. */
  constructor(maximum: number, publish: (will: Will) => void) {
    this.#maximum = maximum;
    this.#publish = publish;
  }

  /** The connection is gone without a DISCONNECT that takes the will back. `delayMs`: at most until its session ends. */
  left(will: Will, delayMs: number, nowMs: number): void {
    if (delayMs <= 0 || this.#pending.size >= this.#maximum) this.#publish(will);
    else this.#pending.set(will.clientId, { will, dueAtMs: nowMs + delayMs });
  }

  /** The client is back. With a clean start its session has ended, and so has the delay. */
  returned(clientId: string, cleanStart: boolean): void {
    const pending = this.#pending.get(clientId);
    if (pending === undefined) return;
    this.#pending.delete(clientId);
    if (cleanStart) this.#publish(pending.will);
  }

  /** `nowMs` is performance.now(). */
  sweep(nowMs: number): void {
    for (const [clientId, { will, dueAtMs }] of this.#pending) {
      if (dueAtMs > nowMs) continue;
      this.#pending.delete(clientId);
      this.#publish(will);
    }
  }

  /** The gateway stops, and with it every session. */
  flush(): void {
    this.sweep(Infinity);
  }
}

/** The will of a CONNECT as Aedes' parser has read it. */
export function toWill(will: NonNullable<ConnectPacket["will"]>, clientId: string, identity: string | undefined): Will {
  const { topic, payload, qos = 0, retain = false } = will;
  // The delay is not for subscribers, and the rest only if there is any.
  const { willDelayInterval: _, ...properties } = will.properties ?? {};
  return {
    clientId,
    identity,
    topic,
    // A copy: the CONNECT, with its password, is not to stay in memory.
    payload: ownBytes(Buffer.from(payload)),
    qos,
    retain,
    properties: Object.keys(properties).length === 0 ? undefined : properties,
  };
}

interface Judge {
  readonly target: Pick<TelemetryTarget, "route" | "take">;
  readonly events: EventBus;
}

/** A will is judged like any other message; true: subscribers may see it. */
export function mayPublishWill({ target, events }: Judge, will: Will): boolean {
  const { clientId, topic, payload, qos, identity } = will;
  if (isReservedTopic(topic)) {
    events.emit("received", qos);
    events.emit("refused", clientId, topic, "reserved-topic");
    return false;
  }
  const route = target.route(topic);
  if (route === undefined) return true;
  const message: Message = {
    topic,
    payload,
    clientId,
    deviceId: route.deviceId ?? clientId,
    receivedAt: Date.now(),
    qos,
    packetId: 0,
    identity,
    properties: toMessageProperties(will.properties),
  };
  const verdict = target.take(message, route);
  if (verdict.kind === "refused") events.emit("refused", clientId, topic, verdict.reason);
  return verdict.kind === "appended";
}

export const toWillPacket = ({ clientId, topic, payload, qos, retain, properties }: Will): PublishPacket => {
  const packet = { cmd: "publish", topic, payload, qos, retain, dup: false, clientId } as const;
  return properties === undefined ? packet : { ...packet, properties };
};
