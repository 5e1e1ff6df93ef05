// Keeps the worker of one consumer alive: a worker that ends by itself is started again with backoff, for ever.

import { Worker } from "node:worker_threads";
import { toError, unreachable } from "../errors.ts";
import type { ConsumerState } from "../events.ts";
import type { Message, Offset } from "../reading.ts";
import { aliveMs } from "./protocol.ts";
import type {
  ErrorCounts,
  FromWorker,
  HandlerMessage,
  TakenAgain,
  ToWorker,
  WorkerEnd,
  WorkerSettings,
  WorkerStatus,
} from "./protocol.ts";
import { createBackoff } from "./retry.ts";

export interface SupervisorOptions {
  readonly settings: WorkerSettings;
  /** What is durable of its cursor already. */
  readonly start: Offset;
  /** The heap of the worker; one that outgrows it is started again. */
  readonly heapMb: number;
  /** A worker that says nothing for so long is ended and started again. */
  readonly silentMs: number;
  readonly onState: (state: ConsumerState, detail: string) => void;
  readonly onStatus: () => void;
  readonly onLog: (level: "warn" | "error", text: string) => void;
  /** Resolves when the gateway has taken the message over. A message that waits is given up when the signal aborts. */
  readonly publish: (message: HandlerMessage, signal: AbortSignal) => Promise<void>;
  /** Of the inbox: resolves when what was taken is durable. */
  readonly takeAgain: (messages: readonly Message[]) => Promise<readonly TakenAgain[]>;
}

/** A worker's status, with the counts of all its lives. */
interface SupervisedStatus extends Omit<WorkerStatus, "state"> {
  readonly state: ConsumerState;
}

export interface Supervisor {
  readonly status: SupervisedStatus;
  /** Ends the worker at once, wherever it is, and starts it again; resolves when it has ended. Nothing is lost. */
  restart(): Promise<void>;
  /** Lets it finish its batch and write its cursor; when `deadline` aborts first, it is ended at once. Never rejects. */
  stop(deadline: AbortSignal): Promise<void>;
}

/** A worker that lived so long was well: its end is a first failure. */
const healthyMs = 60_000;
/** From telling the worker that nobody waits to ending it. */
const abortGraceMs = 250;

type Counts = Pick<WorkerStatus, "delivered" | "parked" | "passed" | "expired" | "errors">;
const noErrors: ErrorCounts = { transient: 0, refused: 0, misconfigured: 0 };
const nothing: Counts = { delivered: 0, parked: 0, passed: 0, expired: 0, errors: noErrors };

