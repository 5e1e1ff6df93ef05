// One object between a socket and Aedes. It splits MQTT packets, checks each strictly before Aedes sees it (ADR 0002),
// takes telemetry (a PUBLISH whose topic belongs to a stream, any QoS) straight to the intake, answers it in order once
// it is on disk, and stops reading the socket while the journal, Aedes or the client itself cannot take more. What goes
// out, and the client's session, are in outgoing.ts.

import type { Duplex } from "node:stream";
import type { Client } from "aedes";
import { toError } from "../errors.ts";
import type { DisconnectReason, LimitName } from "../events.ts";
import type { Peer } from "../listener/listener.ts";
import type { Offset, RefusalReason } from "../reading.ts";
import { Acknowledgements } from "./acknowledgements.ts";
import type { Holder } from "./admission.ts";
import { AedesStream, type AedesStreamOwner } from "./aedes-stream.ts";
import { connectRefusal, keepAliveOf } from "./connack.ts";
import { checkConnect, type ConnectFacts } from "./connect-check.ts";
import type { ConnectionContext } from "./connection-context.ts";
import { type Fault, FrameSplitter, packetType, type ProtocolVersion, reasonCode } from "./frames.ts";
import { IncomingPublish, type PublishOwner, type SessionFacts } from "./incoming-publish.ts";
import { Outgoing, type OutgoingOwner } from "./outgoing.ts";
import type { Subscriber } from "./outbox.ts";
import { checkPacket } from "./packet-check.ts";
import { encodeConnackRefusal, encodeDisconnect } from "./packet-writer.ts";
import { hasRateLimit, RateLimit } from "./rate-limit.ts";

type Stage = "new" | "connecting" | "connected" | "closed";

/** A CONNECT with an authentication method is refused, so no AUTH may follow. */
const noAuth: Fault = {
  reason: "AUTH without an authentication method [MQTT-4.12.0-6]",
  code: reasonCode.protocolError,
};
const CONNECT = packetType.connect << 4;
/** How long a closing socket may take to send what is left. */
const LINGER_MS = 2000;
/** What the far end has not read: from here on it is not read either. A subscriber's own queue is below it. */
const UNSENT_FACTOR = 2;
const SOCKET_QUEUE_BYTES = 262_144;

export class Connection implements Holder, OutgoingOwner, PublishOwner, AedesStreamOwner, Subscriber {
  readonly #context: ConnectionContext;
  readonly #socket: Duplex;
  readonly #peer: Peer;
  readonly #splitter: FrameSplitter;
  readonly #owed = new Acknowledgements();
  readonly #publish: IncomingPublish;
  #stage: Stage = "new";
  #stream: AedesStream | undefined;
  #client: Client | undefined;
  #version: ProtocolVersion = 4;
  #facts: ConnectFacts | undefined;
  #out: Outgoing | undefined;
  /** Aedes' read side is full; its next read continues. */
  #aedesFull = false;
  #processing = false;
  #ended: { readonly reason: DisconnectReason; readonly detail: string } | undefined;
  #problem: string | undefined;
  #refusal: Fault | undefined;
  readonly #rate: RateLimit | undefined;
  #sinceMs = performance.now();

