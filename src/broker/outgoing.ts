// What goes out to one client, and its session while it is connected. Every packet that Aedes writes passes here and is
// made true to the specification:
//
//   CONNACK              is written anew: session present, properties
//   PUBLISH              does not come from Aedes: QoS 0 from the fan-out, QoS 1 and 2 from the session's queue
//   PUBACK … PUBCOMP     take their place in the order of acknowledgements
//   SUBACK, UNSUBACK     are replaced by the answer to what the client asked; retained messages follow

import { randomBytes } from "node:crypto";
import type { ConnectPacket } from "aedes";
import type { LimitName } from "../events.ts";
import { toOffset } from "../reading.ts";
import type { Acknowledgements } from "./acknowledgements.ts";
import { askedExpiryS, encodeAccepted, NEVER_S } from "./accepted.ts";
import type { ConnectFacts } from "./connect-check.ts";
import type { ConnectionContext } from "./connection-context.ts";
import { packetType, type ProtocolVersion } from "./frames.ts";
import type { SessionFacts } from "./incoming-publish.ts";
import type { QueueLink } from "./outgoing-queue.ts";
import { PacketReader } from "./packet-reader.ts";
import { readProperties } from "./properties.ts";
import { RetainedDelivery, type RetainedReceiver } from "./retained-delivery.ts";
import type { Session } from "./sessions.ts";
import { type Answer, SubscribeRequests } from "./subscribe-requests.ts";
import { toWill } from "./wills.ts";

/** The connection, as far as what goes out concerns it. */
export interface OutgoingOwner {
  /** Whole packets for the socket, which this stage has counted. */
  readonly writeCounted: (bytes: Buffer) => void;
  /** The socket takes more. */
  readonly writable: boolean;
  /** To Aedes. */
  readonly forward: (packet: Buffer) => void;
  /** CONNACK is written. */
  readonly accepted: (session: SessionFacts) => void;
  /** Aedes' CONNACK has this code; true: it may go out as it is. */
  readonly refused: (code: number) => boolean;
  readonly failed: (cause: unknown) => void;
}

const SUCCESS = 0;
const NORMAL_DISCONNECTION = 0;

export class Outgoing implements QueueLink, RetainedReceiver {
  readonly #context: ConnectionContext;
  readonly #owner: OutgoingOwner;
  readonly #owed: Acknowledgements;
  readonly #facts: ConnectFacts;
  #identity: string | undefined;
  #assignedId: string | undefined;
  #will: ConnectPacket["will"];
  #expiryS: number;
  #session: Session | undefined;
  #isPresent = false;
  #accepted = false;
  #requests: SubscribeRequests | undefined;
  #retained: RetainedDelivery | undefined;

  constructor(context: ConnectionContext, owner: OutgoingOwner, owed: Acknowledgements, facts: ConnectFacts) {
    this.#context = context;
    this.#owner = owner;
    this.#owed = owed;
    this.#facts = facts;
    this.#expiryS = Math.min(askedExpiryS(facts), context.limits.sessionExpiryS);
  }

  // — Facts of the client, for its queue and its retained messages —

  get version(): ProtocolVersion {
    return this.#facts.version;
  }

  get receiveMaximum(): number {
    return this.#facts.receiveMaximum;
  }

  get maximumPacketBytes(): number {
    return this.#facts.maximumPacketBytes ?? Infinity;
  }

  get writable(): boolean {
    return this.#owner.writable;
  }

  get session(): Session | undefined {
    return this.#session;
  }

  write(frames: readonly Buffer[]): void {
    for (const frame of frames) this.#count(frame);
    this.#owner.writeCounted(frames.length === 1 && frames[0] !== undefined ? frames[0] : Buffer.concat(frames));
  }

  dropped(topic: string): void {
    this.#context.events.emit("dropped", this.#session?.clientId ?? this.#facts.clientId, topic);
  }

  failed(cause: unknown): void {
    this.#owner.failed(cause);
  }

  /** The session outlives the connection. */
  get lasts(): boolean {
    return this.#expiryS > 0;
  }

