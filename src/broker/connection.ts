// One object between a socket and Aedes. It splits MQTT packets, checks each strictly before Aedes sees it (ADR 0002),
// takes telemetry (a PUBLISH whose topic belongs to a stream, any QoS) straight to the intake, answers it in order once
// it is on disk, and stops reading the socket while the journal, Aedes or the client itself cannot take more.
//
// A QoS 2 telemetry handshake is kept here and not in Aedes (ADR 0003): the message enters the journal in the order of
// the socket, once, however often it is retransmitted, also over a new connection of the same session.

import type { Duplex } from "node:stream";
import type { Client } from "aedes";
import type { DisconnectReason, EventBus } from "../events.ts";
import type { Peer } from "../listener/listener.ts";
import type { Message, Offset, QoS, RefusalReason, Route } from "../reading.ts";
import type { Latency, Traffic } from "../telemetry.ts";
import { Acknowledgements, type AcknowledgementType } from "./acknowledgements.ts";
import { AedesStream } from "./aedes-stream.ts";
import { isReservedTopic } from "./authorize.ts";
import type { TelemetryTarget } from "./broker.ts";
import { checkConnect, type ConnectFacts } from "./connect-check.ts";
import { type Fault, FrameSplitter, packetType, type ProtocolVersion, reasonCode, type WireLimits } from "./frames.ts";
import type { Limits } from "./limits.ts";
import { checkPacket, checkPublish, PublishView, topicOf } from "./packet-check.ts";
import { encodeConnackRefusal, encodeDisconnect, writeAck } from "./packet-writer.ts";

/** Unfinished QoS 2 telemetry of one session: packet identifier to the record's offset. */
export interface Qos2Session {
  /** The connection that continues the session. */
  owner: Connection;
  readonly offsets: Map<number, Offset>;
}

/** What all connections of a broker share. */
export interface ConnectionContext {
  readonly target: TelemetryTarget;
  readonly limits: Limits;
  readonly wireLimits: WireLimits;
  readonly events: EventBus;
  readonly traffic: Traffic;
  readonly puback: Latency;
  readonly connections: Set<Connection>;
  readonly byClientId: Map<string, Connection>;
  /** Connections that owe acknowledgements: looked at once per commit. */
  readonly owing: Set<Connection>;
  readonly unfinishedQos2: Map<string, Qos2Session>;
  /** True from shutdown on: nothing is read any more. */
  readonly stopped: () => boolean;
  /** Starts an Aedes client on the stream. */
  readonly attach: (stream: AedesStream, connection: Connection) => Client;
  /** A clean start: Aedes' own unfinished QoS 2 messages of the session are void. */
  readonly forgetIncoming: (clientId: string) => void;
  /** True when somebody subscribes to the topic; good until `matchVersion` changes. */
  readonly matches: (topic: string) => boolean;
  readonly matchVersion: () => number;
  /** Shows accepted telemetry to subscribers. `packet` is the whole PUBLISH in MQTT 5, for its properties. */
  readonly show: (shown: ShownMessage) => void;
}

export interface ShownMessage {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: QoS;
  readonly retain: boolean;
  readonly clientId: string;
  /** The MQTT 5 PUBLISH as it came, when it has properties. */
  readonly packet: Buffer | undefined;
}

type Stage = "new" | "connecting" | "connected" | "closed";

const CONNECT = packetType.connect << 4;
/** How long a closing socket may take to send what is left. */
const LINGER_MS = 2000;
/** What the far end has not read: from here on it is not read either. A subscriber's own queue is below it. */
const UNSENT_FACTOR = 2;
const SOCKET_QUEUE_BYTES = 262_144;

