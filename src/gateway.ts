// The composition root: the whole path of a message, opened in order and closed in reverse. The only file that knows
// all rooms.

import { join } from "node:path";
import type { Logger } from "pino";
import { openLog } from "./admin/log.ts";
import { openAdminServer } from "./admin/server.ts";
import { acceptEverybody, openPasswordFile } from "./broker/authenticate.ts";
import { type Broker, openBroker } from "./broker/broker.ts";
import { fillLengthsKept } from "./broker/own-bytes.ts";
import { listenHost } from "./config/exposure.ts";
import type { GatewayConfig } from "./config/schema.ts";
import { type ConsumerStatus, type Dispatcher, openDispatcher, type TakenAgain } from "./dispatch/dispatcher.ts";
import { createEvents, type EventBus } from "./events.ts";
import { openCheckpointer } from "./intake/checkpointer.ts";
import { createHandlerIntake } from "./intake/handler-intake.ts";
import { createIntake, type Intake } from "./intake/intake.ts";
import { restoreMemory, type Restored } from "./intake/restore.ts";
import { listCursors } from "./journal/cursor.ts";
import { type Journal, openJournal } from "./journal/journal.ts";
import { countLost, describeLoss } from "./journal/loss.ts";
import { openReader } from "./journal/reader.ts";
import { watchJournal } from "./journal/watch.ts";
import type { Listener } from "./listener/listener.ts";
import { openTcp } from "./listener/tcp.ts";
import { type Message, toOffset } from "./reading.ts";
import { createTelemetry, type Telemetry, toSinkTopics } from "./telemetry.ts";
import { createRegistry, type Registry } from "./validate/registry.ts";

type Stage = "starting" | "running" | "stopping";

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
  // Opened from the journal upwards and closed in reverse: listeners, broker, sinks, HTTP, journal.
  await using opened = new AsyncDisposableStack();
  const events = createEvents();
  let stage: Stage = "starting";
  let deadline = AbortSignal.abort();

  const registry = createRegistry(config.streams);
  const journal = opened.use(
    await openJournal({ dir: join(config.dataDir, "journal"), streams: registry.names, ...config.journal }),
  );
  tellStart(journal, registry, log);
  const lostRecords = countLost(journal.recovered.lost);
  const restored = opened.use(restore(config, journal, registry, log));
  const { memory } = restored;
  const intake = createIntake({ registry, journal, memory, events });
  const checkpoints = opened.use(
    openCheckpointer({
      path: checkpointPath(config),
      journal,
      memory,
      position: restored.position,
      maxBytes: config.journal.maxBytes,
      onWritten: () => trim(),
      onError: (err) => log.warn({ err }, "no checkpoint could be written: the next start reads more of the journal"),
    }),
  );
  const sources = {
    journal: () => ({ ...journal.stats(), state: journal.state, lostRecords }),
    /** Sinks and handlers. */
    consumers: () => dispatcher.status().filter(({ kind }) => kind !== "inbox"),
  };
  const telemetry = opened.use(createTelemetry({ events, version, sources }));

  const broker = Promise.withResolvers<Broker>();
  const dispatcher: Dispatcher = await openDispatcher({
    config,
    journal,
    listCursors,
    events,
    log,
    publish: createHandlerIntake({
      intake,
      journal,
      show: async (message) => (await broker.promise).publish(message),
      isLast: (handler) => isLast(handler, dispatcher.status()),
    }),
    takeAgain: (messages) => takeAgain(messages, { intake, journal }),
  });
  opened.defer(() => dispatcher.stop(deadline));
  let least = toOffset(0);
  // What lies behind the checkpoint is only wanted, for a quicker and fuller start: it gives way when its room is needed.
  const trim = (): void => journal.trim(least, checkpoints.position);
  dispatcher.onCursor((to) => {
    least = to;
    trim();
  });

  opened.use(openLog({ log, events, telemetry, consumers: sources.consumers }));
  const watch = opened.use(watchJournal(journal, events, () => dispatcher.status()));
  const admin = opened.use(
    await openAdminServer({
      ...config.http,
      health: {
        stage: () => stage,
        journal: () => ({ state: journal.state, alive: journal.alive, hint: watch.hint() }),
      },
      metrics: telemetry,
      status: () => ({
        version,
        stage,
        gateway: journal.id,
        journal: sources.journal(),
        consumers: dispatcher.status(),
      }),
    }),
  );
  const parts = { config, intake, journal, events, telemetry, version, log, consumers: sources.consumers };
  broker.resolve(await openGatewayBroker(opened, parts));
  const listeners: Listener[] = [];
  for (const { host, port } of listenHosts(config, log)) {
    listeners.push(opened.use(await openTcp({ host, port }, (await broker.promise).accept)));
  }

  stage = "running";
  const running = opened.move();
  return {
    listeners,
    http: { host: admin.host, port: admin.port },
    async stop(signal) {
      stage = "stopping";
      deadline = signal;
      await running.disposeAsync();
    },
  };
}

