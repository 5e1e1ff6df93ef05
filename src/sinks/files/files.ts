// Readings into files of NDJSON or Parquet, each reading in exactly one closed file.
//
//   <path>/stream=climate/date=2026-11-24/hour=13/<gateway>.<sink>.<first offset>-<last offset>.ndjson.gz
//
// The hour is that of the gateway's receipt, in UTC: it only goes forward, so that few files are open however wrong the clock of
// a device is, and an hour gets no further files once a later one has its first. What is in open files is held in memory, and in the journal,
// until all of them are closed at once; see folder.ts for how.

import { join, resolve } from "node:path";
import { z } from "zod";
import { toError } from "../../errors.ts";
import { toOffset } from "../../reading.ts";
import type { Batch, Offset, Reading, UnixMs } from "../../reading.ts";
import { defineSink, SinkError } from "../sink.ts";
import type { Sink, SinkContext, Written } from "../sink.ts";
import { createTables, layoutSetting } from "../layout/layout.ts";
import { openFolder } from "./folder.ts";
import type { Folder } from "./folder.ts";
import type { Contents, Format } from "./format.ts";
import { createNdjson } from "./ndjson.ts";
import { openParquet } from "./parquet.ts";

const MIB = 1024 * 1024;
const HOUR_MS = 3_600_000;
/** Files that are open at the same time. Only a sink that is hours behind has more than two for a stream. */
const LARGEST_SET = 100;

const rotateSettings = z.strictObject({
  bytes: z
    .int()
    .min(1)
    .max(128 * MIB)
    .default(64 * MIB)
    .describe("All open files are closed when their readings take about so many bytes of memory."),
  timeMs: z
    .int()
    .min(1_000)
    .max(HOUR_MS)
    .default(60_000)
    .describe("All open files are closed when the oldest of their readings has waited so long, and at each full hour."),
});

const filesSettings = z
  .strictObject({
    path: z
      .string()
      .min(1)
      .transform((text) => resolve(text))
      .optional()
      .describe("The folder, made when it does not exist; by default files in dataDir. All of it is one file system."),
    format: z
      .enum(["ndjson", "parquet"])
      .default("ndjson")
      .describe("ndjson: lines of JSON, a document for each reading. parquet: columns, for analytics."),
    compression: z
      .enum(["none", "snappy", "gzip", "zstd"])
      .optional()
      .describe(
        "snappy is for parquet, and its default; files of ndjson are compressed as a whole, by default not at all.",
      ),
    layout: layoutSetting.describe(
      "Of parquet, the same layouts as those of sqlite: document, wide (a column for each field of the stream's schema) or narrow (a row for each value). Lines of ndjson are always documents.",
    ),
    rotate: rotateSettings.prefault({}).describe("When files are closed. Until then nobody sees them."),
  })
  .superRefine(({ format, compression, layout }, context) => {
    if (format === "parquet") return;
    const wrong = (key: string, message: string): void => context.addIssue({ code: "custom", path: [key], message });
    if (compression === "snappy") {
      wrong("compression", "snappy is a compression of parquet: expected none, gzip or zstd");
    }
    if (layout !== "document") wrong("layout", `${layout} is a layout of parquet: expected document`);
  });

type Settings = z.output<typeof filesSettings>;