export class Connection {
  readonly #context: ConnectionContext;
  readonly #socket: Duplex;
  readonly #peer: Peer;
  readonly #splitter: FrameSplitter;
  readonly #outgoing = new FrameSplitter(0x10000004);
  readonly #owed = new Acknowledgements();
  readonly #view = new PublishView();
  #stage: Stage = "new";
  #stream: AedesStream | undefined;
  #client: Client | undefined;
  #version: ProtocolVersion = 4;
  #facts: ConnectFacts | undefined;
  #identity: string | undefined;
  #qos2: Qos2Session | undefined;
  /** Aedes' read side is full; its next read continues. */
  #aedesFull = false;
  #processing = false;
  #ended: { readonly reason: DisconnectReason; readonly detail: string } | undefined;
  #problem: string | undefined;
  #successor = false;
  #sinceMs = performance.now();
  #receivedAtMs = 0;
  #receivedAt = Date.now();
  // The topic of the PUBLISH before: devices publish to one topic, so looking it up again is seldom needed.
  #topicBytes = Buffer.alloc(0);
  #topic = "";
  #route: Route | undefined;
  #watched = false;
  #watchedVersion = -1;

  constructor(context: ConnectionContext, socket: Duplex, peer: Peer) {
    this.#context = context;
    this.#socket = socket;
    this.#peer = peer;
    this.#splitter = new FrameSplitter(context.limits.maximumPacketBytes);
    context.traffic.socketsOpened += 1;
    context.traffic.socketsOpen += 1;
    context.connections.add(this);
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("end", () => this.#end("closed", "the network connection ended"));
    socket.on("error", (error: Error) => this.#end("closed", `the network connection failed: ${error.message}`));
    socket.on("drain", () => this.proceed());
    socket.on("close", () => this.#closed());
  }

  /** The id that the client is known by; the remote address before it is. */
  get clientId(): string {
    return this.#client?.id ?? this.#facts?.clientId ?? this.#peer.remoteAddress;
  }

  // — From the broker —

  /** The device that the client's credentials stand for. */
  identify(deviceId: string | undefined): void {
    this.#identity = deviceId;
  }

  /** A connection with the same client id was authenticated: Aedes will end this one. */
  expectTakeover(): void {
    this.#successor = true;
  }

  /** What Aedes says of this client; told when the connection ends. */
  note(error: Error): void {
    this.#problem ??= error.message;
  }

  /** Writes the acknowledgements of what is on disk. Returns true when more are owed. */
  acknowledge(durable: Offset, nowMs: number): boolean {
    const bytes = this.#owed.release(durable, this.#version, nowMs, this.#context.puback);
    if (bytes !== undefined) this.#write(bytes);
    return this.#owed.size > 0;
  }

  /** Called about once a second. `nowMs` is performance.now(). */
  sweep(nowMs: number): void {
    const silentMs = nowMs - this.#sinceMs;
    if (this.#ended !== undefined) {
      if (silentMs > LINGER_MS) this.#socket.destroy();
    } else if (this.#stage === "new" || this.#stage === "connecting") {
      const { connectTimeoutMs } = this.#context.limits;
      if (silentMs > connectTimeoutMs) this.#end("connect-timeout", `no CONNECT within ${connectTimeoutMs} ms`);
    } else {
      const keepAliveS = this.#facts?.keepAliveS ?? 0;
      // [MQTT-3.1.2-22]; a client that is not being read may have spoken.
      if (keepAliveS > 0 && silentMs > keepAliveS * 1500 && !this.#socket.isPaused()) {
        this.#end("keep-alive", `nothing received for 1.5 times its keep-alive of ${keepAliveS} s`, 0x8d);
      }
    }
  }

  /** Goes on with what was received, if nothing holds it any more. */
  proceed(): void {
    if (this.#stage === "closed" || this.#processing) return;
    this.#process();
  }

  /** The gateway stops: DISCONNECT 0x8B to MQTT 5 clients [MQTT-4.13], and the end. */
  shutdown(): void {
    this.#end("shutdown", "the gateway is stopping", 0x8b);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  // — From the socket —

  #receive(chunk: Buffer): void {
    this.#context.traffic.bytesReceived += chunk.length;
    if (this.#ended !== undefined) return;
    this.#receivedAt = Date.now();
    this.#receivedAtMs = performance.now();
    // Before CONNECT the clock runs from the opening of the socket, however many bytes drip in.
    if (this.#stage === "connected") this.#sinceMs = this.#receivedAtMs;
    if (this.#stage === "new" && this.#splitter.pendingBytes === 0 && chunk[0] !== CONNECT) {
      // Not left to the frame check: an HTTP client's first line looks like the begin of a longer packet.
      this.#fault({ reason: "the first packet is not a CONNECT [MQTT-3.1.0-1]", code: reasonCode.protocolError });
      return;
    }
    this.#splitter.push(chunk);
    if (!this.#processing) this.#process();
  }

  #process(): void {
    this.#processing = true;
    const splitter = this.#splitter;
    while (this.#ended === undefined) {
      if (this.#held()) {
        if (!this.#socket.isPaused()) this.#socket.pause();
        break;
      }
      if (!splitter.next()) {
        if (splitter.fault !== undefined) this.#fault(splitter.fault);
        else if (this.#socket.isPaused()) this.#socket.resume();
        break;
      }
      this.#context.traffic.packetsReceived += 1;
      this.#packet(splitter.buffer, splitter.start, splitter.bodyStart, splitter.end);
    }
    this.#processing = false;
    if (this.#owed.size > 0) this.#context.owing.add(this);
  }

  /** True while nothing more may be taken from the socket. */
  #held(): boolean {
    return (
      this.#stage === "connecting" || // what follows CONNECT waits for CONNACK [MQTT-3.1.4-5]
      this.#aedesFull ||
      this.#context.target.congested() ||
      this.#context.stopped() ||
      this.#unsentBytes() > this.#context.limits.subscriberQueueBytes * UNSENT_FACTOR + SOCKET_QUEUE_BYTES
    );
  }

  #unsentBytes(): number {
    return this.#socket.writableLength + (this.#stream?.writableLength ?? 0);
  }

  #packet(buffer: Buffer, start: number, bodyStart: number, end: number): void {
    const type = (buffer[start] ?? 0) >> 4;
    if (this.#stage === "new") {
      this.#connect(buffer, start, bodyStart, end);
    } else if (type === packetType.publish) {
      this.#publish(buffer, start, bodyStart, end);
    } else {
      const fault = checkPacket(buffer, start, bodyStart, end, this.#version, this.#context.wireLimits);
      if (fault !== undefined) {
        this.#fault(fault);
        return;
      }
      if (type === packetType.disconnect) this.#ended = { reason: "client", detail: "it sent DISCONNECT" };
      else if (type === packetType.pubrel && this.#releaseQos2(buffer.readUInt16BE(bodyStart))) return;
      this.#forward(buffer, start, end);
    }
  }

  #connect(buffer: Buffer, start: number, bodyStart: number, end: number): void {
    const facts = checkConnect(buffer, start, bodyStart, end, this.#context.wireLimits);
    if (facts.kind === "fault") {
      this.#fault(facts);
      return;
    }
    this.#facts = facts;
    this.#version = facts.version;
    this.#stage = "connecting";
    this.#socket.pause();
    if (facts.cleanStart && facts.clientId !== "") this.#context.forgetIncoming(facts.clientId);
    // Keep-alive is watched by `sweep`: Aedes does not see telemetry and would take a busy client for a silent one.
    const packet = Buffer.from(buffer.subarray(start, end));
    packet.writeUInt16BE(0, keepAliveAt(buffer, bodyStart) - start);
    this.#stream = new AedesStream({
      queueBytes: this.#context.limits.subscriberQueueBytes,
      onRoom: () => {
        this.#aedesFull = false;
        this.proceed();
      },
      onBytes: (bytes, written) => this.#fromAedes(bytes, written),
      onDestroyed: (error) => this.#aedesEnded(error),
    });
    this.#client = this.#context.attach(this.#stream, this);
    this.#stream.push(packet);
  }

  #publish(buffer: Buffer, start: number, bodyStart: number, end: number): void {
    const context = this.#context;
    const view = this.#view;
    const first = buffer[start] ?? 0;
    const fault = checkPublish(buffer, bodyStart, end, first, this.#version, view, context.wireLimits);
    if (fault !== undefined) {
      this.#fault(fault);
      return;
    }
    context.traffic.publishReceived += 1;
    context.traffic.publishBytesReceived += view.payloadEnd - view.payloadStart;
    this.#findRoute(buffer, view);
    if (!this.#withinQuota(view)) {
      this.#refuse(view, "quota");
      this.#end("limit", `more than ${context.limits.maximumInflightQos2} unfinished messages`, 0x93);
    } else if (this.#route !== undefined) {
      this.#telemetry(buffer, start, end, view, this.#route);
    } else if (isReservedTopic(this.#topic)) {
      this.#refuse(view, "reserved-topic");
      if (view.qos > 0) this.#owed.ready(acknowledgementOf(view.qos), view.packetId, 0x87, this.#receivedAtMs);
      this.acknowledge(context.target.durable(), this.#receivedAtMs);
    } else {
      if (view.qos > 0) this.#owed.afterAedes(acknowledgementOf(view.qos), view.packetId, this.#receivedAtMs);
      this.#forward(buffer, start, end);
    }
  }

  /** Sets #topic and #route, from the PUBLISH before when its topic bytes were the same. */
  #findRoute(buffer: Buffer, view: PublishView): void {
    const { topicStart, topicEnd } = view;
    const last = this.#topicBytes;
    if (last.length === topicEnd - topicStart && buffer.compare(last, 0, last.length, topicStart, topicEnd) === 0)
      return;
    this.#topicBytes = Buffer.from(buffer.subarray(topicStart, topicEnd));
    this.#topic = topicOf(buffer, view);
    this.#route = this.#context.target.route(this.#topic);
    this.#watchedVersion = -1;
  }

  /** MQTT 5 clients were told the receive maximum [MQTT-3.3.4-9]; of older ones only QoS 2 messages are remembered. */
  #withinQuota({ qos, packetId }: PublishView): boolean {
    if (qos === 0) return true;
    const unfinished = this.#qos2?.offsets.size ?? 0;
    const counted = this.#version === 5 ? unfinished + this.#owed.size : qos === 2 ? unfinished : 0;
    return counted < this.#context.limits.maximumInflightQos2 || this.#qos2?.offsets.has(packetId) === true;
  }

  #telemetry(buffer: Buffer, start: number, end: number, view: PublishView, route: Route): void {
    const { qos, packetId, retain } = view;
    const known = qos === 2 ? this.#qos2?.offsets.get(packetId) : undefined;
    if (known !== undefined) {
      this.#owed.afterCommit(packetType.pubrec, packetId, known, this.#receivedAtMs); // [MQTT-4.3.3-10]: not again
      this.acknowledge(this.#context.target.durable(), this.#receivedAtMs);
      return;
    }
    const payload = buffer.subarray(view.payloadStart, view.payloadEnd);
    const clientId = this.clientId;
    const message: Message = {
      topic: this.#topic,
      payload,
      clientId,
      deviceId: route.deviceId ?? clientId,
      receivedAt: this.#receivedAt,
      qos,
      packetId: qos === 2 ? packetId : 0,
      ...(this.#identity === undefined ? undefined : { identity: this.#identity }),
    };
    const verdict = this.#context.target.take(message, route);
    if (verdict.kind === "refused") {
      // What was refused for a passing reason must be sent again: no acknowledgement, and the end of the connection.
      this.#context.events.emit("refused", clientId, this.#topic, verdict.reason);
      this.#end("limit", `message refused: ${verdict.reason}`, reasonCode.quotaExceeded);
      return;
    }
    if (qos > 0) this.#owed.afterCommit(acknowledgementOf(qos), packetId, verdict.offset, this.#receivedAtMs);
    if (qos === 2) this.#rememberQos2(packetId, verdict.offset);
    if (verdict.kind === "appended" && (retain || this.#isWatched())) this.#show(buffer, start, end, view, payload);
  }

  #isWatched(): boolean {
    const version = this.#context.matchVersion();
    if (version !== this.#watchedVersion) {
      this.#watchedVersion = version;
      this.#watched = this.#context.matches(this.#topic);
    }
    return this.#watched;
  }

  #show(buffer: Buffer, start: number, end: number, view: PublishView, payload: Buffer): void {
    const packet = view.propertiesEnd > view.propertiesStart ? Buffer.from(buffer.subarray(start, end)) : undefined;
    const { qos, retain } = view;
    const { clientId } = this;
    this.#context.show({ topic: this.#topic, payload: Buffer.from(payload), qos, retain, clientId, packet });
  }

  #rememberQos2(packetId: number, offset: Offset): void {
    if (this.#qos2 === undefined) {
      this.#qos2 = { owner: this, offsets: new Map() };
      this.#context.unfinishedQos2.set(this.clientId, this.#qos2);
    }
    this.#qos2.offsets.set(packetId, offset);
  }

  /** PUBREL of a message that this room remembers: forgets it and answers; false: it is for Aedes. */
  #releaseQos2(packetId: number): boolean {
    if (this.#qos2?.offsets.delete(packetId) !== true) return false;
    if (this.#qos2.offsets.size === 0) this.#forgetQos2();
    const bytes = Buffer.allocUnsafe(4);
    writeAck(bytes, 0, packetType.pubcomp, packetId, this.#version, 0);
    this.#write(bytes);
    return true;
  }

  #forgetQos2(): void {
    const { clientId } = this;
    if (this.#context.unfinishedQos2.get(clientId) === this.#qos2) this.#context.unfinishedQos2.delete(clientId);
    this.#qos2 = undefined;
  }

  #refuse({ qos }: PublishView, reason: RefusalReason): void {
    this.#context.events.emit("received", qos);
    this.#context.events.emit("refused", this.clientId, this.#topic, reason);
  }

  // — To and from Aedes —

  #forward(buffer: Buffer, start: number, end: number): void {
    if (this.#stream === undefined || this.#stream.destroyed) return;
    // A copy: Aedes may keep the payload (retained, queued), which must not keep the socket's whole chunk.
    this.#aedesFull = !this.#stream.push(Buffer.from(buffer.subarray(start, end)));
  }

  /** Whole packets from Aedes: PUBACK and PUBREC take their place in the order, everything else goes out as it is. */
  #fromAedes(bytes: Buffer, written: () => void): void {
    const splitter = this.#outgoing;
    splitter.push(bytes);
    let from = -1;
    let to = -1;
    while (splitter.next()) {
      const { buffer, start, bodyStart, end } = splitter;
      if (this.#passesOut(buffer, start, bodyStart, end)) {
        if (from < 0) from = start;
        to = end;
      } else if (from >= 0) {
        this.#socketWrite(buffer.subarray(from, to));
        from = -1;
      }
      if (end === buffer.length && from >= 0) {
        this.#socketWrite(buffer.subarray(from, to));
        from = -1;
      }
    }
    if (this.#owed.size > 0) this.acknowledge(this.#context.target.durable(), performance.now());
    if (this.#socket.writableNeedDrain && !this.#socket.destroyed) this.#socket.once("drain", written);
    else written();
  }

  #passesOut(buffer: Buffer, start: number, bodyStart: number, end: number): boolean {
    const { traffic } = this.#context;
    const type = (buffer[start] ?? 0) >> 4;
    if (type === packetType.connack) this.#connack(buffer[bodyStart + 1] ?? 0xff);
    if (type === packetType.puback || type === packetType.pubrec) {
      const frame = Buffer.from(buffer.subarray(start, end));
      if (this.#owed.answered(type, buffer.readUInt16BE(bodyStart), frame)) return false;
    }
    traffic.packetsSent += 1;
    if (type === packetType.publish) {
      traffic.publishSent += 1;
      traffic.publishBytesSent += end - bodyStart;
    }
    return true;
  }

  #connack(code: number): void {
    const context = this.#context;
    if (code !== 0) {
      const reason = code === 0x87 || code === 0x86 || code === 4 || code === 5 ? "not-authorized" : "protocol";
      this.#ended = { reason, detail: `CONNECT refused with code ${code}: ${this.#problem ?? "see MQTT"}` };
      return;
    }
    this.#stage = "connected";
    this.#sinceMs = performance.now();
    const { clientId } = this;
    this.#resumeQos2(clientId);
    context.byClientId.set(clientId, this);
    const { traffic } = context;
    traffic.connectionsAccepted += 1;
    traffic.clientsConnected += 1;
    traffic.clientsMaximum = Math.max(traffic.clientsMaximum, traffic.clientsConnected);
    context.events.emit("connected", clientId, this.#peer.remoteAddress, this.#version);
    setImmediate(() => this.proceed());
  }

  #resumeQos2(clientId: string): void {
    const session = this.#context.unfinishedQos2.get(clientId);
    if (session === undefined) return;
    if (this.#facts?.cleanStart === true) {
      this.#context.unfinishedQos2.delete(clientId);
    } else {
      session.owner = this;
      this.#qos2 = session;
    }
  }

  #aedesEnded(error: Error | null): void {
    if (this.#successor) this.#end("taken-over", "another connection came with the same client id");
    else this.#end("error", this.#problem ?? error?.message ?? "the broker ended it");
  }

  // — The end —

  #fault(fault: Fault): void {
    const { events } = this.#context;
    const buffer = this.#splitter.buffer;
    if (this.#stage === "connected" && (buffer[this.#splitter.start] ?? 0) >> 4 === packetType.publish) {
      events.emit("received", 0);
      events.emit(
        "refused",
        this.clientId,
        "",
        fault.code === reasonCode.packetTooLarge ? "packet-too-large" : "malformed",
      );
    }
    const reason = fault.code === reasonCode.packetTooLarge ? "packet-too-large" : "protocol";
    if (this.#stage === "new" && fault.version !== undefined)
      this.#write(encodeConnackRefusal(fault.version, fault.code));
    this.#end(reason, fault.reason, fault.code);
  }

  /** Ends the connection once; `code` is the reason told to MQTT 5 clients. */
  #end(reason: DisconnectReason, detail: string, code?: number): void {
    if (this.#stage === "closed") return;
    const first = this.#ended === undefined;
    this.#ended ??= { reason, detail };
    if (first && code !== undefined && this.#stage === "connected") {
      // What is on disk is acknowledged before the goodbye.
      this.acknowledge(this.#context.target.durable(), performance.now());
      this.#write(encodeDisconnect(this.#version, code, detail));
    }
    this.#sinceMs = performance.now();
    this.#stream?.destroy();
    this.#socket.end();
    this.#socket.resume(); // so that the far end's FIN is seen; what still comes is ignored
  }

  #closed(): void {
    const context = this.#context;
    const { reason, detail } = this.#ended ?? { reason: "closed" as const, detail: "the network connection ended" };
    const wasConnected = this.#stage === "connected";
    const { clientId } = this;
    this.#stage = "closed";
    context.connections.delete(this);
    context.owing.delete(this);
    context.traffic.socketsOpen -= 1;
    this.#stream?.destroy();
    if (!wasConnected) {
      context.events.emit("turnedAway", this.#peer.remoteAddress, reason, detail);
      return;
    }
    context.traffic.clientsConnected -= 1;
    if (context.byClientId.get(clientId) === this) context.byClientId.delete(clientId);
    const endsWithConnection = this.#client?.clean !== false;
    if (endsWithConnection && this.#qos2?.owner === this) this.#forgetQos2();
    context.events.emit("disconnected", clientId, reason, detail);
  }

  #write(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#context.traffic.packetsSent += 1;
    this.#socketWrite(bytes);
  }

  #socketWrite(bytes: Buffer): void {
    if (this.#socket.destroyed || this.#socket.writableEnded) return;
    this.#context.traffic.bytesSent += bytes.length;
    this.#socket.write(bytes);
  }
}

/** Reads from the socket from now on; the connection is in `context.connections` until it is closed. */
export const openConnection = (context: ConnectionContext, socket: Duplex, peer: Peer): Connection =>
  new Connection(context, socket, peer);

const acknowledgementOf = (qos: QoS): AcknowledgementType => (qos === 2 ? packetType.pubrec : packetType.puback);

/** CONNECT: protocol name : string, level : u8, flags : u8, keep alive : u16. */
const keepAliveAt = (buffer: Buffer, bodyStart: number): number => bodyStart + 2 + buffer.readUInt16BE(bodyStart) + 2;
