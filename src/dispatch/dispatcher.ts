// One worker thread per sink and per handler, one for the inbox of rejected messages, and what they have in common: their
// status, and how far the journal may be trimmed. No sink code and no record passes through this thread.

import { mkdir, readdir } from "node:fs/promises";
import type { Logger } from "pino";
import type { GatewayConfig, HandlerConfig, SinkConfig } from "../config/schema.ts";
import type { ConsumerState, EventBus } from "../events.ts";
import type { Journal } from "../journal/journal.ts";
import { toOffset } from "../reading.ts";
import type { Message, Offset } from "../reading.ts";
import { cursorsDir, inboxName } from "./protocol.ts";
import type { Consumer, ErrorCounts, HandlerMessage, TakenAgain, WorkerStatus } from "./protocol.ts";
import { createRateMeter, toEtaSeconds } from "./rates.ts";
import type { RateMeter } from "./rates.ts";
import type { BackoffOptions } from "./retry.ts";
import { superviseWorker } from "./supervisor.ts";
import type { Supervisor } from "./supervisor.ts";

export type { TakenAgain } from "./protocol.ts";

/** A worker may be busy at its start, and with a call that blocks for as long as it is given. */
const shortestSilentMs = 60_000;
const silenceMarginMs = 5_000;

/** A consumer that has a cursor and is not configured. */
type Orphan = readonly [name: string, position: Offset];

export interface DispatcherOptions {
  readonly config: Pick<GatewayConfig, "file" | "dataDir"> & {
    readonly sinks: readonly ({ readonly name: string } & Partial<Pick<SinkConfig, "retry" | "timeoutMs">>)[];
    readonly handlers: readonly ({ readonly name: string } & Partial<Pick<HandlerConfig, "retry" | "timeoutMs">>)[];
    /** How much of the rejected messages is kept; 0 records, or left out: there is no inbox. */
    readonly rejects?: { readonly records: number; readonly bytes: number };
  };
  readonly journal: Pick<Journal, "share" | "durable" | "onDurable" | "bytesFrom">;
  /** The cursors that the data directory has; `listCursors` of the journal. */
  readonly listCursors: (
    dir: string,
    journalId: string,
  ) => readonly { readonly name: string; readonly position: Offset }[];
  readonly events: EventBus;
  /** For what happens to records; a change of state is an event. */
  readonly log: Pick<Logger, "error" | "warn" | "info">;
  /**
   * A handler publishes: resolves when the gateway has taken the message over, rejects when it refuses to. While it waits for
   * room it is given up when the signal aborts.
   */
  readonly publish: (handler: string, message: HandlerMessage, signal: AbortSignal) => Promise<void>;
  /** Rejected messages are to be tried again: resolves when those that are taken now are durable. */
  readonly takeAgain?: (messages: readonly Message[]) => Promise<readonly TakenAgain[]>;
  /** Instead of what the sinks and handlers say. */
  readonly backoff?: Omit<BackoffOptions, "random">;
  /** Workers report at most this often. Default 200. */
  readonly statusMs?: number;
  /**
   * Heap of each worker in MiB; one that outgrows it is started again. Default 1024, of which some tens are used: of a heap that may
   * not get so large, V8 collects the old generation six times as often, a fifth of the time that a sink takes.
   */
  readonly heapMb?: number;
  /** A worker that says nothing for so long is ended and started again. Default: somewhat more than its `timeoutMs`. */
  readonly silentMs?: number;
  /** How often rates are sampled, and forgotten consumers looked for. Default 1,000. */
  readonly tickMs?: number;
}

export interface ConsumerStatus {
  readonly name: string;
  /** unknown: it has a cursor but is not in the configuration. */
  readonly kind: Consumer["kind"] | "unknown";
  readonly state: ConsumerState | "not configured";
  /** Everything below is with the consumer or parked. */
  readonly position: Offset;
  /** What of `position` survives a crash. */
  readonly durable: Offset;
  /** Records between `position` and the journal's end. */
  readonly lagRecords: number;
  /** Age of the oldest of them; 0 when there is none. */
  readonly lagSeconds: number;
  /** What they take in the journal's files, about. */
  readonly lagBytes: number;
  /** Records a second that `position` has moved by of late. */
  readonly ratePerSecond: number;
  /** Until the lag is gone at the rates of late; undefined: it does not become less. */
  readonly etaSeconds: number | undefined;
  /** Since the gateway started, as are the following. position moves by delivered + parked + passed + expired. */
  readonly delivered: number;
  readonly parked: number;
  readonly passed: number;
  readonly expired: number;
  readonly errors: ErrorCounts;
  readonly lastError: string | undefined;
}