  constructor(context: ConnectionContext, socket: Duplex, peer: Peer) {
    this.#context = context;
    this.#socket = socket;
    this.#peer = peer;
    const { limits } = context;
    this.#splitter = new FrameSplitter(limits.maximumConnectBytes, "maximumConnectBytes");
    if (hasRateLimit(limits)) this.#rate = new RateLimit(limits, this.#sinceMs, (limit) => this.#countLimit(limit));
    this.#publish = new IncomingPublish(context, this, this.#owed);
    context.traffic.socketsOpened += 1;
    context.traffic.socketsOpen += 1;
    context.connections.add(this);
    peer.incoming.onBytes = (chunk) => this.#receive(chunk);
    socket.on("end", () => this.end("closed", "the network connection ended"));
    socket.on("error", (error: Error) => this.end("closed", `the network connection failed: ${error.message}`));
    socket.on("drain", () => {
      this.#out?.pump();
      this.proceed();
    });
    socket.on("close", () => this.#closed());
    socket.resume();
  }

  /** The id that the client is known by; the remote address before it is. */
  get clientId(): string {
    return this.#client?.id ?? this.#facts?.clientId ?? this.#peer.remoteAddress;
  }

  // — From the broker —

  /** What goes out to the client; undefined when the connection has ended, or is not there yet. */
  get outgoing(): Outgoing | undefined {
    return this.#ended === undefined ? this.#out : undefined;
  }

  /** The client is authenticated, and its id is its own alone. `deviceId`: the device that its credentials stand for. */
  admit(deviceId: string | undefined): void {
    this.#publish.identity = deviceId;
    this.outgoing?.open(this.clientId, deviceId);
  }

  giveWay(): void {
    this.end("taken-over", "another connection came with the same client id", reasonCode.sessionTakenOver);
  }

  /** What Aedes says of this client; told when the connection ends. */
  note(error: Error): void {
    this.#problem ??= error.message;
  }

  /** Aedes is going to refuse the CONNECT: what the client is told of it. */
  refuse(reason: string, code: number): void {
    this.#refusal = { reason, code };
  }

  /** Writes the acknowledgements of what is on disk. Returns true when more are owed. */
  acknowledge(durable: Offset, nowMs: number): boolean {
    const before = this.#owed.size;
    const bytes = this.#owed.release(durable, this.#version, nowMs, this.#context.puback);
    if (bytes !== undefined) this.#write(bytes, before - this.#owed.size);
    return this.#owed.size > 0;
  }

  acknowledgeNow(): void {
    this.acknowledge(this.#context.target.durable(), performance.now());
  }

  /** Called about once a second. `nowMs` is performance.now(). */
  sweep(nowMs: number): void {
    const silentMs = nowMs - this.#sinceMs;
    if (this.#ended !== undefined) {
      if (silentMs > LINGER_MS) this.#socket.destroy();
    } else if (this.#stage === "new" || this.#stage === "connecting") {
      const { connectTimeoutMs } = this.#context.limits;
      if (silentMs > connectTimeoutMs) {
        this.#countLimit("connectTimeoutMs");
        this.end("connect-timeout", `no CONNECT within ${connectTimeoutMs} ms`);
      }
    } else {
      const keepAliveS = this.#facts === undefined ? 0 : keepAliveOf(this.#facts, this.#context.limits);
      if (this.#socket.isPaused()) {
        this.#sinceMs = nowMs; // who is not being read may have spoken
      } else if (keepAliveS > 0 && silentMs > keepAliveS * 1500) {
        // [MQTT-3.1.2-22]
        this.end(
          "keep-alive",
          `nothing received for 1.5 times its keep-alive of ${keepAliveS} s`,
          reasonCode.keepAliveTimeout,
        );
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
    this.end("shutdown", "the gateway is stopping", reasonCode.serverShuttingDown);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  // — From the fan-out —

  get version(): ProtocolVersion {
    return this.#version;
  }

  get largestPacketBytes(): number {
    return this.#facts?.maximumPacketBytes ?? Number.POSITIVE_INFINITY;
  }

  get waitingBytes(): number | undefined {
    return this.#stage === "connected" && this.#ended === undefined ? this.#unsentBytes() : undefined;
  }

  sendPublishes(bytes: Buffer, packets: number, payloadBytes: number): void {
    if (this.waitingBytes === undefined) return;
    this.#context.traffic.publishSent += packets;
    this.#context.traffic.publishBytesSent += payloadBytes;
    this.#write(bytes, packets);
  }

  // — From the socket —

  #receive(chunk: Buffer): void {
    this.#context.traffic.bytesReceived += chunk.length;
    if (this.#ended !== undefined) return;
    const nowMs = performance.now();
    this.#publish.receivedAt(Date.now(), nowMs);
    // Before CONNECT the clock runs from the opening of the socket, however many bytes drip in.
    if (this.#stage === "connected") this.#sinceMs = nowMs;
    if (this.#stage === "new" && this.#splitter.pendingBytes === 0 && chunk[0] !== CONNECT) {
      // Not left to the frame check: an HTTP client's first line looks like the begin of a longer packet.
      this.#fault({ reason: "the first packet is not a CONNECT [MQTT-3.1.0-1]", code: reasonCode.protocolError });
      return;
    }
    this.#splitter.push(chunk);
    if (!this.#processing) this.#process();
    this.#splitter.keep();
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
        if (splitter.fault !== undefined) this.#fault(splitter.fault, "packet-too-large");
        else if (this.#socket.isPaused()) this.#socket.resume();
        break;
      }
      this.#context.traffic.packetsReceived += 1;
      this.#rate?.take(splitter.buffer[splitter.start] ?? 0, splitter.end - splitter.start);
      this.#packet(splitter.buffer, splitter.start, splitter.bodyStart, splitter.end);
    }
    this.#processing = false;
    if (this.#owed.size > 0) this.#context.owing.add(this);
  }

  #countLimit(limit: LimitName): void {
    this.#context.events.emit("limited", limit);
  }

  /** A client that sends faster than its limit is not read for a while: the throttle asks again. */
  #isTooFast(): boolean {
    if (this.#rate?.isExceeded(performance.now()) !== true) return false;
    this.#context.throttle.wait(this);
    return true;
  }

  /** True while nothing more may be taken from the socket. */
  #held(): boolean {
    return (
      this.#stage === "connecting" || // what follows CONNECT waits for CONNACK [MQTT-3.1.4-5]
      this.#aedesFull ||
      // A journal that cannot take more holds what would go to it: a device may connect, a subscriber is served.
      (this.#context.target.congested() && isForJournal(this.#splitter.nextByte)) ||
      this.#context.stopped() ||
      this.#unsentBytes() > this.#context.limits.subscriberQueueBytes * UNSENT_FACTOR + SOCKET_QUEUE_BYTES ||
      this.#isTooFast()
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
      const fault = this.#publish.take(buffer, start, bodyStart, end);
      if (fault !== undefined) this.#fault(fault, "malformed");
    } else {
      const { wireLimits } = this.#context;
      const expiryS = this.#facts?.sessionExpiryS;
      const fault =
        type === packetType.auth
          ? noAuth
          : checkPacket(buffer, start, bodyStart, end, this.#version, wireLimits, expiryS);
      if (fault !== undefined) {
        this.#fault(fault);
        return;
      }
      if (type === packetType.disconnect) this.#ended = { reason: "client", detail: "it sent DISCONNECT" };
      else if (type === packetType.pubrel && this.#publish.release(buffer.readUInt16BE(bodyStart))) return;
      if (this.#out?.takes(type, buffer, start, bodyStart, end) !== true) this.forward(buffer.subarray(start, end));
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
    const refusal = connectRefusal(facts, this.#context.limits);
    if (refusal !== undefined) {
      this.#fault(refusal);
      return;
    }
    this.#splitter.maximumPacketBytes = this.#context.limits.maximumPacketBytes;
    this.#splitter.limit = "maximumPacketBytes";
    this.#stage = "connecting";
    this.#socket.pause();
    this.#out = new Outgoing(this.#context, this, this.#owed, facts);
    this.#stream = new AedesStream(this.#context.limits.subscriberQueueBytes, this);
    this.#client = this.#context.attach(this.#stream, this);
    this.forward(buffer.subarray(start, end));
  }

  // — To and from Aedes, and for outgoing.ts —

  forward(packet: Buffer): void {
    if (this.#stream === undefined || this.#stream.destroyed) return;
    // A copy: Aedes may keep the payload (retained, queued), which must not keep the socket's whole chunk.
    this.#aedesFull = !this.#stream.push(Buffer.from(packet));
  }

  aedesHasRoom(): void {
    this.#aedesFull = false;
    this.proceed();
  }

  passes(buffer: Buffer, start: number, bodyStart: number, end: number): boolean {
    return this.#out?.passes(buffer, start, bodyStart, end) === true;
  }

  aedesWrote(written: () => void): void {
    if (this.#owed.size > 0 && this.acknowledge(this.#context.target.durable(), performance.now()))
      this.#context.owing.add(this);
    if (this.#socket.writableNeedDrain && !this.#socket.destroyed) this.#socket.once("drain", written);
    else written();
  }

  get writable(): boolean {
    return !this.#socket.writableNeedDrain && !this.#socket.destroyed;
  }

  failed(cause: unknown): void {
    this.end("error", toError(cause).message, reasonCode.implementationSpecific);
  }

  refused(aedesCode: number): boolean {
    const code = this.#refusal?.code ?? aedesCode;
    const isLimit = code === reasonCode.quotaExceeded;
    const isUnknown = code === 0x87 || code === 0x86 || code === 4 || code === 5;
    const why = this.#refusal?.reason ?? this.#problem ?? "see MQTT";
    this.#ended ??= {
      reason: isLimit ? "limit" : isUnknown ? "not-authorized" : "protocol",
      detail: `CONNECT refused with code ${code}: ${why}`,
    };
    if (this.#refusal === undefined) return true;
    this.#write(encodeConnackRefusal(this.#version, code, why, this.#facts?.maximumPacketBytes));
    return false;
  }

  accepted(session: SessionFacts): void {
    const { events, traffic } = this.#context;
    const { clientId } = this;
    this.#stage = "connected";
    this.#sinceMs = performance.now();
    this.#publish.begin(clientId, this.#version, session);
    traffic.connectionsAccepted += 1;
    traffic.clientsConnected += 1;
    traffic.clientsMaximum = Math.max(traffic.clientsMaximum, traffic.clientsConnected);
    events.emit("connected", clientId, this.#peer.remoteAddress, this.#version);
    setImmediate(() => this.proceed());
  }

  aedesEnded(error: Error | null): void {
    this.end("error", this.#problem ?? error?.message ?? "the broker ended it", reasonCode.unspecifiedError);
  }

  // — The end —

  /** `refused`: what was wrong was a message, which counts as one that was not taken. */
  #fault(fault: Fault, refused?: RefusalReason): void {
    if (refused !== undefined && this.#stage === "connected") {
      this.#context.events.emit("received", 0);
      this.#context.events.emit("refused", this.clientId, "", refused);
    }
    if (fault.limit !== undefined) this.#countLimit(fault.limit);
    const reason = fault.code === reasonCode.packetTooLarge ? "packet-too-large" : "protocol";
    if (this.#stage === "new" && fault.version !== undefined)
      this.#write(encodeConnackRefusal(fault.version, fault.code, fault.reason, this.#facts?.maximumPacketBytes));
    this.end(reason, fault.reason, fault.code);
  }

  /** Ends the connection once; `code` is the reason told to MQTT 5 clients. */
  end(reason: DisconnectReason, detail: string, code?: number): void {
    if (this.#stage === "closed") return;
    const first = this.#ended === undefined;
    this.#ended ??= { reason, detail };
    if (first && code !== undefined && this.#stage === "connected") {
      // What is on disk is acknowledged before the goodbye.
      this.acknowledgeNow();
      this.#write(encodeDisconnect(this.#version, code, detail, this.#facts?.maximumPacketBytes));
    }
    this.#sinceMs = performance.now();
    this.#leave();
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
    context.departed(this.#peer);
    context.owing.delete(this);
    context.traffic.socketsOpen -= 1;
    this.#leave();
    this.#stream?.destroy();
    if (!wasConnected) {
      context.events.emit("turnedAway", this.#peer.remoteAddress, reason, detail);
      return;
    }
    context.traffic.clientsConnected -= 1;
    context.events.emit("disconnected", clientId, reason, detail);
  }

  /** Gives the session and the client id back, once. */
  #leave(): void {
    this.#out?.leave(performance.now());
    if (this.#client !== undefined) this.#context.admission.leave(this.#client.id, this);
  }

  /** `packets` of the gateway's own, in one write. */
  #write(bytes: Buffer, packets = 1): void {
    if (bytes.length === 0) return;
    this.#context.traffic.packetsSent += packets;
    this.writeCounted(bytes);
  }

  writeCounted(bytes: Buffer): void {
    if (this.#socket.destroyed || this.#socket.writableEnded) return;
    this.#context.traffic.bytesSent += bytes.length;
    this.#socket.write(bytes);
  }
}

/** Reads from the socket from now on; the connection is in `context.connections` until it is closed. */
export const openConnection = (context: ConnectionContext, socket: Duplex, peer: Peer): Connection =>
  new Connection(context, socket, peer);

/** PUBLISH, and the PUBREL that completes one, by the first byte of the packet. */
function isForJournal(first = 0): boolean {
  const type = first >> 4;
  return type === packetType.publish || type === packetType.pubrel;
}
