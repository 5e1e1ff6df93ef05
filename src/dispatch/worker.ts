// The thread of one sink or handler. It is the composition root of its thread, as gateway.ts is of the main one, and so it
// may import every room; nothing else in dispatch does. It loads the configuration file itself, because functions cannot be
// sent to a thread, and takes its consumer from it by name.

import { setMaxListeners } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { env } from "node:process";
import { getHeapStatistics } from "node:v8";
import { parentPort, resourceLimits, workerData } from "node:worker_threads";
import type { MessagePort } from "node:worker_threads";
import { formatProblems, loadConfig } from "../config/load.ts";
import { resolveForConfiguration } from "../config/resolve.ts";
import type { GatewayConfig, HandlerConfig, SinkConfig } from "../config/schema.ts";
import { SluiceError, unreachable } from "../errors.ts";
import { openCursor } from "../journal/cursor.ts";
import type { LostRange } from "../journal/reader.ts";
import { openReader } from "../journal/reader.ts";
import { toOffset } from "../reading.ts";
import { createRegistry } from "../validate/registry.ts";
import { openHand } from "./hand.ts";
import { createParking } from "./parked.ts";
import { createProgress } from "./progress.ts";
import { aliveMs, cursorsDir } from "./protocol.ts";
import type { Consumer, FromWorker, ToWorker, WorkerSettings } from "./protocol.ts";
import { createPublisher } from "./publisher.ts";
import type { Publisher } from "./publisher.ts";
import { runHandler } from "./run-handler.ts";
import { runSink } from "./runner.ts";
import type { RunnerOptions } from "./runner.ts";
import { openState } from "./state.ts";

const heapLookMs = 200;
const heapShare = 0.85;

if (parentPort === null) throw new TypeError("worker.ts runs in a worker thread only");
const port = parentPort;
setInterval(() => port.postMessage({ kind: "alive" } satisfies FromWorker), aliveMs).unref();
setInterval(boundHeap, heapLookMs).unref();
await run(port, workerData as WorkerSettings);
port.postMessage({ kind: "stopped" } satisfies FromWorker);

/**
 * Ends the thread before its heap is full, for what leaks slowly: when the bound is reached in a callback Node ends the thread,
 * but between two of them the whole process.
 */
function boundHeap(): void {
  const { maxOldGenerationSizeMb: boundMb = Infinity } = resourceLimits;
  const usedMb = getHeapStatistics().used_heap_size / 2 ** 20;
  if (usedMb < boundMb * heapShare) return;
  const text = `its memory is nearly used up: ${usedMb.toFixed(0)} of ${boundMb} MiB`;
  throw new SluiceError("SLUICE_CONSUMER_FAILED", text);
}

async function run(main: MessagePort, settings: WorkerSettings): Promise<void> {
  const post = (message: FromWorker): void => main.postMessage(message);
  const publisher = createPublisher({
    post: (id, message) => post({ kind: "publish", id, message }),
    withdraw: (id) => post({ kind: "withdraw", id }),
  });
  const { stopping, abort } = listen(main, publisher);
  // For as long as the thread lives: a sink may import more of its modules when it is opened.
  using _hooks = resolveForConfiguration();
  const config = await load(settings.configFile);
  const { consumer, dataDir, share, statusMs, backoff } = settings;
  const dir = cursorsDir(dataDir);
  mkdirSync(dir, { recursive: true });
  // The stack closes in reverse: the cursor writes its last word before the last status says what is durable.
  await using opened = new AsyncDisposableStack();
  const reader = opened.use(openReader(share, toOffset(0), (range: LostRange) => progress.lost(range)));
  const oldest = reader.position;
  const { from = "start" } = findSink(config, consumer) ?? findHandler(config, consumer) ?? {};
  if (from === "now") reader.seek(toOffset(Number.MAX_SAFE_INTEGER));
  const cursor = openCursor({
    dir,
    name: consumer.name,
    journalId: share.id,
    start: reader.position,
    onDurable: () => progress.touch(),
    onError: (error) => progress.failed(error),
  });
  const progress = opened.use(createProgress({ cursor, post, intervalMs: statusMs }));
  opened.use(cursor);
  if (cursor.origin === "damaged") {
    progress.log("warn", "the cursor file was damaged: it begins again with the oldest record of the journal");
    cursor.commit(oldest);
  }
  const parking = opened.use(
    createParking({
      file: join(dataDir, "parked.db"),
      sink: consumer.name,
      gateway: share.id,
      maximumBytes: config.parked.bytes,
    }),
  );
  const registry = createRegistry(config.streams);
  const options = { gateway: share.id, reader, cursor, registry, parking, progress, backoff, stopping, abort };
  await runConsumer(config, settings, options, publisher);
}