interface BrokerParts {
  readonly config: GatewayConfig;
  readonly intake: Intake;
  readonly journal: Journal;
  readonly events: EventBus;
  readonly telemetry: Telemetry;
  readonly version: string;
  readonly log: Logger;
  readonly consumers: Dispatcher["status"];
}

async function openGatewayBroker(opened: AsyncDisposableStack, parts: BrokerParts): Promise<Broker> {
  const { config, intake, journal, events, telemetry, version, log, consumers } = parts;
  const { credentials, limits } = config;
  const filled = fillLengthsKept();
  const authenticate = credentials === undefined ? acceptEverybody : await openPasswordFile(credentials.passwordFile);
  const broker = opened.use(
    await openBroker({
      target: {
        ...intake,
        next: () => journal.next,
        durable: () => journal.durable,
        onDurable: (listener) => journal.onDurable(listener),
        congested: () => journal.congested,
        onCongestion: (listener) => journal.onState(listener),
      },
      limits,
      authenticate,
      events,
      traffic: telemetry.traffic,
      puback: telemetry.puback,
      version,
      gatewayFigures: () => toSinkTopics(consumers()),
      onError: (err) => log.error({ err }, "the broker has failed at something that concerns no single client"),
    }),
  );
  opened.defer(async () => {
    broker.stopReading();
    // What was read is on disk, and its acknowledgements are written; a disk that refuses must not stop the stopping.
    await journal.flush().catch(() => {});
  });
  events.on("rejected", (message, rejection) => broker.showRejected(message, rejection));
  await filled; // before anybody connects, not in the middle of a fleet that comes back
  return broker;
}

/** Without credentials a listener stays on loopback, and the log says so. */
function listenHosts(
  { listeners, credentials }: GatewayConfig,
  log: Logger,
): readonly { host: string; port: number }[] {
  return listeners.map((listener) => {
    const { host, note } = listenHost(listener, credentials !== undefined);
    if (note !== undefined) log[listener.host === undefined ? "info" : "warn"]({ host }, note);
    return { host, port: listener.port };
  });
}

function tellStart({ recovered, id, next }: Journal, { interpreted }: Registry, log: Logger): void {
  const { lost, tornBytes, aside, notes } = recovered;
  log.info({ gateway: id, next }, "journal open");
  if (tornBytes > 0)
    log.warn({ tornBytes }, "the journal's unfinished end was cut off; nothing of it was acknowledged");
  for (const range of lost) {
    const { from, to, damaged, missing } = range;
    const fields = { from, to, records: to - from, damaged, missing };
    if (range.inLastCommit) log.warn(fields, `lost, perhaps before they were acknowledged: ${describeLoss(range)}`);
    else log.error(fields, `the journal has lost ${describeLoss(range)}`);
  }
  for (const file of aside) log.error({ file }, "a segment does not count and is kept under another name (*.damaged)");
  for (const note of notes) log.warn(note);
  for (const { stream, reason } of interpreted)
    log.warn({ stream, reason }, "the schema cannot be compiled and is slower");
}

const checkpointPath = ({ dataDir }: GatewayConfig): string => join(dataDir, "journal", "checkpoint");

function restore(config: GatewayConfig, journal: Journal, registry: Registry, log: Logger): Restored {
  const restored = restoreMemory({
    path: checkpointPath(config),
    journal,
    openReader: (from, onLost) => openReader(journal.share, from, onLost),
    registry,
    limits: config.limits,
  });
  const { records, elapsedMs, unknown } = restored;
  log.debug({ records, elapsedMs: Math.round(elapsedMs) }, "unfinished messages and keys are known again");
  if (unknown.length > 0)
    log.warn({ unknown }, "a message that is sent again may be taken twice: not all that came before is known");
  return restored;
}

/** Rejected messages once more, by today's streams, under the time of their first receipt. Subscribers are not told. */
async function takeAgain(
  messages: readonly Message[],
  { intake, journal }: { readonly intake: Intake; readonly journal: Journal },
): Promise<readonly TakenAgain[]> {
  if (journal.congested) throw new Error("the journal takes no messages now");
  const outcomes = messages.map((given): TakenAgain => {
    const route = intake.route(given.topic);
    if (route === undefined) {
      return {
        kind: "rejected",
        reason: "no-stream",
        issues: [{ path: "", message: "its topic belongs to no stream" }],
      };
    }
    // From a worker: the payload has become a plain Uint8Array, and codecs are used to Buffers.
    const payload = Buffer.from(given.payload.buffer, given.payload.byteOffset, given.payload.length);
    const message = { ...given, payload, deviceId: route.deviceId ?? given.deviceId };
    const verdict = intake.takeAgain(message, route);
    return verdict.kind === "rejected" ? { kind: "rejected", ...verdict.rejection } : { kind: "taken" };
  });
  // Also what is a duplicate: the first one may be not durable yet.
  await journal.flush();
  return outcomes;
}

/** No other consumer needs records as old as those that this one needs. */
function isLast(name: string, consumers: readonly ConsumerStatus[]): boolean {
  const own = consumers.find((one) => one.name === name)?.durable ?? toOffset(0);
  return consumers.every(({ durable }) => durable >= own);
}
