// A broker over real sockets whose telemetry goes to a list, with a durability watermark that the test moves.

import { on, once } from "node:events";
import { connect as connectSocket, type Socket } from "node:net";
import { PassThrough } from "node:stream";
import { generate, type Packet, parser as createParser } from "mqtt-packet";
import { acceptEverybody, type Authenticate } from "../../src/broker/authenticate.ts";
import { type Broker, openBroker } from "../../src/broker/broker.ts";
import type { Limits } from "../../src/broker/limits.ts";
import { createEvents, type DisconnectReason, type EventBus } from "../../src/events.ts";
import { Unfinished } from "../../src/intake/unfinished.ts";
import { openTcp } from "../../src/listener/tcp.ts";
import { type Message, type Offset, type Rejection, toOffset } from "../../src/reading.ts";
import { createTraffic, Latency, type Traffic } from "../../src/telemetry.ts";
import { test as base } from "../fixtures.ts";

export const defaultLimits: Limits = {
  maximumPacketBytes: 65_536,
  maximumConnectBytes: 16_384,
  connectTimeoutMs: 5_000,
  maximumConnections: 100,
  connectionsPerSecond: 0,
  messagesPerSecond: 0,
  bytesPerSecond: 0,
  maximumKeepAliveS: 0,
  topicAliases: 16,
  subscriberQueueBytes: 65_536,
  maximumInflightQos2: 10,
  maximumTopicLevels: 64,
  maximumTopicBytes: 1_024,
  maximumFiltersPerSubscribe: 100,
  maximumSubscriptionsPerClient: 5,
  retainedMessages: 10,
  retainedBytes: 1_000_000,
  sessions: 10,
  sessionExpiryS: 1_000,
  queuedMessagesPerSession: 5,
  queuedBytesPerSession: 100_000,
  queuedBytes: 200_000,
  whenQueueFull: "newest",
};

export interface Taken extends Message {
  readonly text: string;
}

export interface Harness {
  readonly port: number;
  readonly broker: Broker;
  readonly events: EventBus;
  readonly traffic: Traffic;
  /**
   * What the intake was given, in order. A payload that begins with "bad" is rejected, one with "stranger" for its identity, one
   * with "again" is a duplicate of the first record.
   */
  readonly taken: readonly Taken[];
  /** What was released: "client id/packet identifier", in order. */
  readonly released: readonly string[];
  /** Everything taken so far is on disk. */
  commit(): void;
  /** While true every commit follows its message at once. */
  autoCommit: boolean;
  setCongested(congested: boolean): void;
  /** Resolves with the reason of the first connection that ended and was not yet asked for. */
  nextEnd(): Promise<DisconnectReason>;
  open(): Promise<RawClient>;
}

/** A client on a bare socket: it can send what no library would. */
export interface RawClient {
  readonly socket: Socket;
  readonly packets: readonly Packet[];
  send(...packets: readonly (Packet | Buffer)[]): void;
  /** Resolves with the first packet of the kind that was not yet asked for. */
  next<Command extends Packet["cmd"]>(cmd: Command): Promise<Extract<Packet, { cmd: Command }>>;
  readonly closed: Promise<unknown>;
  /** What follows is written and read in this version; `connect` says it itself. */
  speak(version: number): void;
  connect(options?: Partial<Extract<Packet, { cmd: "connect" }>>): Promise<void>;
}

interface HarnessOptions {
  /** What is unfinished from the run before: client id and packet identifier. */
  readonly unfinished?: readonly (readonly [clientId: string, packetId: number])[];
  readonly limits?: Partial<Limits>;
  readonly authenticate?: Authenticate;
}

interface Fixtures {
  readonly openHarness: (options?: HarnessOptions) => Promise<Harness>;
}

export const test = base.extend("openHarness", async ({}, { onCleanup }): Promise<Fixtures["openHarness"]> => {
  const stack = new AsyncDisposableStack();
  onCleanup(() => stack.disposeAsync());
  return async (options) => {
    const harness = await openHarness(stack, options);
    return harness;
  };
});

const subscribe = <Listener>(set: Set<Listener>, listener: Listener): Disposable => {
  set.add(listener);
  return { [Symbol.dispose]: () => set.delete(listener) };
};

