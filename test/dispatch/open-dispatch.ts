// A real journal, real worker threads and a configuration file outside the repository, all gone when the test ends.

import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, onTestFinished } from "vitest";
import { openDispatcher } from "../../src/dispatch/dispatcher.ts";
import type { ConsumerStatus, Dispatcher, DispatcherOptions } from "../../src/dispatch/dispatcher.ts";
import { createEvents } from "../../src/events.ts";
import { listCursors } from "../../src/journal/cursor.ts";
import { openJournal } from "../../src/journal/journal.ts";
import type { Journal, JournalOptions } from "../../src/journal/journal.ts";
import type { Message, Rejection } from "../../src/reading.ts";

export interface Bench {
  readonly dir: string;
  readonly dataDir: string;
  readonly journal: Journal;
  /** `name: state detail` of every event, in order. */
  readonly states: string[];
  /** Every line that the dispatcher logged. */
  readonly logged: string[];
  /** Writes the configuration: the imports and the stream `climate` stand before `text`. */
  configure(text: string): Promise<void>;
  open(
    options: Pick<DispatcherOptions["config"], "sinks" | "handlers"> & Partial<DispatcherOptions>,
  ): Promise<Dispatcher>;
  /** Appends valid messages numbered from the journal's next offset, and resolves when they are durable. */
  append(count: number): Promise<void>;
  appendOne(payload: string, rejection?: Rejection): Promise<void>;
  /** The lines that sinks and handlers of the test have written with appendFileSync. */
  lines(file: string): readonly string[];
  parked(): readonly Readonly<Record<string, unknown>>[];
}

const head = `import { appendFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { defineGateway, defineSink, defineStream, json, on, sqlite, z } from "sluice";
const dir = import.meta.dirname;
const climate = defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema: z.object({ seq: z.int() }) });
const other = defineStream({ name: "other", topic: "other/{device}", codec: json, schema: z.object({ seq: z.int() }) });
const sinkOf = (type, write, more = {}) => defineSink({ type, settings: z.object({}), open: async () => ({ write, [Symbol.asyncDispose]: async () => {}, ...more }) });
`;

export const message = (payload: string, receivedAt = Date.now()): Message => ({
  topic: "devices/d1/telemetry",
  payload: Buffer.from(payload),
  clientId: "d1",
  deviceId: "d1",
  receivedAt,
  qos: 1,
  packetId: 0,
});

export async function openBench(special: Partial<JournalOptions> = {}): Promise<Bench> {
  const dir = await mkdtemp(join(tmpdir(), "sluice-dispatch-"));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  const dataDir = join(dir, "data");
  const journalDir = join(dataDir, "journal");
  await mkdir(dataDir);
  const journal = await openJournal({ dir: journalDir, streams: ["climate", "other"], maxBytes: 2 ** 30, ...special });
  onTestFinished(() => journal[Symbol.asyncDispose]());
  const states: string[] = [];
  const logged: string[] = [];
  const events = createEvents();
  events.on("consumer", (name, state, detail) => states.push(`${name}: ${state} ${detail}`.trim()));
  const record = (_fields: unknown, text?: string): void => void logged.push(String(text));
  return {
    dir,
    dataDir,
    journal,
    states,
    logged,
    configure: (text) => writeFile(join(dir, "gateway.ts"), head + text),
    async open({ sinks, handlers, ...options }) {
      const dispatcher = await openDispatcher({
        config: { file: join(dir, "gateway.ts"), dataDir, sinks, handlers },
        journal,
        events,
        log: { info: record, warn: record, error: record },
        listCursors,
        publish: () => Promise.resolve(),
        backoff: { minimumMs: 20, maximumMs: 100 },
        statusMs: 20,
        tickMs: 50,
        ...options,
      });
      onTestFinished(() => dispatcher.stop(AbortSignal.timeout(2_000)));
      return dispatcher;
    },
    async append(count) {
      for (let n = 0; n < count; n += 1) journal.append(message(`{"seq":${journal.next}}`), "climate");
      await journal.flush();
    },
    async appendOne(payload, rejection) {
      journal.append(message(payload), "climate", rejection);
      await journal.flush();
    },
    lines(file) {
      const path = join(dir, file);
      return existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(0, -1) : [];
    },
    parked() {
      const path = join(dataDir, "parked.db");
      if (!existsSync(path)) return [];
      using db = new DatabaseSync(path, { readOnly: true });
      return db.prepare("SELECT * FROM parked ORDER BY offset").all();
    },
  };
}

export function statusOf(dispatcher: Dispatcher, name: string): ConsumerStatus {
  const found = dispatcher.status().find((status) => status.name === name);
  if (found === undefined) throw new Error(`no status of ${name}`);
  return found;
}

export const totalErrors = ({ errors }: ConsumerStatus): number =>
  errors.transient + errors.refused + errors.misconfigured;

/** For expect.poll: until it is true, on a busy machine too. */
export const patiently = { timeout: 60_000, interval: 5 };

/** Resolves when the consumer has taken everything below `position`. */
export async function reaches(dispatcher: Dispatcher, name: string, position: number): Promise<void> {
  await expect.poll(() => statusOf(dispatcher, name).position, patiently).toBe(position);
}

/** Offsets in a SQLite sink's file, in the order of insertion being the key's order. */
export function offsetsIn(path: string): readonly number[] {
  using db = new DatabaseSync(path, { readOnly: true });
  return db
    .prepare("SELECT offset FROM readings ORDER BY offset")
    .all()
    .map((row) => Number(row["offset"]));
}

export const range = (from: number, to: number): readonly number[] =>
  Array.from({ length: to - from }, (_, i) => from + i);
