// Aedes behind our own contract: sessions, subscriptions, retained messages, wills, delivery to subscribers. What comes
// from sockets passes connection.ts first; telemetry never reaches Aedes except to be shown to subscribers.
//
// Guards for aedes 2.0.0-beta.1 that live here (the others are in connection.ts and fan-out.ts; ADR 0002):
// - its tables that are keyed by names from the wire get a null prototype (a client called __proto__);
// - deleting an incoming QoS 2 packet twice (two PUBRELs in one chunk) must not reject (sessions.ts);
// - a clean start forgets the unfinished QoS 2 messages of the session before;
// - publishing to the gateway's own topics is refused also for wills.

import { randomUUID } from "node:crypto";
import type { EventEmitter } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { Aedes, type AedesOptions, type Client, type PublishPacket } from "aedes";
import { toError } from "../errors.ts";
import type { EventBus } from "../events.ts";
import type { Accept } from "../listener/listener.ts";
import type { Message, Offset, QoS, Rejection, Route, UnixMs, Verdict } from "../reading.ts";
import type { Latency, Traffic } from "../telemetry.ts";
import type { Authenticate } from "./authenticate.ts";
import { Arrivals } from "./arrivals.ts";
import { isReservedTopic, rejectedTopic } from "./authorize.ts";
import { type Connection, openConnection } from "./connection.ts";
import type { ConnectionContext } from "./connection-context.ts";
import { FanOut } from "./fan-out.ts";
import { reasonCode } from "./frames.ts";
import type { Limits } from "./limits.ts";
import { toMessageProperties } from "./message-properties.ts";
import { openThrottle } from "./rate-limit.ts";
import { Sessions } from "./sessions.ts";
import { openSysTopics } from "./sys-topics.ts";
import type { AedesClient } from "./target.ts";

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
  const sessions = new Sessions(limits, events);
  const fanOut = new FanOut({
    privatePrefix: `$SYS/${id}/`,
    queueBytes: limits.subscriberQueueBytes,
    events,
    kept: sessions.kept,
  });
  const connections = new Set<Connection>();
  const byClientId = new Map<string, Connection>();
  const owing = new Set<Connection>();
  const byStream = new WeakMap<object, Connection>();
  const connectionOf = (client: Client | null): Connection | undefined =>
    client === null ? undefined : byStream.get(client.conn);

  const aedes = new Aedes({
    id,
    // Aedes' type for `mq` is the whole of mqemitter; FanOut has what Aedes uses of it. The same with the persistence.
    mq: fanOut as never,
    persistence: sessions as never,
    // Enforced by connection.ts before anything is buffered; what was sent with an alias reaches Aedes with its topic.
    maximumPacketSize: limits.maximumPacketBytes + limits.maximumTopicBytes,
    receiveMaximum: limits.maximumInflightQos2,
    topicAliasMaximum: limits.topicAliases,
    maxTopicLevels: limits.maximumTopicLevels,
    maxClientsIdLength: 65_535,
    pendingSessionsLimit: limits.sessions,
    connectTimeout: limits.connectTimeoutMs,
    drainTimeout: NEVER_MS, // a full subscriber is bounded by authorizeForward, and ended by its keep-alive
    ...createHooks(options, sessions, byClientId, connectionOf),
  });
  Object.assign(aedes, { clients: Object.create(null), brokers: Object.create(null) });
  await aedes.listen();
  // Told by the connection that it concerns; an error event that nobody listens to would end the process.
  aedes.on("clientError", (client, error) => connectionOf(client)?.note(error));
  aedes.on("connectionError", (client, error) => connectionOf(client)?.note(error));
  (aedes as EventEmitter).on("error", options.onError);

  let stopped = false;
  const stack = new DisposableStack();
  const context: ConnectionContext = {
    ...options,
    wireLimits: { ...limits, topicAliasMaximum: limits.topicAliases },
    throttle: stack.use(openThrottle()),
    departed: (peer) => arrivals.departed(peer),
    connections,
    byClientId,
    owing,
    stopped: () => stopped,
    attach(stream, connection) {
      byStream.set(stream, connection);
      const client = aedes.handle(stream) as AedesClient;
      const subscriptions = fanOut.subscriptionsOf(client, connection);
      return Object.assign(client, { subscriptions, duplicates: Object.create(null) });
    },
    forgetIncoming: (clientId) => void sessions.cleanIncoming({ id: clientId }),
    audienceOf: (topic) => fanOut.audienceOf(topic),
    show(audience, shown) {
      fanOut.show(audience, shown);
      const { qos, retain } = shown.view;
      if (retain || audience.needsAedes(qos)) aedes.publish(fanOut.forOthers(shown), () => {});
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
  stack.use(openSweep(connections));
  stack.use(
    openSysTopics({
      traffic,
      version,
      counts: () => ({
        disconnected: Math.max(0, sessions.clients - traffic.clientsConnected),
        subscriptions: fanOut.subscriptions,
        retained: sessions.retained,
      }),
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

/** CONNECT timeout, keep-alive and lingering sockets, without a timer per client. */
function openSweep(connections: ReadonlySet<Connection>): Disposable {
  const timer = setInterval(() => {
    const nowMs = performance.now();
    for (const connection of connections) connection.sweep(nowMs);
  }, SWEEP_MS);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

async function waitUntilEmpty(connections: ReadonlySet<Connection>): Promise<void> {
  while (connections.size > 0) await delay(10);
}

/** What Aedes asks: who may connect, publish, subscribe, and what a subscriber is still given. */
function createHooks(
  { target, limits, authenticate, events }: BrokerOptions,
  sessions: Sessions,
  byClientId: ReadonlyMap<string, Connection>,
  connectionOf: (client: Client | null) => Connection | undefined,
): Pick<AedesOptions, "authenticate" | "authorizePublish" | "authorizeSubscribe" | "authorizeForward"> {
  const { badUserNameOrPassword, notAuthorized, quotaExceeded, serverUnavailable } = reasonCode;
  return {
    authenticate(client, username, password, done) {
      const refuse = (reason: string, code: number, told = reason): void => {
        connectionOf(client)?.refuse(told, code);
        done(Object.assign(new Error(reason), { returnCode: NOT_AUTHORIZED }), false);
      };
      if (!client.clean && sessions.isOneTooMany(client.id)) {
        events.emit("limited", "sessions");
        refuse(`more than ${limits.sessions} sessions`, quotaExceeded);
        return;
      }
      authenticate({ clientId: client.id, username, password })
        .then((result) => {
          if (result.kind === "refused") {
            refuse(result.reason, username === undefined ? notAuthorized : badUserNameOrPassword);
            return;
          }
          byClientId.get(client.id)?.expectTakeover();
          connectionOf(client)?.identify(result.deviceId);
          done(null, true);
        })
        .catch((cause: unknown) => {
          refuse(toError(cause).message, serverUnavailable, "credentials cannot be checked now");
        });
    },
    // Telemetry and reserved topics from sockets end in connection.ts, so what comes here on them is a will: it is
    // judged like any other message.
    authorizePublish(client, packet, done) {
      const route = target.route(packet.topic);
      if (isReservedTopic(packet.topic)) {
        events.emit("received", packet.qos);
        events.emit("refused", client?.id ?? "", packet.topic, "reserved-topic");
        done(new Error(`the topic ${packet.topic} is reserved`));
      } else if (client !== null && route !== undefined) {
        const verdict = target.take(toWill(client, packet, route, connectionOf(client)?.identity), route);
        done(verdict.kind === "appended" ? null : new Error("the will is not valid telemetry"));
      } else {
        done(null);
      }
    },
    authorizeSubscribe(client, subscription, done) {
      const { subscriptions } = client as Client & { readonly subscriptions: object };
      done(null, Object.keys(subscriptions).length < limits.maximumSubscriptionsPerClient ? subscription : null);
    },
    // A full subscriber is passed over. QoS 1 and 2 of a session that lasts is bounded by the session's queue instead.
    authorizeForward(client, packet) {
      const { writableNeedDrain, writableLength } = client.conn;
      const kept = packet.qos > 0 && !client.clean && !sessions.isFull(client.id);
      if (!writableNeedDrain || (kept && writableLength < 2 * limits.subscriberQueueBytes)) return packet;
      events.emit("dropped", client.id, packet.topic);
      return null;
    },
  };
}

/** For Aedes' own CONNACK, which the connection replaces. */
const NOT_AUTHORIZED = 5;

function toWill(client: Client, packet: PublishPacket, route: Route, identity: string | undefined): Message {
  const properties = toMessageProperties(packet.properties);
  return {
    topic: packet.topic,
    payload: Buffer.from(packet.payload),
    clientId: client.id,
    deviceId: route.deviceId ?? client.id,
    receivedAt: Date.now(),
    qos: packet.qos,
    packetId: 0,
    ...(identity === undefined ? undefined : { identity }),
    ...(properties === undefined ? undefined : { properties }),
  };
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