async function openHarness(stack: AsyncDisposableStack, options: HarnessOptions = {}): Promise<Harness> {
  const events = createEvents();
  const traffic = createTraffic();
  const taken: Taken[] = [];
  const released: string[] = [];
  const unfinished = new Unfinished();
  for (const [clientId, packetId] of options.unfinished ?? []) unfinished.add(clientId, packetId, toOffset(0));
  let next = options.unfinished?.length ?? 0;
  let durable = next;
  let congested = false;
  const durableListeners = new Set<(to: Offset) => void>();
  const congestionListeners = new Set<() => void>();
  const commit = (): void => {
    durable = next;
    for (const listener of durableListeners) listener(toOffset(durable));
  };
  const append = (): Offset => {
    next += 1;
    if (harness.autoCommit) setImmediate(commit);
    return toOffset(next - 1);
  };
  const broker = await openBroker({
    target: {
      route: (topic) => {
        const match = /^devices\/([^/]+)\/telemetry$/.exec(topic);
        return match === null ? undefined : { stream: "climate", deviceId: match[1] };
      },
      take(message) {
        events.emit("received", message.qos);
        const text = Buffer.from(message.payload).toString();
        taken.push({ ...message, text });
        if (text.startsWith("again")) return { kind: "duplicate", offset: toOffset(0) };
        const offset = append();
        const isGood = !/^(bad|stranger)/.test(text);
        if (message.packetId !== 0 && (isGood || message.toldOfRejection !== true))
          unfinished.add(message.clientId, message.packetId, offset);
        if (isGood) return { kind: "appended", offset };
        const rejection: Rejection = text.startsWith("bad")
          ? { stream: "climate", reason: "invalid", issues: [{ path: "metrics.t", message: "bad" }] }
          : { stream: "climate", reason: "identity", issues: [{ path: "", message: "not yours" }] };
        events.emit("rejected", message, rejection, offset);
        return { kind: "rejected", offset, rejection };
      },
      unfinished: unfinished.sessions,
      release(clientId, packetId) {
        released.push(`${clientId}/${packetId}`);
        unfinished.release(clientId, packetId);
        return append();
      },
      next: () => toOffset(next),
      durable: () => toOffset(durable),
      onDurable: (listener) => subscribe(durableListeners, listener),
      congested: () => congested,
      onCongestion: (listener) => subscribe(congestionListeners, listener),
    },
    limits: { ...defaultLimits, ...options.limits },
    authenticate: options.authenticate ?? acceptEverybody,
    events,
    traffic,
    puback: new Latency(),
    version: "test",
    onError(error) {
      throw error;
    },
    sysIntervalMs: 50,
  });
  stack.use(broker);
  events.on("rejected", (message, rejection) => broker.showRejected(message, rejection));
  const listener = stack.use(await openTcp({ host: "127.0.0.1", port: 0 }, broker.accept));
  const ends = new PassThrough({ objectMode: true });
  const reasons = on(ends, "data");
  events.on("disconnected", (_clientId, reason) => ends.write(reason));
  events.on("turnedAway", (_address, reason) => ends.write(reason));
  const harness: Harness = {
    async nextEnd() {
      const { value } = (await reasons.next()) as { value: [DisconnectReason] };
      return value[0];
    },
    port: listener.port,
    broker,
    events,
    traffic,
    taken,
    released,
    commit,
    autoCommit: false,
    setCongested(value) {
      congested = value;
      for (const changed of congestionListeners) changed();
    },
    async open() {
      const client = await openRawClient(listener.port);
      stack.defer(() => void client.socket.destroy());
      return client;
    },
  };
  return harness;
}

export async function openRawClient(port: number): Promise<RawClient> {
  const socket = connectSocket(port, "127.0.0.1");
  socket.on("error", () => {});
  await once(socket, "connect");
  const packets: Packet[] = [];
  const waiting = new Set<() => void>();
  const asked = new Set<Packet>();
  let version = 4;
  let parser = createParser({ protocolVersion: version });
  const listen = (): void => {
    parser.on("packet", (packet) => {
      packets.push(packet);
      for (const check of waiting) check();
    });
  };
  listen();
  socket.on("data", (chunk: Buffer) => void parser.parse(chunk));
  const closed = once(socket, "close");
  const client: RawClient = {
    socket,
    packets,
    closed,
    send(...list) {
      socket.write(
        Buffer.concat(
          list.map((packet) => (Buffer.isBuffer(packet) ? packet : generate(packet, { protocolVersion: version }))),
        ),
      );
    },
    next(cmd) {
      return new Promise((resolve, reject) => {
        const check = (): void => {
          const found = packets.find((packet) => packet.cmd === cmd && !asked.has(packet));
          if (found === undefined) return;
          asked.add(found);
          waiting.delete(check);
          resolve(found as never);
        };
        waiting.add(check);
        void closed.then(() =>
          reject(new Error(`closed before ${cmd}; got ${packets.map((packet) => packet.cmd).join(" ")}`)),
        );
        check();
      });
    },
    speak(spoken) {
      version = spoken;
      parser = createParser({ protocolVersion: version });
      listen();
    },
    async connect(options) {
      const connect = {
        cmd: "connect",
        clientId: "c1",
        protocolId: "MQTT",
        protocolVersion: 4,
        clean: true,
        keepalive: 0,
        ...options,
      } as const;
      client.speak(connect.protocolVersion ?? 4);
      client.send(connect);
      await client.next("connack");
    },
  };
  return client;
}

export const publish = (options: Partial<Extract<Packet, { cmd: "publish" }>>): Packet => ({
  cmd: "publish",
  topic: "devices/d1/telemetry",
  payload: "good",
  qos: 1,
  dup: false,
  retain: false,
  ...options,
});
