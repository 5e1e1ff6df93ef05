// The thread of the inbox of rejected messages. It needs no configuration file and loads none: what is to be tried again
// is decoded by the main thread, which has to decode it anyway to take it. Like worker.ts it is a composition root.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import type { MessagePort } from "node:worker_threads";
import { openCursor } from "../journal/cursor.ts";
import { openReader } from "../journal/reader.ts";
import type { LostRange } from "../journal/reader.ts";
import { toOffset } from "../reading.ts";
import type { Message } from "../reading.ts";
import { createProgress } from "./progress.ts";
import { aliveMs, cursorsDir } from "./protocol.ts";
import type { FromWorker, TakenAgain, ToWorker, WorkerSettings } from "./protocol.ts";
import { createRejects } from "./rejects.ts";
import { runRejects } from "./run-rejects.ts";

/** A cursor is on disk after this time at the latest: seldom, so that its syncs do not compete with the journal's. */
const cursorMs = 500;

if (parentPort === null) throw new TypeError("inbox-worker.ts runs in a worker thread only");
const port = parentPort;
setInterval(() => port.postMessage({ kind: "alive" } satisfies FromWorker), aliveMs).unref();
await run(port, workerData as WorkerSettings);
port.postMessage({ kind: "stopped" } satisfies FromWorker);

async function run(main: MessagePort, settings: WorkerSettings): Promise<void> {
  const post = (message: FromWorker): void => main.postMessage(message);
  const { consumer, dataDir, share, statusMs, backoff, keep = { records: 0, bytes: 0 } } = settings;
  const { stopping, takeAgain } = listen(main, post);
  const dir = cursorsDir(dataDir);
  mkdirSync(dir, { recursive: true });
  // The stack closes in reverse: the cursor writes its last word before the last status says what is durable.
  await using opened = new AsyncDisposableStack();
  const reader = opened.use(openReader(share, toOffset(0), (range: LostRange) => progress.lost(range)));
  const cursor = openCursor({
    dir,
    name: consumer.name,
    journalId: share.id,
    start: reader.position,
    intervalMs: cursorMs,
    onDurable: () => progress.touch(),
    onError: (error) => progress.failed(error),
  });
  const progress = opened.use(createProgress({ cursor, post, intervalMs: statusMs }));
  opened.use(cursor);
  const rejects = opened.use(createRejects({ file: join(dataDir, "rejects.db"), gateway: share.id, keep }));
  await runRejects({ reader, cursor, rejects, progress, backoff, takeAgain, stopping });
}

interface Main {
  readonly stopping: AbortSignal;
  /** One call at a time. */
  readonly takeAgain: (messages: readonly Message[]) => Promise<readonly TakenAgain[]>;
}

function listen(main: MessagePort, post: (message: FromWorker) => void): Main {
  const stopping = new AbortController();
  let waiting: PromiseWithResolvers<readonly TakenAgain[]> | undefined;
  main.on("message", (message: ToWorker) => {
    if (message.kind === "stop" || message.kind === "abort") stopping.abort();
    if (message.kind !== "takenAgain") return;
    if (message.error === undefined) waiting?.resolve(message.outcomes);
    else waiting?.reject(new Error(message.error));
  });
  return {
    stopping: stopping.signal,
    async takeAgain(messages) {
      waiting = Promise.withResolvers();
      post({ kind: "takeAgain", messages });
      return waiting.promise;
    },
  };
}