/** Readings into files of NDJSON or Parquet. */
export const files = defineSink({
  type: "files",
  settings: filesSettings,
  // Nobody sees a reading before its file is closed.
  batch: { lingerMs: 200 },
  holds: true,
  reference: {
    writes:
      'Into files below a folder: `stream=climate/date=2026-11-24/hour=13/<gateway>.<sink>.<first offset>-<last offset>.ndjson`, as Hive, DuckDB, Spark and others partition them. A line of ndjson is `{"gateway","offset","stream","device","topic","time","receivedAt","data"}`. Parquet has columns of the same names, times as timestamps and `data` as JSON text; wide and narrow have those of their [layout](#layouts) instead of `data`.',
    once: "Exactly once in closed files: they and the position behind them are made durable together. A replay writes its readings once more.",
    notes: [
      "Until its file is closed a reading is held in memory, and in the journal: it counts as lag, and after a crash it is written again from there. All files are closed together, when `rotate` says so, at each full hour, and when the gateway stops. A closed file is complete, on disk and never changed; you may move or delete it.",
      "The date and the hour are those of the gateway's receipt, in UTC, not of `time`: so a device whose clock is wrong or that sends what it kept for days opens no other files, and an hour gets no further files once a later one has its first. Look for a measurement by the column `time`, in the hours since then.",
      "A stream has at least one file for each rotation in which it had a reading, so many streams with few readings make many small files: a larger `timeMs` makes fewer. They are not put together later.",
      "The folder may be shared by several gateways and sinks. Its hidden folder `.sluice` holds the position of each sink, under the gateway's id and the sink's name, and files that are being written; leave it there. Without it, and after the sink was renamed, the gateway's own cursor counts.",
      "A replay writes files of its own, with `replay` in their names, beside those that are there; delete what they replace, or take one row of each (gateway, offset).",
      "Parked is only what cannot be written as JSON, such as a BigInt.",
    ],
    example: 'files({ path: "/srv/telemetry", format: "parquet", compression: "zstd", rotate: { timeMs: 600_000 } })',
  },
  open: async ({ format, compression, layout, ...settings }, context) => {
    const place = { path: settings.path ?? join(context.dataDir, "files"), rotate: settings.rotate, context };
    if (format === "ndjson" && compression !== "snappy") return openFiles(createNdjson(compression), place);
    return openFiles(await openParquet(createTables(layout, context.streams), compression), place);
  },
});

interface Place {
  readonly path: string;
  readonly rotate: Settings["rotate"];
  readonly context: Pick<SinkContext, "gateway" | "name">;
}

/** A file that is not closed. */
interface OpenFile<Row> {
  readonly folder: string;
  readonly first: Offset;
  last: Offset;
  readonly contents: Contents<Row>;
}

/** What is held: the open files, by stream and hour. */
interface Held<Row> {
  readonly files: Map<string, OpenFile<Row>>;
  readonly replay: boolean;
  readonly since: UnixMs;
  bytes: number;
}

const hold = <Row>(replay: boolean): Held<Row> => ({ files: new Map(), replay, since: Date.now(), bytes: 0 });

function openFiles<Row>(format: Format<Row>, place: Place): Sink {
  const { path, context } = place;
  try {
    return createSink(format, openFolder(path, `${context.gateway}.${context.name}.`), place);
  } catch (cause) {
    throw explain(path, cause);
  }
}