  // — The session —

  /**
   * The CONNECT that Aedes is about to take. Sessions, wills and keep-alive are ours, so that it is told of none; an empty
   * client id is replaced [MQTT-3.1.3-6].
   */
  prepare(connect: ConnectPacket): void {
    this.#will = connect.will;
    if (connect.clientId === "") connect.clientId = this.#assignedId = `sluice-${randomBytes(12).toString("hex")}`;
    delete connect.will;
    // Aedes does not see telemetry and would take a busy client for a silent one.
    connect.keepalive = 0;
    if (connect.properties !== undefined) connect.properties = { ...connect.properties, sessionExpiryInterval: 0 };
  }

  /** The client is authenticated as `identity`, and no other connection has its session. */
  open(clientId: string, identity: string | undefined): void {
    this.#identity = identity;
    const { sessions, wills } = this.#context;
    const { cleanStart } = this.#facts;
    wills.returned(clientId, cleanStart);
    const { session, present } = sessions.open(clientId, cleanStart, this.lasts);
    this.#session = session;
    this.#isPresent = present;
  }

  /** The connection is gone, or as good as gone. May be called again. `nowMs` is performance.now(). */
  leave(nowMs: number): void {
    const session = this.#session;
    if (session === undefined) return;
    const { sessions, wills } = this.#context;
    const will = this.#accepted ? this.#will : undefined;
    this.#session = undefined;
    this.#will = undefined;
    this.#retained?.stop();
    const expiryMs = this.#expiryS === NEVER_S ? Infinity : this.#expiryS * 1_000;
    if (will !== undefined) {
      const delayMs = Math.min((will.properties?.willDelayInterval ?? 0) * 1_000, expiryMs);
      wills.left(toWill(will, session.clientId, this.#identity), delayMs, nowMs);
    }
    sessions.close(session, expiryMs, nowMs);
  }

  // — From the client —

  /** A packet that was checked; false: it is for Aedes. */
  takes(type: number, buffer: Buffer, start: number, bodyStart: number, end: number): boolean {
    switch (type) {
      case packetType.puback:
      case packetType.pubrec:
      case packetType.pubcomp: {
        const code = end - bodyStart > 2 ? (buffer[bodyStart + 2] ?? SUCCESS) : SUCCESS;
        this.#session?.queue.answered(type, buffer.readUInt16BE(bodyStart), code);
        this.#retained?.wake();
        return true;
      }
      case packetType.subscribe:
      case packetType.unsubscribe:
        this.#subscribe(buffer.subarray(start, end));
        return true;
      case packetType.disconnect:
        this.#disconnect(buffer, bodyStart, end);
        return false;
      default:
        return false;
    }
  }

  #subscribe(packet: Buffer): void {
    const session = this.#session;
    if (session === undefined) return;
    const { sessions, limits, events } = this.#context;
    const limited = (limit: LimitName): void => void events.emit("limited", limit);
    this.#requests ??= new SubscribeRequests(sessions, session, this.version, limits, limited);
    const decision = this.#requests.decide(packet);
    if (decision === undefined) this.failed(new Error("a SUBSCRIBE or UNSUBSCRIBE could not be read"));
    else if (decision.forward === undefined) this.#answer(decision.answer);
    else this.#owner.forward(decision.forward);
  }

  /** DISCONNECT: the will is taken back unless it says otherwise [MQTT-3.14.4-3], and the expiry may be changed. */
  #disconnect(buffer: Buffer, bodyStart: number, end: number): void {
    const code = bodyStart === end ? NORMAL_DISCONNECTION : buffer[bodyStart];
    if (code === NORMAL_DISCONNECTION || this.version !== 5) this.#will = undefined;
    if (this.version !== 5 || end - bodyStart < 2) return;
    const reader = new PacketReader(buffer, bodyStart + 1, end, "DISCONNECT", this.#context.wireLimits);
    const { sessionExpiryS } = readProperties(reader, packetType.disconnect);
    if (sessionExpiryS !== undefined) this.#expiryS = Math.min(sessionExpiryS, this.#context.limits.sessionExpiryS);
  }

  /** The socket takes more. */
  pump(): void {
    this.#session?.pump();
    this.#retained?.wake();
  }

  // — From Aedes —

  /** True: the packet may go out as it is. */
  passes(buffer: Buffer, start: number, bodyStart: number, end: number): boolean {
    const type = (buffer[start] ?? 0) >> 4;
    const passes = this.#judge(type, buffer, start, bodyStart, end);
    if (passes) this.#context.traffic.packetsSent += 1;
    return passes;
  }

  #judge(type: number, buffer: Buffer, start: number, bodyStart: number, end: number): boolean {
    switch (type) {
      case packetType.connack:
        return this.#connack(buffer[bodyStart + 1] ?? 0xff);
      case packetType.publish:
        return false; // none that is for the client comes this way
      case packetType.puback:
      case packetType.pubrec: {
        const frame = Buffer.from(buffer.subarray(start, end));
        return !this.#owed.answered(type, buffer.readUInt16BE(bodyStart), frame);
      }
      case packetType.pubcomp:
        return !this.#holds(buffer, start, bodyStart, end);
      case packetType.suback:
      case packetType.unsuback: {
        const answer = this.#requests?.answered(type, buffer.readUInt16BE(bodyStart));
        if (answer === undefined) return true;
        this.#answer(answer);
        return false;
      }
      default:
        return end - start <= this.maximumPacketBytes;
    }
  }