async function load(file: string): Promise<GatewayConfig> {
  const loaded = await loadConfig(file, env);
  if (loaded.kind === "loaded") return loaded.config;
  throw new SluiceError("SLUICE_CONSUMER_FAILED", formatProblems(loaded.problems));
}

function findSink({ sinks }: GatewayConfig, { kind, name }: Consumer): SinkConfig | undefined {
  return kind === "sink" ? sinks.find((one) => one.name === name) : undefined;
}

function findHandler({ handlers }: GatewayConfig, { kind, name }: Consumer): HandlerConfig | undefined {
  return kind === "handler" ? handlers.find((one) => one.name === name) : undefined;
}

async function runConsumer(
  config: GatewayConfig,
  settings: WorkerSettings,
  options: RunnerOptions,
  { publish }: Publisher,
): Promise<void> {
  const { consumer, dataDir } = settings;
  const { kind, name } = consumer;
  const gone = (): SluiceError =>
    new SluiceError("SLUICE_CONSUMER_FAILED", `${config.file} has no ${kind} ${name} any longer; restart the gateway`);
  switch (kind) {
    case "sink": {
      const sink = findSink(config, consumer);
      if (sink === undefined) throw gone();
      const { batch, timeoutMs, holds } = sink;
      const only = sink.only === undefined ? undefined : new Set(sink.only);
      const warn = (text: string): void => options.progress.log("warn", text);
      const streams = config.streams.filter((stream) => only?.has(stream.name) !== false);
      const context = { gateway: options.gateway, dataDir, name, streams, warn };
      return runSink(async () => sink.open(sink.settings, context), { ...options, batch, timeoutMs, holds, only });
    }
    case "handler": {
      const found = findHandler(config, consumer);
      if (found === undefined) throw gone();
      return openHandler(found, settings, { ...options, publish });
    }
    case "inbox":
      throw new TypeError("the inbox has a worker of its own");
    default:
      return unreachable(kind);
  }
}

/** `<dataDir>/handlers/` has two files for each handler: what it has in hand, and its state if it keeps any. */
async function openHandler(
  { name, stream, handler, concurrency, timeoutMs, retry: { attempts }, stateBytes }: HandlerConfig,
  { dataDir, lastEnd }: WorkerSettings,
  options: RunnerOptions & Pick<Publisher, "publish">,
): Promise<void> {
  const { gateway, cursor } = options;
  const dir = join(dataDir, "handlers");
  using state = openState({ file: join(dir, `${name}.db`), gateway, maximumBytes: stateBytes });
  using hand = openHand({
    file: join(dir, `${name}.hand`),
    gateway,
    places: concurrency,
    from: state.position ?? cursor.position,
    forgiven: lastEnd?.wanted === true,
  });
  const lastReason = lastEnd?.reason ?? "the gateway itself ended without being stopped";
  await runHandler({ ...options, stream, handler, concurrency, timeoutMs, attempts, state, hand, lastEnd: lastReason });
}

function listen(
  main: MessagePort,
  publisher: Publisher,
): { readonly stopping: AbortSignal; readonly abort: AbortSignal } {
  const stopping = new AbortController();
  const abort = new AbortController();
  // One of each call.
  setMaxListeners(0, stopping.signal, abort.signal);
  main.on("message", (message: ToWorker) => {
    switch (message.kind) {
      case "stop":
        return stopping.abort();
      case "abort":
        return abort.abort(new Error("the gateway is stopping and waits no longer"));
      case "published":
        return publisher.settle(message.id, message.error);
      case "takenAgain":
        return undefined;
      default:
        return unreachable(message);
    }
  });
  return { stopping: stopping.signal, abort: abort.signal };
}
