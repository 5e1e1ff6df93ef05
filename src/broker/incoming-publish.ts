// The PUBLISH packets of one connection: telemetry goes to the intake at once, in the order of the socket, and is
// answered when it is on disk; the gateway's own topics are refused; everything else is for Aedes.
//
// The QoS 2 handshake of telemetry is kept here and not in Aedes (ADR 0003): a message enters the journal once, however
// often it is retransmitted, also over a new connection of the same session and after a restart of the gateway. The same
// packet identifier is the same message until its PUBREL, whatever DUP says; in QoS 1 it never is. A rejection that is told,
// in MQTT 5, ends the handshake: when its PUBREC is lost, the retransmission is a second rejected message [MQTT-4.3.3-9].

import type { DisconnectReason } from "../events.ts";
import type { Message, Offset, QoS, RefusalReason, Route } from "../reading.ts";
import type { Acknowledgements, AcknowledgementType } from "./acknowledgements.ts";
import { unknownAudience } from "./audience.ts";
import { isReservedTopic } from "./authorize.ts";
import type { ConnectionContext } from "./connection-context.ts";
import { retainUnavailable } from "./connack.ts";
import { type Fault, packetType, type ProtocolVersion, reasonCode } from "./frames.ts";
import { ownBytes } from "./own-bytes.ts";
import { checkPublish, propertiesOf, PublishView, topicOf } from "./packet-check.ts";
import type { Told } from "./packet-writer.ts";
import { codeOf, tellRejection } from "./rejection-answer.ts";
import { inFull, TopicAliases } from "./topic-aliases.ts";

export interface SessionFacts {
  readonly cleanStart: boolean;
  /** It outlives its connection. */
  readonly lasts: boolean;
  /** MQTT 5: the client wants to know what is wrong [MQTT-3.1.2-29]. */
  readonly wantsReasons: boolean;
  /** The largest packet that the client takes; undefined: any. */
  readonly maximumPacketBytes: number | undefined;
}

/** What the connection does for its PUBLISH packets. */
export interface PublishOwner {
  /** Hands the packet to Aedes. */
  forward(packet: Buffer): void;
  /** Writes what is ready to be acknowledged. */
  acknowledgeNow(): void;
  end(reason: DisconnectReason, detail: string, code: number): void;
}

const none: ReadonlyMap<number, Offset> = new Map();
/** MQTT 5 section 3.3.4. One above the maximum has another code, packet-check.ts. */
const unknownAlias: Fault = {
  reason: "PUBLISH: Topic Alias was not set on this connection, MQTT 5 section 3.3.4",
  code: reasonCode.protocolError,
};

export class IncomingPublish {
  /** The device that the client's credentials stand for; undefined: any. */
  identity: string | undefined;
  readonly #context: ConnectionContext;
  readonly #owner: PublishOwner;
  readonly #owed: Acknowledgements;
  readonly #view = new PublishView();
  #version: ProtocolVersion = 4;
  #clientId = "";
  /** The session outlives the connection: its unfinished QoS 2 messages are remembered with the journal. */
  #lasts = false;
  #wantsReasons = false;
  #maximumPacketBytes: number | undefined;
  /** Those of a session that does not, by packet identifier. */
  #own: Map<number, Offset> | undefined;
  #receivedAt = 0;
  #receivedAtMs = 0;
  // The topic of the PUBLISH before: devices publish to one topic, so looking it up again is seldom needed.
  #topicBytes: Buffer = Buffer.alloc(0);
  #topic = "";
  #route: Route | undefined;
  #aliases: TopicAliases | undefined;
  /** Who listens to #topic. */
  #audience = unknownAudience;

  constructor(context: ConnectionContext, owner: PublishOwner, owed: Acknowledgements) {
    this.#context = context;
    this.#owner = owner;
    this.#owed = owed;
  }

  /** The client is connected: continues its session, or forgets it on a clean start. `lasts`: beyond the connection. */
  begin(clientId: string, version: ProtocolVersion, session: SessionFacts): void {
    const { target } = this.#context;
    const { cleanStart, lasts } = session;
    this.#wantsReasons = version === 5 && session.wantsReasons;
    this.#maximumPacketBytes = session.maximumPacketBytes;
    this.#clientId = clientId;
    this.#version = version;
    const isKnown = target.unfinished.has(clientId);
    if (isKnown && cleanStart) target.release(clientId, 0, Date.now());
    this.#lasts = lasts || (isKnown && !cleanStart);
  }