  #connack(code: number): boolean {
    if (code !== SUCCESS) return this.#owner.refused(code);
    if (this.#session === undefined) return false; // it has ended meanwhile
    this.#accepted = true;
    const facts = { present: this.#isPresent, assignedId: this.#assignedId, expiryS: this.#expiryS };
    this.write([encodeAccepted(this.#facts, facts, this.#context.limits)]);
    const { cleanStart, requestProblemInformation: wantsReasons, maximumPacketBytes } = this.#facts;
    this.#owner.accepted({ cleanStart, lasts: this.lasts, wantsReasons, maximumPacketBytes });
    this.#session.attach(this);
    return false;
  }

  /**
   * A PUBREL that is not remembered may be the second one for telemetry, whose first came over a connection that is gone:
   * its PUBCOMP waits for the release too, as for all that was appended so far.
   */
  #holds(buffer: Buffer, start: number, bodyStart: number, end: number): boolean {
    const { target } = this.#context;
    const next = target.next();
    if (target.durable() >= next) return false;
    const frame = Buffer.from(buffer.subarray(start, end));
    this.#owed.held(buffer.readUInt16BE(bodyStart), frame, toOffset(next - 1));
    return true;
  }

  #answer({ packet, retained }: Answer): void {
    if (packet.length <= this.maximumPacketBytes) this.write([packet]);
    if (retained.length === 0) return;
    this.#retained ??= new RetainedDelivery(this.#context.retained, this);
    for (const subscription of retained) this.#retained.start(subscription);
  }

  #count(frame: Buffer): void {
    const { traffic } = this.#context;
    traffic.packetsSent += 1;
    if ((frame[0] ?? 0) >> 4 !== packetType.publish) return;
    traffic.publishSent += 1;
    traffic.publishBytesSent += payloadBytes(frame, this.version);
  }
}

/** Of a PUBLISH; its layout stands at the head of outgoing-message.ts. */
function payloadBytes(frame: Buffer, version: ProtocolVersion): number {
  const header = variableAt(frame, 1);
  let at = header.end + 2 + frame.readUInt16BE(header.end);
  if (((frame[0] ?? 0) & 0x06) !== 0) at += 2;
  if (version !== 5) return frame.length - at;
  const properties = variableAt(frame, at);
  return frame.length - properties.end - properties.value;
}

function variableAt(frame: Buffer, start: number): { readonly value: number; readonly end: number } {
  let value = 0;
  for (let at = start, shift = 0; ; at += 1, shift += 7) {
    const byte = frame[at] ?? 0;
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return { value, end: at + 1 };
  }
}
