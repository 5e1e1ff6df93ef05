// One worker thread per sink and per handler, and what they have in common: their status, and how far the journal may be
// trimmed. No sink code and no record passes through this thread.

import { mkdir } from "node:fs/promises";
import type { Logger } from "pino";
import type { GatewayConfig } from "../config/schema.ts";
import type { ConsumerState, EventBus } from "../events.ts";
import type { Journal } from "../journal/journal.ts";
import { toOffset } from "../reading.ts";
import type { Offset } from "../reading.ts";
import { cursorsDir } from "./protocol.ts";
import type { Consumer, HandlerMessage } from "./protocol.ts";
import type { BackoffOptions } from "./retry.ts";
import { superviseWorker } from "./supervisor.ts";
import type { Supervisor } from "./supervisor.ts";

export type { HandlerMessage } from "./protocol.ts";

export interface DispatcherOptions {
  readonly config: Pick<GatewayConfig, "file" | "dataDir"> & {
    readonly sinks: readonly { readonly name: string }[];
    readonly handlers: readonly { readonly name: string }[];
  };
  readonly journal: Pick<Journal, "share" | "durable" | "onDurable">;
  /** The cursors that the data directory has; `listCursors` of the journal. */
  readonly listCursors: (
    dir: string,
    journalId: string,
  ) => readonly { readonly name: string; readonly position: Offset }[];
  readonly events: EventBus;
  /** For what happens to records; a change of state is an event. */
  readonly log: Pick<Logger, "error" | "warn">;
  /** A handler publishes: resolves when the gateway has taken the message over, rejects when it refuses to. */
  readonly publish: (handler: string, message: HandlerMessage) => Promise<void>;
  readonly backoff?: Omit<BackoffOptions, "random">;
  /** Workers report at most this often. Default 200. */
  readonly statusMs?: number;
  /** Heap of each worker in MiB; one that outgrows it is started again. Default 512. */
  readonly heapMb?: number;
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
  /** Since the gateway started, as are the following. position moves by delivered + parked + passed + expired. */
  readonly delivered: number;
  readonly parked: number;
  readonly passed: number;
  readonly expired: number;
  readonly errors: number;
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
}

/** Starts a worker for each consumer and does not wait for them: a sink that cannot be reached delays nothing. */
export async function openDispatcher(options: DispatcherOptions): Promise<Dispatcher> {
  const { config, journal, log } = options;
  const dir = cursorsDir(config.dataDir);
  await mkdir(dir, { recursive: true });
  const cursors = new Map(options.listCursors(dir, journal.share.id).map(({ name, position }) => [name, position]));
  const consumers: readonly Consumer[] = [
    ...config.sinks.map(({ name }) => ({ kind: "sink", name }) as const),
    ...config.handlers.map(({ name }) => ({ kind: "handler", name }) as const),
  ];
  const configured = new Set(consumers.map(({ name }) => name));
  const orphans = [...cursors].filter(([name]) => !configured.has(name));
  const trimming = createTrimming(() => leastDurable(supervised, orphans, journal.durable));
  const openedAt = Date.now();
  const caughtUpAt = new Map<string, number>();

  const supervised: readonly Supervised[] = consumers.map((consumer) => ({
    ...consumer,
    supervisor: supervise(consumer, cursors.get(consumer.name) ?? toOffset(0), options, trimming.check),
  }));
  const watch = supervised.length + orphans.length === 0 ? journal.onDurable(trimming.check) : undefined;

  for (const [name, position] of orphans) {
    log.warn(
      { consumer: name, position },
      `not configured any longer, but its cursor still holds the journal: delete its file in ${dir} to let go`,
    );
  }

  /** Seconds: by the record in hand; while none is in hand, since this consumer was last seen without lag. */
  function lagSeconds(name: string, lagRecords: number, oldestReceivedAt: number | undefined): number {
    const now = Date.now();
    if (lagRecords === 0) caughtUpAt.set(name, now);
    const since = oldestReceivedAt ?? caughtUpAt.get(name) ?? openedAt;
    return lagRecords === 0 ? 0 : Math.max(0, now - since) / 1000;
  }

  const lagOf = (position: Offset): number => Math.max(0, journal.durable - position);
  return {
    status: () => [
      ...supervised.map(({ kind, name, supervisor: { status } }): ConsumerStatus => {
        const { oldestReceivedAt, ...figures } = status;
        const lagRecords = lagOf(status.position);
        return { name, kind, ...figures, lagRecords, lagSeconds: lagSeconds(name, lagRecords, oldestReceivedAt) };
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
      await Promise.all(supervised.map(({ supervisor }) => supervisor.stop(deadline)));
      watch?.[Symbol.dispose]();
    },
  };
}

function supervise(consumer: Consumer, start: Offset, options: DispatcherOptions, onStatus: () => void): Supervisor {
  const { config, journal, events, log, publish, backoff = {}, statusMs = 200, heapMb = 512 } = options;
  const { name } = consumer;
  return superviseWorker({
    settings: { consumer, configFile: config.file, dataDir: config.dataDir, share: journal.share, statusMs, backoff },
    start,
    heapMb,
    onState: (state, detail) => events.emit("consumer", name, state, detail),
    onStatus,
    onLog: (level, text) => log[level]({ consumer: name }, text),
    publish: (message) => publish(name, message),
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
function leastDurable(
  supervised: readonly Supervised[],
  orphans: readonly (readonly [string, Offset])[],
  end: Offset,
): Offset {
  const positions = [...supervised.map(({ supervisor }) => supervisor.status.durable), ...orphans.map(([, at]) => at)];
  return toOffset(Math.min(end, ...positions));
}

function toOrphanStatus(name: string, position: Offset, lagRecords: number, since: number): ConsumerStatus {
  const counts = { delivered: 0, parked: 0, passed: 0, expired: 0, errors: 0, lastError: undefined };
  const lagSeconds = lagRecords === 0 ? 0 : (Date.now() - since) / 1000;
  return {
    name,
    kind: "unknown",
    state: "not configured",
    position,
    durable: position,
    lagRecords,
    lagSeconds,
    ...counts,
  };
}