  get #unfinished(): ReadonlyMap<number, Offset> {
    return this.#lasts ? (this.#context.target.unfinished.get(this.#clientId) ?? none) : (this.#own ?? none);
  }

  /** When the bytes came that the next packets are in. */
  receivedAt(receivedAt: number, receivedAtMs: number): void {
    this.#receivedAt = receivedAt;
    this.#receivedAtMs = receivedAtMs;
  }

  /** A PUBLISH from `start` to `end`; what is returned ends the connection. */
  take(buffer: Buffer, start: number, bodyStart: number, end: number): Fault | undefined {
    const context = this.#context;
    const view = this.#view;
    const first = buffer[start] ?? 0;
    const fault = checkPublish(buffer, bodyStart, end, first, this.#version, view, context.wireLimits);
    if (fault !== undefined) return fault;
    context.traffic.publishReceived += 1;
    context.traffic.publishBytesReceived += view.payloadEnd - view.payloadStart;
    if (view.topicStart === view.topicEnd) {
      if (!this.#useAlias(view.topicAlias)) return unknownAlias;
    } else {
      this.#findRoute(buffer, view);
      if (view.topicAlias !== 0) this.#setAlias(view.topicAlias);
    }
    if (view.retain && this.#version === 5 && context.limits.retainedMessages === 0) return retainUnavailable;
    if (!this.#withinQuota(view)) {
      this.#refuse(view, "quota");
      context.events.emit("limited", "maximumInflightQos2");
      const most = context.limits.maximumInflightQos2;
      this.#owner.end("limit", `more than ${most} unfinished messages`, reasonCode.receiveMaximumExceeded);
    } else if (this.#route !== undefined) {
      this.#telemetry(buffer, start, end, view, this.#route);
    } else if (isReservedTopic(this.#topic)) {
      this.#refuse(view, "reserved-topic");
      const { qos, packetId } = view;
      if (qos > 0) {
        this.#owed.ready(acknowledgementOf(qos), packetId, reasonCode.notAuthorized, this.#receivedAtMs);
        if (this.#wantsReasons) this.#tell(reservedTopic);
      }
      this.#owner.acknowledgeNow();
    } else {
      this.#forward(buffer, start, end, view);
    }
    return undefined;
  }

  #forward(buffer: Buffer, start: number, end: number, view: PublishView): void {
    const { qos, packetId, topicAlias } = view;
    if (qos > 0) this.#owed.afterAedes(acknowledgementOf(qos), packetId, this.#receivedAtMs, this.#successOf(view));
    if (topicAlias === 0) {
      this.#owner.forward(buffer.subarray(start, end));
    } else {
      const packet = inFull(buffer, start, view, this.#topicBytes);
      this.#owner.forward(packet);
    }
  }

  /** MQTT 5 has another success for a message that nobody is there to get; a retained one is kept for who comes later. */
  #successOf({ retain }: PublishView): number {
    const isForNobody = this.#version === 5 && !retain && this.#context.audienceOf(this.#topic).isEmpty;
    return isForNobody ? reasonCode.noMatchingSubscribers : 0;
  }

  #useAlias(alias: number): boolean {
    const known = this.#aliases?.get(alias);
    if (known === undefined) return false;
    if (known.bytes === this.#topicBytes) return true;
    this.#topicBytes = known.bytes;
    this.#topic = known.topic;
    this.#route = known.route;
    this.#audience = unknownAudience;
    return true;
  }

  #setAlias(alias: number): void {
    this.#aliases ??= new TopicAliases();
    this.#aliases.set(alias, this.#topicBytes, this.#topic, this.#route);
  }

  #tell(told: Told): void {
    this.#owed.tell(told, this.#maximumPacketBytes);
  }

  /** Sets #topic and #route, from the PUBLISH before when its topic bytes were the same. */
  #findRoute(buffer: Buffer, view: PublishView): void {
    const { topicStart, topicEnd } = view;
    const last = this.#topicBytes;
    if (last.length === topicEnd - topicStart && isSame(last, buffer, topicStart)) return;
    this.#topicBytes = ownBytes(buffer.subarray(topicStart, topicEnd));
    this.#topic = topicOf(buffer, view);
    this.#route = this.#context.target.route(this.#topic);
    this.#audience = unknownAudience;
  }

  /** MQTT 5 clients were told the receive maximum [MQTT-3.3.4-9]; of older ones only QoS 2 messages are remembered. */
  #withinQuota({ qos, packetId }: PublishView): boolean {
    if (qos === 0 || (this.#version !== 5 && qos === 1)) return true;
    const unfinished = this.#unfinished;
    const counted = this.#version === 5 ? unfinished.size + this.#owed.last : unfinished.size;
    return counted < this.#context.limits.maximumInflightQos2 || unfinished.has(packetId);
  }

  #telemetry(buffer: Buffer, start: number, end: number, view: PublishView, route: Route): void {
    const { qos, packetId } = view;
    const known = qos === 2 ? this.#unfinished.get(packetId) : undefined;
    if (known !== undefined) {
      this.#owed.afterCommit(packetType.pubrec, packetId, known, this.#receivedAtMs); // [MQTT-4.3.3-10]: not again
      this.#owner.acknowledgeNow();
      return;
    }
    const payload = buffer.subarray(view.payloadStart, view.payloadEnd);
    const clientId = this.#clientId;
    const isVersion5 = this.#version === 5;
    const properties = isVersion5 ? propertiesOf(buffer, view) : undefined;
    const message: Message = {
      topic: this.#topic,
      payload,
      clientId,
      deviceId: route.deviceId ?? clientId,
      receivedAt: this.#receivedAt,
      qos,
      packetId: qos === 2 && this.#lasts ? packetId : 0,
      toldOfRejection: qos === 2 && isVersion5,
      identity: this.identity,
      properties,
    };
    const verdict = this.#context.target.take(message, route);
    if (verdict.kind === "refused") {
      // What was refused for a passing reason must be sent again: no acknowledgement, and the end of the connection.
      this.#context.events.emit("refused", clientId, this.#topic, verdict.reason);
      this.#owner.end("limit", `message refused: ${verdict.reason}`, reasonCode.quotaExceeded);
      return;
    }
    const code = verdict.kind === "rejected" && isVersion5 ? codeOf(verdict.rejection.reason) : 0;
    if (qos > 0) this.#owed.afterCommit(acknowledgementOf(qos), packetId, verdict.offset, this.#receivedAtMs, code);
    if (qos > 0 && verdict.kind === "rejected" && this.#wantsReasons) this.#tell(tellRejection(verdict.rejection));
    if (qos === 2 && !this.#lasts && code === 0) (this.#own ??= new Map()).set(packetId, verdict.offset);
    // The first one may be on disk long since, and no commit follow.
    if (verdict.kind === "duplicate") this.#owner.acknowledgeNow();
    if (verdict.kind === "appended") this.#show(buffer, start, end, view);
  }

  #show(buffer: Buffer, start: number, end: number, view: PublishView): void {
    if (!this.#audience.isCurrent) this.#audience = this.#context.audienceOf(this.#topic);
    if (this.#audience.isEmpty && !view.retain) return;
    this.#context.show(this.#audience, { topic: this.#topic, clientId: this.#clientId, buffer, start, end, view });
  }

  /**
   * PUBREL: true when the message is remembered here, and is now forgotten; false: it is for Aedes. PUBCOMP lets the client
   * use the identifier for another message, so that of a session that lasts it waits for the release to be on disk: were
   * that lost in a crash, the other message would be taken for this one.
   */
  release(packetId: number): boolean {
    if (!this.#unfinished.has(packetId)) return false;
    if (this.#lasts) {
      const offset = this.#context.target.release(this.#clientId, packetId, this.#receivedAt);
      this.#owed.afterRelease(packetId, offset);
    } else {
      this.#own?.delete(packetId);
      this.#owed.ready(packetType.pubcomp, packetId, 0, this.#receivedAtMs);
    }
    this.#owner.acknowledgeNow();
    return true;
  }

  #refuse({ qos }: PublishView, reason: RefusalReason): void {
    this.#context.events.emit("received", qos);
    this.#context.events.emit("refused", this.#clientId, this.#topic, reason);
  }
}

const reservedTopic: Told = { reason: "the topic is the gateway's own" };

/** Byte by byte: for a topic's few bytes the call of Buffer.compare costs more than the comparison (bench: ingest). */
function isSame(bytes: Buffer, other: Buffer, start: number): boolean {
  for (let index = 0; index < bytes.length; index += 1) if (bytes[index] !== other[start + index]) return false;
  return true;
}

const acknowledgementOf = (qos: QoS): AcknowledgementType => (qos === 2 ? packetType.pubrec : packetType.puback);