export function superviseWorker(options: SupervisorOptions): Supervisor {
  const { settings, start } = options;
  const stopping = new AbortController();
  const backoff = createBackoff(settings.backoff);
  let worker: Worker | undefined;
  let state: ConsumerState = "starting";
  let detail = "";
  let restarting = false;
  /** Of the lives that have ended. */
  let earlier = nothing;
  let current: WorkerStatus | undefined;
  let lastEnd: WorkerEnd | undefined;
  let last: Pick<WorkerStatus, "position" | "durable" | "lastError" | "caughtUpAt"> = {
    position: start,
    durable: start,
    lastError: undefined,
    caughtUpAt: undefined,
  };

  function enter(next: ConsumerState, text: string): void {
    if (state === next && detail === text) return;
    state = next;
    detail = text;
    options.onState(state, text);
  }

  function onStatus(status: WorkerStatus): void {
    if (status.position > last.position) backoff.reset();
    current = status;
    last = {
      position: status.position,
      durable: status.durable,
      lastError: status.lastError ?? last.lastError,
      caughtUpAt: status.caughtUpAt ?? last.caughtUpAt,
    };
    if (status.state === "running") enter("running", "");
    if (status.state === "retrying" || status.state === "misconfigured") enter(status.state, status.lastError ?? "");
    options.onStatus();
  }

  function onMessage(from: Worker, publishes: Publishes, message: FromWorker): void {
    switch (message.kind) {
      case "alive":
        return undefined;
      case "status":
        return onStatus(message.status);
      case "log":
        return options.onLog(message.level, message.text);
      case "publish":
        return void answer(from, message.id, publishes.begin(message.id, message.message));
      case "withdraw":
        return publishes.withdraw(message.id);
      case "takeAgain":
        return void answerInbox(from, options.takeAgain(message.messages));
      case "stopped":
        return void from.terminate();
      default:
        return unreachable(message);
    }
  }

  /** One life of the worker; resolves with why it ended. */
  function live(): Promise<string> {
    const { promise, resolve } = Promise.withResolvers<string>();
    let reason: string | undefined;
    const file = settings.consumer.kind === "inbox" ? "./inbox-worker.ts" : "./worker.ts";
    const started = new Worker(new URL(file, import.meta.url), {
      name: settings.consumer.name,
      workerData: { ...settings, lastEnd } satisfies WorkerSettings,
      resourceLimits: { maxOldGenerationSizeMb: options.heapMb },
    });
    worker = started;
    const publishes = createPublishes(options.publish);
    // Counted and not measured: a process that was frozen for long hears from its workers before the next count.
    let silentMs = 0;
    const watch = setInterval(() => {
      silentMs += aliveMs;
      if (silentMs < options.silentMs) return;
      reason = `its worker has not answered for ${silentMs / 1000} s: a loop without end, or a call that blocks`;
      void started.terminate();
    }, aliveMs);
    started.on("message", (message: FromWorker) => {
      silentMs = 0;
      onMessage(started, publishes, message);
    });
    started.on("error", (cause) => {
      reason ??= toError(cause).message;
    });
    started.on("exit", (code) => {
      clearInterval(watch);
      publishes.withdrawAll();
      resolve(reason ?? `its worker ended with exit code ${code}`);
    });
    return promise;
  }

  async function supervise(): Promise<void> {
    options.onState(state, "");
    while (!stopping.signal.aborted) {
      const bornMs = performance.now();
      const reason = await live().catch((cause: unknown) => toError(cause).message);
      worker = undefined;
      earlier = sum(earlier, current);
      current = undefined;
      if (stopping.signal.aborted) break;
      lastEnd = { reason, wanted: restarting };
      if (restarting) {
        restarting = false;
        enter("starting", "");
        continue;
      }
      if (performance.now() - bornMs > healthyMs) backoff.reset();
      earlier = sum(earlier, { ...nothing, errors: { ...noErrors, transient: 1 } });
      last = { ...last, lastError: reason };
      enter("retrying", reason);
      await backoff.pause(stopping.signal);
    }
    enter("stopped", "");
  }

  const ended = supervise();
  return {
    get status() {
      return { ...last, ...sum(earlier, current), state, oldestReceivedAt: current?.oldestReceivedAt };
    },
    async restart() {
      restarting = worker !== undefined;
      await worker?.terminate();
    },
    async stop(deadline) {
      stopping.abort();
      worker?.postMessage({ kind: "stop" } satisfies ToWorker);
      const expire = (): void => abandon(worker);
      if (deadline.aborted) expire();
      deadline.addEventListener("abort", expire);
      await ended;
      deadline.removeEventListener("abort", expire);
    },
  };
}

/** What a worker publishes and is not answered yet. */
interface Publishes {
  begin(id: number, message: HandlerMessage): Promise<void>;
  withdraw(id: number): void;
  withdrawAll(): void;
}

function createPublishes(publish: SupervisorOptions["publish"]): Publishes {
  const pending = new Map<number, AbortController>();
  return {
    async begin(id, message) {
      const withdrawn = new AbortController();
      pending.set(id, withdrawn);
      try {
        await publish(message, withdrawn.signal);
      } finally {
        pending.delete(id);
      }
    },
    withdraw: (id) => pending.get(id)?.abort(),
    withdrawAll() {
      for (const withdrawn of pending.values()) withdrawn.abort();
    },
  };
}

async function answer(worker: Worker, id: number, published: Promise<void>): Promise<void> {
  const error = await published.then(
    () => undefined,
    (cause: unknown) => toError(cause).message,
  );
  worker.postMessage({ kind: "published", id, error } satisfies ToWorker);
}

async function answerInbox(worker: Worker, taking: Promise<readonly TakenAgain[]>): Promise<void> {
  const answered = await taking.then(
    (outcomes) => ({ outcomes }),
    (cause: unknown) => ({ outcomes: [], error: toError(cause).message }),
  );
  worker.postMessage({ kind: "takenAgain", ...answered } satisfies ToWorker);
}

function abandon(worker: Worker | undefined): void {
  worker?.postMessage({ kind: "abort" } satisfies ToWorker);
  setTimeout(() => void worker?.terminate(), abortGraceMs);
}

function sum(a: Counts, b: Counts = nothing): Counts {
  return {
    delivered: a.delivered + b.delivered,
    parked: a.parked + b.parked,
    passed: a.passed + b.passed,
    expired: a.expired + b.expired,
    errors: {
      transient: a.errors.transient + b.errors.transient,
      refused: a.errors.refused + b.errors.refused,
      misconfigured: a.errors.misconfigured + b.errors.misconfigured,
    },
  };
}
