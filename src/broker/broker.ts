// Aedes behind our own contract: sessions, subscriptions, retained messages, wills, delivery to subscribers. What comes
// from sockets passes connection.ts first; telemetry never reaches Aedes.
//
// Aedes' tables that are keyed by names from the wire get a null prototype (a client called __proto__); the other guards for
// it stand beside what they guard (ADR 0002).

import { randomUUID } from "node:crypto";
import type { EventEmitter } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { Aedes, type Client } from "aedes";
import type { EventBus } from "../events.ts";
import type { Accept } from "../listener/listener.ts";
import type { Message, Offset, QoS, Rejection, Route, UnixMs, Verdict } from "../reading.ts";
import type { Latency, Traffic } from "../telemetry.ts";
import { Admission } from "./admission.ts";
import { createHooks } from "./aedes-hooks.ts";
import { AedesStore, toPublished } from "./aedes-store.ts";
import type { Authenticate } from "./authenticate.ts";
import { Arrivals } from "./arrivals.ts";
import { rejectedTopic } from "./authorize.ts";
import { type Connection, openConnection } from "./connection.ts";
import type { ConnectionContext } from "./connection-context.ts";
import { FanOut } from "./fan-out.ts";
import type { Limits } from "./limits.ts";
import { openThrottle } from "./rate-limit.ts";
import { RetainedMessages } from "./retained.ts";
import { Sessions } from "./sessions.ts";
import { toPacket } from "./shown-message.ts";
import { openSysTopics } from "./sys-topics.ts";
import { mayPublishWill, toWillPacket, Wills } from "./wills.ts";

/** Where telemetry goes: the intake and the journal, as far as a connection needs to know them. */
export interface TelemetryTarget {
  readonly route: (topic: string) => Route | undefined;
  readonly take: (message: Message, route: Route) => Verdict;
  /**
   * QoS 2 messages that were taken with a packet identifier and are not released, of this run and those before: client id,
   * packet identifier, offset of the record.
   */
  readonly unfinished: ReadonlyMap<string, ReadonlyMap<number, Offset>>;
  /** Such a message is finished, or with 0 all of the client are: for good once the offset is on disk. */
  readonly release: (clientId: string, packetId: number, receivedAt: UnixMs) => Offset;
  /** The offset that the next record will get. */
  readonly next: () => Offset;
  /** Everything below is on disk: its acknowledgements may go out. */
  readonly durable: () => Offset;
  readonly onDurable: (listener: (to: Offset) => void) => Disposable;
  /** True: stop reading sockets. */
  readonly congested: () => boolean;
  readonly onCongestion: (listener: () => void) => Disposable;
}

interface OutgoingMessage {
  readonly topic: string;
  readonly payload: string | Uint8Array;
  readonly qos?: QoS;
  readonly retain?: boolean;
}

export interface BrokerOptions {
  readonly target: TelemetryTarget;
  readonly limits: Limits;
  readonly authenticate: Authenticate;
  readonly events: EventBus;
  readonly traffic: Traffic;
  readonly puback: Latency;
  readonly version: string;
  /** Something failed in Aedes that concerns no single client. */
  readonly onError: (error: Error) => void;
  /** Shown below `$SYS/gateway/`: topic and value. */
  readonly gatewayFigures?: () => readonly (readonly [topic: string, value: number])[];
  readonly sysIntervalMs?: number;
}

/** Disposing sends DISCONNECT (0x8B to MQTT 5), publishes wills and closes what is still open. */
export interface Broker extends AsyncDisposable {
  readonly accept: Accept;
  /** Delivers to subscribers; resolves when the message is on its way (retained ones: stored). */
  readonly publish: (message: OutgoingMessage) => Promise<void>;
  /** Stops reading from all clients; what was read is still acknowledged. */
  readonly stopReading: () => void;
  /** Shows a rejected message on `sluice/rejected/<stream>/<device>` if anybody listens. */
  readonly showRejected: (message: Message, rejection: Rejection) => void;
}

const SHOWN_PAYLOAD_BYTES = 1024;