export interface Dispatcher {
  /** Every consumer, also those that are not configured any longer but whose cursor still holds the journal. */
  status(): readonly ConsumerStatus[];
  /** Called with the least durable cursor of all consumers, each time that it has moved: the journal needs nothing below. */
  onCursor(listener: (least: Offset) => void): Disposable;
  /** Ends the worker of a consumer at once and starts it again; nothing is lost. Rejects when there is no such consumer. */
  restart(name: string): Promise<void>;
  /** Each consumer finishes its batch and writes its cursor; when `deadline` aborts, those that have not are ended. */
  stop(deadline: AbortSignal): Promise<void>;
}

interface Supervised extends Consumer {
  readonly supervisor: Supervisor;
  readonly rate: RateMeter;
}

/** Starts a worker for each consumer and does not wait for them: a sink that cannot be reached delays nothing. */
export async function openDispatcher(options: DispatcherOptions): Promise<Dispatcher> {
  const { config, journal, tickMs = 1_000 } = options;
  const dir = cursorsDir(config.dataDir);
  await mkdir(dir, { recursive: true });
  const cursors = new Map(options.listCursors(dir, journal.share.id).map(({ name, position }) => [name, position]));
  const consumers: readonly Consumer[] = [
    ...config.sinks.map(({ name }) => ({ kind: "sink", name }) as const),
    ...config.handlers.map(({ name }) => ({ kind: "handler", name }) as const),
    ...(hasInbox(config.rejects) ? [{ kind: "inbox", name: inboxName } as const] : []),
  ];
  const configured = new Set(consumers.map(({ name }) => name));
  let orphans: readonly Orphan[] = [...cursors].filter(([name]) => !configured.has(name));
  const trimming = createTrimming(() => leastDurable(supervised, orphans, journal.durable));
  const openedAt = Date.now();
  const seenWithoutLag = new Map<string, number>();
  const intake = createRateMeter();

  const supervised: readonly Supervised[] = consumers.map((consumer) => ({
    ...consumer,
    supervisor: supervise(consumer, cursors.get(consumer.name) ?? toOffset(0), options, trimming.check),
    rate: createRateMeter(),
  }));
  // Without any consumer each commit may be trimmed.
  const watch = journal.onDurable(() => {
    if (supervised.length + orphans.length === 0) trimming.check();
  });
  for (const [name, position] of orphans) {
    options.log.warn(
      { consumer: name, position },
      `not configured any longer, but its cursor still holds the journal: \`sluice sinks forget ${name}\` lets go`,
    );
  }
  const ticking = setInterval(() => {
    const nowMs = performance.now();
    intake.sample(journal.durable, nowMs);
    for (const { supervisor, rate } of supervised) rate.sample(supervisor.status.position, nowMs);
    if (orphans.length > 0) void forgetOrphans();
  }, tickMs);
  ticking.unref();

  /** Those whose cursor was deleted hold nothing any longer. */
  async function forgetOrphans(): Promise<void> {
    const kept = await keepFound(dir, orphans);
    for (const [name] of orphans.filter((orphan) => !kept.includes(orphan))) {
      options.log.info({ consumer: name }, "forgotten: its cursor is gone, and the journal is no longer held for it");
    }
    orphans = kept;
    trimming.check();
  }

  /** Seconds: by the record in hand; while none is in hand, since this consumer had last caught up as it or we have seen. */
  function lagSeconds(name: string, lagRecords: number, { oldestReceivedAt, caughtUpAt }: Ages): number {
    const now = Date.now();
    if (lagRecords === 0) seenWithoutLag.set(name, now);
    const since = oldestReceivedAt ?? Math.max(caughtUpAt ?? 0, seenWithoutLag.get(name) ?? openedAt);
    return lagRecords === 0 ? 0 : Math.max(0, now - since) / 1000;
  }

  const lagOf = (position: Offset): Pick<ConsumerStatus, "lagRecords" | "lagBytes"> => {
    const lagRecords = Math.max(0, journal.durable - position);
    return { lagRecords, lagBytes: lagRecords === 0 ? 0 : journal.bytesFrom(position) };
  };
  return {
    status: () => [
      ...supervised.map(({ kind, name, supervisor: { status }, rate }): ConsumerStatus => {
        const { oldestReceivedAt, caughtUpAt, ...figures } = status;
        const lag = lagOf(status.position);
        return {
          name,
          kind,
          ...figures,
          ...lag,
          lagSeconds: lagSeconds(name, lag.lagRecords, { oldestReceivedAt, caughtUpAt }),
          ratePerSecond: rate.perSecond,
          etaSeconds: toEtaSeconds(lag.lagRecords, rate.perSecond, intake.perSecond),
        };
      }),
      ...orphans.map(([name, position]) => toOrphanStatus(name, position, lagOf(position), openedAt)),
    ],
    onCursor: trimming.onCursor,
    async restart(name) {
      const found = supervised.find((one) => one.name === name);
      if (found === undefined) throw new Error(`no sink or handler is named ${name}`);
      await found.supervisor.restart();
    },
    async stop(deadline) {
      clearInterval(ticking);
      await Promise.all(supervised.map(({ supervisor }) => supervisor.stop(deadline)));
      watch[Symbol.dispose]();
    },
  };
}

