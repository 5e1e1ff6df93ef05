// The typed event bus: everything that happens which is not a reading. Metrics, $SYS and the log are its listeners.
// Events are never durable and listeners must not block; with no listener an emit costs a property lookup.

import { EventEmitter } from "node:events";
import type { Message, Offset, QoS, RefusalReason, Rejection } from "./reading.ts";

export type DisconnectReason =
  | "client" // the client sent DISCONNECT
  | "closed" // the network connection ended without one
  | "protocol" // a malformed or forbidden packet
  | "packet-too-large"
  | "connect-timeout"
  | "keep-alive"
  | "taken-over"
  | "not-authorized"
  | "limit" // a configured limit: connections, queue
  | "shutdown"
  | "error";

/** The settings in `limits` that are counted when they keep a client from something. */
export type LimitName =
  | "maximumPacketBytes"
  | "maximumConnectBytes"
  | "connectTimeoutMs"
  | "maximumConnections"
  | "maximumConnectionsPerAddress"
  | "connectionsPerSecond"
  | "messagesPerSecond"
  | "bytesPerSecond"
  | "maximumInflightQos2"
  | "topicAliases"
  | "maximumTopicLevels"
  | "maximumTopicBytes"
  | "maximumFiltersPerSubscribe"
  | "maximumSubscriptionsPerClient"
  | "retainedMessages"
  | "retainedBytes"
  | "sessions"
  | "subscriberQueueBytes"
  | "queuedMessagesPerSession"
  | "queuedBytesPerSession"
  | "queuedBytes";

/** retrying: something fails and is tried again. misconfigured: the same, and a person is needed. */
export type ConsumerState = "starting" | "running" | "retrying" | "misconfigured" | "stopped";

/** Every event with its arguments. Per-message events pass plain values so that emitting allocates nothing. */
interface Events {
  /** A CONNECT was accepted. */
  connected: [clientId: string, remoteAddress: string, protocolVersion: number];
  /** A client that was connected is gone. `detail` is a sentence for the log. */
  disconnected: [clientId: string, reason: DisconnectReason, detail: string];
  /** A connection ended before its CONNECT was accepted. */
  turnedAway: [remoteAddress: string, reason: DisconnectReason, detail: string];
  /** A telemetry PUBLISH arrived, before its verdict. */
  received: [qos: QoS];
  accepted: [stream: string, offset: Offset];
  rejected: [message: Message, rejection: Rejection, offset: Offset];
  refused: [clientId: string, topic: string, reason: RefusalReason];
  /** A limit of the configuration has kept a client from something, or has slowed it down: once, unless `times` says how often. */
  limited: [limit: LimitName, times?: number];
  /** A commit is on disk: everything below `to` survives a crash. */
  durable: [to: Offset, records: number, commitMs: number];
  /** The journal changed state; `hint` is a sentence for the operator. */
  journal: [state: "open" | "full" | "failed", hint: string];
  /** The disk has refused a commit of the journal, and another file took it. `detail` is what the system said. */
  writeError: [detail: string];
  /** Unread records take so much of the journal's space; `slowest` is the consumer furthest behind, "" for none. */
  filling: [share: number, slowest: string];
  /** A full journal has deleted records, `to` not included, that a consumer, `slowest` at least, still needed. */
  expired: [from: Offset, to: Offset, slowest: string];
  /** A sink's or handler's worker changed state. */
  consumer: [name: string, state: ConsumerState, detail: string];
  /**
   * Messages were not delivered to a subscriber whose queue is full, or who takes no packet of that size, or in whose queue
   * they have expired: one, unless `messages` says how many, then `topic` is that of the last.
   */
  dropped: [clientId: string, topic: string, messages?: number];
}

export type EventBus = EventEmitter<Events>;

export function createEvents(): EventBus {
  const events = new EventEmitter<Events>();
  events.setMaxListeners(100);
  return events;
}