export async function openBroker(options: BrokerOptions): Promise<Broker> {
  const { target, limits, events, traffic, version } = options;
  const id = randomUUID();
  const sessions = new Sessions(limits, events, (clientId) => {
    if (target.unfinished.has(clientId)) target.release(clientId, 0, Date.now());
  });
  for (const clientId of target.unfinished.keys()) sessions.adopt(clientId, performance.now());
  const fanOut = new FanOut({
    privatePrefix: `$SYS/${id}/`,
    queueBytes: limits.subscriberQueueBytes,
    events,
    keeper: sessions,
  });
  const retained = new RetainedMessages(limits);
  const store = new AedesStore({ sessions, retained, limits, events });
  const admission = new Admission();
  const connections = new Set<Connection>();
  const owing = new Set<Connection>();
  const byStream = new WeakMap<object, Connection>();
  const connectionOf = (client: Client | null): Connection | undefined =>
    client === null ? undefined : byStream.get(client.conn);

  const aedes = new Aedes({
    id,
    // Aedes' type for `mq` is the whole of mqemitter; FanOut has what Aedes uses of it. The same with the persistence.
    mq: fanOut as never,
    persistence: store as never,
    // Enforced by connection.ts before anything is buffered; what was sent with an alias reaches Aedes with its topic.
    maximumPacketSize: limits.maximumPacketBytes + limits.maximumTopicBytes,
    maxTopicLevels: limits.maximumTopicLevels,
    maxClientsIdLength: 65_535,
    connectTimeout: limits.connectTimeoutMs,
    drainTimeout: NEVER_MS, // who does not read its answers is not read either, and ended by its keep-alive
    ...createHooks({ options, sessions, admission, connectionOf }),
  });
  Object.assign(aedes, { clients: Object.create(null), brokers: Object.create(null) });
  await aedes.listen();
  // Told by the connection that it concerns; an error event that nobody listens to would end the process.
  aedes.on("clientError", (client, error) => connectionOf(client)?.note(error));
  aedes.on("connectionError", (client, error) => connectionOf(client)?.note(error));
  (aedes as EventEmitter).on("error", options.onError);

  const wills = new Wills(limits.sessions, (will) => {
    if (mayPublishWill(options, will)) aedes.publish(toWillPacket(will), () => {});
  });
  let stopped = false;
  const stack = new DisposableStack();
  const context: ConnectionContext = {
    ...options,
    wireLimits: { ...limits, topicAliasMaximum: limits.topicAliases },
    throttle: stack.use(openThrottle()),
    departed: (peer) => arrivals.departed(peer),
    connections,
    admission,
    sessions,
    retained,
    wills,
    owing,
    stopped: () => stopped,
    attach(stream, connection) {
      byStream.set(stream, connection);
      return Object.assign(aedes.handle(stream), { subscriptions: fanOut.subscriptionsOf(connection) });
    },
    audienceOf: (topic) => fanOut.audienceOf(topic),
    show(audience, shown) {
      fanOut.show(audience, shown);
      const { qos, retain } = shown.view;
      const isQueued = qos > 0 && audience.takers.length > 0;
      if (!retain && (!isQueued || sessions.refuse(shown.topic, shown.clientId, audience.takers))) return;
      const published = toPublished(toPacket(shown));
      if (retain) store.retain(published);
      if (isQueued) sessions.deliver(published, audience.takers);
    },
  };
  const publish = ({ topic, payload, qos = 0, retain = false }: OutgoingMessage): Promise<void> =>
    new Promise((resolve, reject) => {
      const bytes = typeof payload === "string" ? Buffer.from(payload) : Buffer.from(payload);
      aedes.publish({ cmd: "publish", topic, payload: bytes, qos, retain, dup: false }, (error) =>
        error ? reject(error) : resolve(),
      );
    });

  const arrivals = stack.use(
    new Arrivals({
      limits,
      events,
      stopped: () => stopped,
      begin: (socket, peer) => void openConnection(context, socket, peer),
    }),
  );
  stack.use(target.onDurable((to) => acknowledge(owing, to)));
  stack.use(
    target.onCongestion(() => {
      if (!target.congested()) for (const connection of connections) connection.proceed();
    }),
  );
  stack.use(
    openSweep((nowMs) => {
      for (const connection of connections) connection.sweep(nowMs);
      sessions.sweep(nowMs);
      wills.sweep(nowMs);
      retained.sweep();
    }),
  );
  stack.use(
    openSysTopics({
      traffic,
      version,
      counts: () => ({
        disconnected: sessions.away,
        subscriptions: fanOut.subscriptions,
        retained: retained.size,
      }),
      gateway: options.gatewayFigures ?? (() => []),
      publish: (topic, payload) => void publish({ topic, payload, retain: true }).catch(() => {}),
      ...(options.sysIntervalMs === undefined ? undefined : { intervalMs: options.sysIntervalMs }),
    }),
  );

  return {
    accept: (socket, peer) => arrivals.accept(socket, peer),
    publish,
    stopReading() {
      stopped = true;
    },
    showRejected(message, rejection) {
      const topic = rejectedTopic(rejection.stream, message.deviceId);
      if (!fanOut.audienceOf(topic).isEmpty)
        void publish({ topic, payload: toRejectedPayload(message, rejection) }).catch(() => {});
    },
    async [Symbol.asyncDispose]() {
      stopped = true;
      for (const connection of connections) connection.shutdown();
      const allClosed = waitUntilEmpty(connections);
      await Promise.race([allClosed, delay(CLOSE_MS, undefined, { ref: false })]);
      for (const connection of connections) connection.destroy();
      wills.flush();
      await new Promise<void>((resolve) => {
        aedes.close(resolve);
      });
      stack.dispose();
    },
  };
}

/** The longest timer there is. With 0 Aedes would add a listener for each write to a full subscriber. */
const NEVER_MS = 2 ** 31 - 1;

/** How long clients may take to read their DISCONNECT. */
const CLOSE_MS = 1000;
const SWEEP_MS = 500;

/** One pass per commit over the connections that owe acknowledgements. */
function acknowledge(owing: Set<Connection>, durable: Offset): void {
  const nowMs = performance.now();
  for (const connection of owing) if (!connection.acknowledge(durable, nowMs)) owing.delete(connection);
}

/** CONNECT timeout, keep-alive, lingering sockets, expiry of sessions and the delay of wills, without timers for each. */
function openSweep(sweep: (nowMs: number) => void): Disposable {
  const timer = setInterval(() => sweep(performance.now()), SWEEP_MS);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

async function waitUntilEmpty(connections: ReadonlySet<Connection>): Promise<void> {
  while (connections.size > 0) await delay(10);
}

const toRejectedPayload = (message: Message, { reason, issues }: Rejection): string =>
  JSON.stringify({
    time: new Date(message.receivedAt).toISOString(),
    topic: message.topic,
    device: message.deviceId,
    reason,
    issues,
    payload: Buffer.from(message.payload).subarray(0, SHOWN_PAYLOAD_BYTES).toString("base64"),
  });