const hasInbox = (keep: DispatcherOptions["config"]["rejects"]): boolean => (keep?.records ?? 0) > 0;

function supervise(consumer: Consumer, start: Offset, options: DispatcherOptions, onStatus: () => void): Supervisor {
  const { config, journal, events, log, publish, statusMs = 200, heapMb = 1024 } = options;
  const { kind, name } = consumer;
  const { retry = {}, timeoutMs = 0 } = [...config.sinks, ...config.handlers].find((one) => one.name === name) ?? {};
  const backoff = options.backoff ?? retry;
  return superviseWorker({
    settings: {
      consumer,
      configFile: config.file,
      dataDir: config.dataDir,
      share: journal.share,
      statusMs,
      backoff,
      keep: kind === "inbox" ? config.rejects : undefined,
    },
    start,
    heapMb,
    silentMs: options.silentMs ?? Math.max(timeoutMs, shortestSilentMs) + silenceMarginMs,
    onState: (state, detail) => events.emit("consumer", name, state, detail),
    onStatus,
    onLog: (level, text) => log[level]({ consumer: name }, text),
    publish: (message, signal) => publish(name, message, signal),
    takeAgain: async (messages) => options.takeAgain?.(messages) ?? [],
  });
}

interface Trimming {
  /** Tells the listeners when the least cursor has moved. */
  readonly check: () => void;
  readonly onCursor: Dispatcher["onCursor"];
}

function createTrimming(readLeast: () => Offset): Trimming {
  const listeners = new Set<(least: Offset) => void>();
  let told = 0;
  return {
    check() {
      const least = readLeast();
      if (least <= told) return;
      told = least;
      for (const listener of listeners) listener(least);
    },
    onCursor(listener) {
      listeners.add(listener);
      if (told > 0) listener(toOffset(told));
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
  };
}

/** Without any consumer nobody needs what is on disk. */
function leastDurable(supervised: readonly Supervised[], orphans: readonly Orphan[], end: Offset): Offset {
  const positions = [...supervised.map(({ supervisor }) => supervisor.status.durable), ...orphans.map(([, at]) => at)];
  return toOffset(Math.min(end, ...positions));
}

async function keepFound(dir: string, orphans: readonly Orphan[]): Promise<readonly Orphan[]> {
  const files = await readdir(dir).catch(() => undefined);
  // A folder that cannot be read tells nothing.
  return files === undefined
    ? orphans
    : orphans.filter(([name]) => files.includes(`${encodeURIComponent(name)}.cursor`));
}

type Ages = Pick<WorkerStatus, "oldestReceivedAt" | "caughtUpAt">;

function toOrphanStatus(
  name: string,
  position: Offset,
  lag: Pick<ConsumerStatus, "lagRecords" | "lagBytes">,
  since: number,
): ConsumerStatus {
  return {
    name,
    kind: "unknown",
    state: "not configured",
    position,
    durable: position,
    ...lag,
    lagSeconds: lag.lagRecords === 0 ? 0 : (Date.now() - since) / 1000,
    ratePerSecond: 0,
    etaSeconds: toEtaSeconds(lag.lagRecords, 0, 0),
    delivered: 0,
    parked: 0,
    passed: 0,
    expired: 0,
    errors: { transient: 0, refused: 0, misconfigured: 0 },
    lastError: undefined,
  };
}
