// The composition root: the whole path of a message, opened in order and closed in reverse. The only file that knows
// all rooms.

import { join } from "node:path";
import type { Logger } from "pino";
import { openLog } from "./admin/log.ts";
import { type AdminServer, openAdminServer } from "./admin/server.ts";
import { acceptEverybody, openPasswordFile } from "./broker/authenticate.ts";
import { type Broker, openBroker } from "./broker/broker.ts";
import { listenHost } from "./config/exposure.ts";
import type { GatewayConfig } from "./config/schema.ts";
import { type Dispatcher, type HandlerMessage, openDispatcher } from "./dispatch/dispatcher.ts";
import { createEvents, type EventBus } from "./events.ts";
import { createIntake, type Intake } from "./intake.ts";
import { listCursors } from "./journal/cursor.ts";
import { type Journal, openJournal } from "./journal/journal.ts";
import type { Listener } from "./listener/listener.ts";
import { openTcp } from "./listener/tcp.ts";
import { createTelemetry } from "./telemetry.ts";
import { createRegistry } from "./validate/registry.ts";

export interface GatewayOptions {
  readonly config: GatewayConfig;
  readonly log: Logger;
  readonly version: string;
}

export interface Gateway {
  /** What it really listens on. */
  readonly listeners: readonly Listener[];
  readonly http: { readonly host: string; readonly port: number };
  /**
   * Ends in order: accept no more, read no more, acknowledge what is on disk, DISCONNECT the clients, let the sinks
   * finish their batch. `deadline` cuts the waiting for sinks short. Nothing that was acknowledged depends on it.
   */
  stop(deadline: AbortSignal): Promise<void>;
}

/** Rejects with a SluiceError when something of it cannot be opened; what was opened before is closed again. */
export async function openGateway({ config, log, version }: GatewayOptions): Promise<Gateway> {
  await using opened = new AsyncDisposableStack();
  const events = createEvents();
  let stage: "starting" | "running" | "stopping" = "starting";

  const registry = createRegistry(config.streams);
  const journal = opened.use(
    await openJournal({ dir: join(config.dataDir, "journal"), streams: registry.names, ...config.journal }),
  );
  opened.use(watchJournal(journal, events));
  const intake = createIntake({ registry, journal, events });
  const telemetry = opened.use(
    createTelemetry({
      events,
      version,
      sources: { journal: () => ({ ...journal.stats(), state: journal.state }), consumers: () => dispatcher.status() },
    }),
  );
  const { credentials } = config;
  const authenticate = credentials === undefined ? acceptEverybody : await openPasswordFile(credentials.passwordFile);
  const broker = await openBroker({
    target: {
      ...intake,
      durable: () => journal.durable,
      onDurable: (listener) => journal.onDurable(listener),
      congested: () => journal.congested,
      onCongestion: (listener) => journal.onState(listener),
    },
    limits: config.limits,
    authenticate,
    events,
    traffic: telemetry.traffic,
    puback: telemetry.puback,
    version,
  });
  events.on("rejected", (message, rejection) => broker.showRejected(message, rejection));
  const dispatcher: Dispatcher = await openDispatcher({
    config,
    journal,
    listCursors,
    events,
    log,
    publish: (handler, message) => publishFor(handler, message, { intake, journal, broker }),
  });
  dispatcher.onCursor((least) => journal.trim(least));
  const status = (): unknown => ({ version, stage, journal: journal.stats(), consumers: dispatcher.status() });
  const admin: AdminServer = await openAdminServer({
    ...config.http,
    health: { stage: () => stage, journal: () => journal },
    metrics: telemetry,
    status,
  });
  opened.use(openLog({ log, events, telemetry, consumers: () => dispatcher.status() }));
  const listeners = await openListeners(config, broker, log);
  tellRecovery(journal, log);
  stage = "running";
  const held = opened.move();

  return {
    listeners,
    http: { host: admin.host, port: admin.port },
    async stop(deadline) {
      stage = "stopping";
      for (const listener of listeners) await listener[Symbol.asyncDispose]();
      broker.stopReading();
      // What was read is on disk, and its acknowledgements are written; a disk that refuses must not stop the stopping.
      await journal.flush().catch(() => {});
      await broker[Symbol.asyncDispose]();
      await dispatcher.stop(deadline);
      await admin[Symbol.asyncDispose]();
      await held.disposeAsync();
    },
  };
}

async function openListeners(
  { listeners, credentials }: GatewayConfig,
  broker: Broker,
  log: Logger,
): Promise<readonly Listener[]> {
  const opened: Listener[] = [];
  for (const listener of listeners) {
    const { host, note } = listenHost(listener, credentials !== undefined);
    if (note !== undefined) log[listener.host === undefined ? "info" : "warn"]({ host }, note);
    opened.push(await openTcp({ host, port: listener.port }, broker.accept));
  }
  return opened;
}

/** Tells the bus of each commit and of each change of state. */
function watchJournal(journal: Journal, events: EventBus): Disposable {
  let { state, durable } = journal;
  const watch = new DisposableStack();
  watch.use(
    journal.onState(() => {
      if (journal.state === state) return;
      ({ state } = journal);
      events.emit("journal", state, state === "open" ? "the journal takes messages again" : journal.hint);
    }),
  );
  watch.use(
    journal.onDurable((to) => {
      events.emit("durable", to, to - durable, journal.stats().lastCommitMs);
      durable = to;
    }),
  );
  return watch;
}

function tellRecovery({ recovered, id, next }: Journal, log: Logger): void {
  const { damaged, tornBytes } = recovered;
  log.info({ gateway: id, next }, "journal open");
  if (tornBytes > 0)
    log.warn({ tornBytes }, "the journal's unfinished end was cut off; nothing of it was acknowledged");
  for (const range of damaged) log.error({ range }, "acknowledged records are damaged on disk and are passed over");
}

interface HandlerTargets {
  readonly intake: Intake;
  readonly journal: Journal;
  readonly broker: Broker;
}

/** What a handler publishes: telemetry when the topic belongs to a stream, then resolved once it is durable. */
async function publishFor(
  handler: string,
  message: HandlerMessage,
  { intake, journal, broker }: HandlerTargets,
): Promise<void> {
  const { topic, qos } = message;
  const payload = typeof message.payload === "string" ? Buffer.from(message.payload) : message.payload;
  const route = intake.route(topic);
  if (route === undefined) {
    await broker.publish({ ...message, payload });
    return;
  }
  const clientId = `sluice/handler/${handler}`;
  const verdict = intake.take(
    { topic, payload, clientId, deviceId: route.deviceId ?? clientId, receivedAt: Date.now(), qos, packetId: 0 },
    route,
  );
  if (verdict.kind === "rejected") {
    const { reason, issues } = verdict.rejection;
    throw new Error(`${topic}: ${reason}: ${issues.map(({ path, message: text }) => `${path} ${text}`).join("; ")}`);
  }
  await journal.flush();
  await broker.publish({ ...message, payload });
}
