// decode → validate → append: what a connection calls for each telemetry PUBLISH. Synchronous, so order per device is
// kept from socket to journal; there is no promise per message, acknowledgements wait for the journal's watermark.

import type { EventBus } from "../events.ts";
import type { Journal } from "../journal/journal.ts";
import type { Message, Offset, Rejection, Route, UnixMs, Verdict } from "../reading.ts";
import type { Registry } from "../validate/registry.ts";
import { toDigest } from "./key-window.ts";
import type { Memory } from "./memory.ts";
import type { Sessions } from "./unfinished.ts";

export interface Intake {
  /** The stream that a topic belongs to; undefined: it is not telemetry. */
  readonly route: (topic: string) => Route | undefined;
  /** What becomes of one message. Never throws. An offset in the verdict is durable once the journal has passed it. */
  readonly take: (message: Message, route: Route) => Verdict;
  /**
   * A message that was rejected once, by today's streams: taken when it passes now, under the time of its first receipt. A
   * rejection leaves no record and is not counted: the first one stands. Never throws.
   */
  readonly takeAgain: (message: Message, route: Route) => TakenAgain;
  /** The QoS 2 messages that were taken with a packet identifier and are not released. */
  readonly unfinished: Sessions;
  /** Such a message is finished, or with 0 all of the client are; it holds for good once the journal has passed the offset. */
  readonly release: (clientId: string, packetId: number, receivedAt: UnixMs) => Offset;
}

type Taken = Exclude<Verdict, { readonly kind: "rejected" }>;
type TakenAgain = Taken | { readonly kind: "rejected"; readonly rejection: Rejection };

export interface IntakeOptions {
  readonly registry: Registry;
  readonly journal: Pick<Journal, "append" | "release">;
  /** As `restoreMemory` has made it. */
  readonly memory: Memory;
  readonly events: EventBus;
}

const refuse = (_message: Message, _stream: string, rejection: Rejection): TakenAgain => ({
  kind: "rejected",
  rejection,
});

export function createIntake({ registry, journal, memory, events }: IntakeOptions): Intake {
  const { unfinished, windows } = memory;

  function append(message: Message, stream: string, rejection?: Rejection): Offset {
    const offset = journal.append(message, stream, rejection);
    if (message.packetId !== 0) unfinished.add(message.clientId, message.packetId, offset);
    return offset;
  }

  function accept(message: Message, stream: string): Taken {
    const offset = append(message, stream);
    events.emit("accepted", stream, offset);
    return { kind: "appended", offset };
  }

  function reject(message: Message, stream: string, rejection: Rejection): Verdict {
    // What has been told is over: the same packet identifier is another message from now on [MQTT-4.3.3-9].
    const isOver = message.toldOfRejection === true && message.packetId !== 0;
    const offset = append(isOver ? { ...message, packetId: 0 } : message, stream, rejection);
    events.emit("rejected", message, rejection, offset);
    return { kind: "rejected", offset, rejection };
  }

  function judge<Rejected>(
    message: Message,
    stream: string,
    onRejected: (message: Message, stream: string, rejection: Rejection) => Rejected,
  ): Taken | Rejected {
    const result = registry.read(message, stream);
    if (result.kind === "rejected") return onRejected(message, stream, result.rejection);
    const window = windows.get(stream);
    if (window === undefined) return accept(message, stream);
    const keyed = registry.keyOf(result.reading);
    if (keyed.kind === "rejected") return onRejected(message, stream, keyed.rejection);
    if (keyed.kind === "none") return accept(message, stream);
    const digest = toDigest(message.deviceId, keyed.key);
    const first = window.find(digest);
    if (first !== undefined) {
      // The handshake of this one goes on like any other.
      if (message.packetId !== 0) unfinished.add(message.clientId, message.packetId, first);
      events.emit("refused", message.clientId, message.topic, "duplicate");
      return { kind: "duplicate", offset: first };
    }
    const verdict = accept(message, stream);
    if (verdict.kind === "appended") window.remember(digest, verdict.offset);
    return verdict;
  }

  return {
    route: (topic) => registry.route(topic),
    take(message, { stream }) {
      events.emit("received", message.qos);
      return judge(message, stream, reject);
    },
    takeAgain(message, { stream }) {
      const verdict = judge(message, stream, refuse);
      if (verdict.kind !== "rejected") events.emit("received", message.qos);
      return verdict;
    },
    unfinished: unfinished.sessions,
    release(clientId, packetId, receivedAt) {
      unfinished.release(clientId, packetId);
      return journal.release(clientId, packetId, receivedAt);
    },
  };
}