function createSink<Row>(format: Format<Row>, folder: Folder, { path, rotate, context }: Place): Sink {
  const openedAt = Date.now();
  let held = hold<Row>(false);
  /** Everything below it is held or closed. */
  let taken = folder.position ?? toOffset(0);
  let state: "open" | "failed" | "closed" = "open";

  async function write(batch: Batch, signal: AbortSignal): Promise<Written> {
    const made = format.toRows(batch);
    if (made.kind === "except") return made;
    const replay = batch.replay === true;
    if (held.replay !== replay || held.files.size === 0) await startOver(replay, signal);
    for (const [index, row] of made.rows.entries()) {
      const entry = batch.entries[index];
      // What is below has come again.
      if (entry === undefined || (!replay && entry.offset < taken)) continue;
      await add(entry.offset, entry.reading, row, signal);
    }
    if (!replay && batch.next > taken) taken = batch.next;
    const isEnd = replay && batch.entries.length === 0;
    if (held.files.size > 0 && !isEnd && !isDue()) return { kind: "held" };
    await close(signal);
    return { kind: "all" };
  }

  async function startOver(replay: boolean, signal: AbortSignal): Promise<void> {
    if (held.files.size > 0) await close(signal);
    held = hold(replay);
  }

  async function add(offset: Offset, reading: Reading, row: Row, signal: AbortSignal): Promise<void> {
    const hour = Math.floor(reading.receivedAt / HOUR_MS);
    const key = `${reading.stream} ${hour}`;
    let file = held.files.get(key);
    if (file === undefined) {
      if (held.files.size === LARGEST_SET) await startOver(held.replay, signal);
      const contents = format.createContents(reading.stream);
      file = { folder: folderOf(reading.stream, hour * HOUR_MS), first: offset, last: offset, contents };
      held.files.set(key, file);
    }
    file.last = offset;
    held.bytes += file.contents.add(row);
    if (!held.replay) taken = toOffset(offset + 1);
  }

  function isDue(): boolean {
    const now = Date.now();
    const isLater = now - held.since >= rotate.timeMs || Math.floor(now / HOUR_MS) !== Math.floor(held.since / HOUR_MS);
    return isLater || held.bytes >= rotate.bytes;
  }

  /** Closes all files, with everything below `taken` in them. */
  async function close(signal: AbortSignal): Promise<void> {
    const closing = [...held.files.values()].map(({ folder: to, first, last, contents }) => ({
      path: join(to, nameOf(first, last)),
      pieces: () => contents.finish(),
    }));
    const { replay } = held;
    held = hold(replay);
    if (replay) await folder.closeBeside(closing, signal);
    else if (closing.length > 0 || taken !== folder.position) await folder.close(closing, taken, signal);
  }

  /** A replay writes beside what is there; its files never replace others. */
  function nameOf(first: Offset, last: Offset): string {
    const kind = held.replay ? [`replay-${openedAt}`] : [];
    const range = [first, last].map((offset) => String(offset).padStart(16, "0")).join("-");
    return [context.gateway, context.name, ...kind, range, format.extension].join(".");
  }

  return {
    position: () => Promise.resolve(folder.position),
    async write(batch, signal) {
      signal.throwIfAborted();
      if (state !== "open") throw new Error(`${path}: the sink is ${state}`);
      try {
        return await write(batch, signal);
      } catch (cause) {
        state = "failed";
        throw signal.aborted ? cause : explain(path, cause);
      }
    },
    /** What is held is complete as far as it goes, so it is closed; after a failure it comes again instead. */
    async [Symbol.asyncDispose]() {
      const isHolding = state === "open" && held.files.size > 0;
      state = "closed";
      if (isHolding) await close(new AbortController().signal);
    },
  };
}

function folderOf(stream: string, at: UnixMs): string {
  const text = new Date(at).toISOString();
  return join(`stream=${stream}`, `date=${text.slice(0, 10)}`, `hour=${text.slice(11, 13)}`);
}

/** What an operator can do about an error of the file system, by its code. */
const hints: Readonly<Record<string, string>> = {
  EACCES: "The folder and all in it must be writable.",
  EPERM: "The folder and all in it must be writable.",
  EROFS: "The folder must be writable: it is mounted read-only.",
  EEXIST: "A file is where a folder should be: give another path, or move it away.",
  ENOTDIR: "A file is where a folder should be: give another path, or move it away.",
  ENAMETOOLONG: "Give a shorter path.",
  EXDEV: "All folders in it must be of one file system.",
  ENOSPC: "Its disk is full: make space, and writing goes on.",
  EDQUOT: "Its disk quota is used up: make space, and writing goes on.",
  EIO: "Its disk failed to read or write: look into the system's log.",
};
const passing: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT", "EIO"]);

function explain(path: string, cause: unknown): Error {
  if (cause instanceof SinkError) return cause;
  const error = toError(cause);
  const { code = "" } = error as NodeJS.ErrnoException;
  const hint = hints[code];
  const message = [`${path}: ${error.message}.`, hint].filter(Boolean).join(" ");
  const isPassing = hint === undefined || passing.has(code);
  return isPassing ? new Error(message, { cause }) : new SinkError("misconfigured", message, { cause });
}
