// The stores that are compared, each durable by group commit of what has come in since the last commit. The databases
// get the journal's own frames, encoded by the same code on the main thread, as one value per frame: what differs is how
// bytes become durable and how they are read back. Commits start by the journal's rule and one is in flight.

import { ClassicLevel } from "classic-level";
import { open as openDatabase } from "lmdb";
import { openJournal } from "../src/journal/journal.ts";
import { NameCache } from "../src/journal/names.ts";
import { openReader } from "../src/journal/reader.ts";
import { decodeRecord, recordLength, type JournalEntry } from "../src/journal/record.ts";
import { createRingMemory, RingDrain, RingFiller } from "../src/journal/ring.ts";
import { frameHeaderBytes } from "../src/journal/segment.ts";
import { toOffset, type Message } from "../src/reading.ts";

export interface Store extends AsyncDisposable {
  /** Records so far. */
  readonly next: number;
  /** The caller must wait: as much is pending as the journal allows. */
  readonly congested: boolean;
  append(message: Message): void;
  /** Resolves when everything appended is durable. */
  flush(): Promise<void>;
  /** Everything from the first record on, in order, in parts as a sink would read it. */
  read(): AsyncIterable<readonly JournalEntry[]>;
}

/** `onDurable` is called once per commit: how many records are durable. */
type OpenStore = (dir: string, onDurable: (to: number) => void) => Promise<Store>;

/** nothing: takes the messages and does nothing with them; what the loop that makes them costs. */
export type StoreName = "nothing" | "journal" | "level" | "lmdb";

export const openStore: Readonly<Record<StoreName, OpenStore>> = {
  nothing: openNothing,
  journal: openOwnJournal,
  level: openLevel,
  lmdb: openLmdb,
};

const stream = "climate";
const maxBytes = 64 * 2 ** 30;
const maxPendingBytes = 16 * 2 ** 20;
const minCommitIntervalMs = 2;
const timerToleranceMs = 0.5;
const readLimit = { records: 1000, bytes: 2 ** 20 };

async function openNothing(): Promise<Store> {
  let next = 0;
  // Used, so that the loop cannot be optimised away.
  let bytes = 0;
  return {
    get next() {
      return next;
    },
    get congested() {
      return bytes < 0;
    },
    append(message) {
      next += 1;
      bytes += message.payload.length;
    },
    flush: () => Promise.resolve(),
    async *read() {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

async function openOwnJournal(dir: string, onDurable: (to: number) => void): Promise<Store> {
  const journal = await openJournal({ dir, streams: [stream], maxBytes, maxPendingBytes, minCommitIntervalMs });
  journal.onDurable(onDurable);
  return {
    get next() {
      return journal.next;
    },
    get congested() {
      return journal.congested;
    },
    append: (message) => void journal.append(message, stream),
    flush: () => journal.flush(),
    async *read() {
      using reader = openReader(journal.share, toOffset(0));
      for (let part = reader.read(readLimit); part.length > 0; part = reader.read(readLimit)) yield part;
    },
    [Symbol.asyncDispose]: () => journal[Symbol.asyncDispose](),
  };
}

/** `sync: true`: LevelDB answers after fdatasync of its log. Nobody else compresses either. */
async function openLevel(dir: string, onDurable: (to: number) => void): Promise<Store> {
  const db = new ClassicLevel<string, Buffer>(dir, { valueEncoding: "buffer", compression: false });
  await db.open();
  return new FrameStore(
    {
      write: (first, frames) =>
        db.batch(
          frames.map((value, index) => ({ type: "put", key: toKey(first + index), value })),
          { sync: true },
        ),
      frames: () => db.values({ highWaterMarkBytes: readLimit.bytes }),
      close: () => db.close(),
    },
    onDurable,
  );
}

/** LevelDB sorts keys by their bytes. */
const toKey = (frame: number): string => String(frame).padStart(12, "0");

/** The default of lmdb-js: a commit is visible first and durable when `flushed` resolves. */
async function openLmdb(dir: string, onDurable: (to: number) => void): Promise<Store> {
  const db = openDatabase<Buffer, number>({ path: dir, encoding: "binary" });
  return new FrameStore(
    {
      async write(first, frames) {
        await db.transaction(() => {
          for (const [index, frame] of frames.entries()) void db.put(first + index, frame);
        });
        await db.flushed;
      },
      async *frames() {
        for (const { value } of db.getRange({})) yield value;
      },
      close: () => db.close(),
    },
    onDurable,
  );
}

interface Database {
  /** Resolves when frames `first`, `first` + 1, … are durable. They stay as they are until then. */
  write(first: number, frames: readonly Buffer[]): Promise<unknown>;
  /** All frames in order. Each stays as it is for as long as it is kept. */
  frames(): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** The journal's main-thread side in front of a database. */
class FrameStore implements Store {
  readonly #database: Database;
  readonly #onDurable: (to: number) => void;
  readonly #filler: RingFiller;
  readonly #drain: RingDrain;
  #next = 0;
  #frames = 0;
  #startedMs = Number.NEGATIVE_INFINITY;
  #scheduled = false;
  #commit: Promise<void> | undefined;

  constructor(database: Database, onDurable: (to: number) => void) {
    const memory = createRingMemory();
    this.#database = database;
    this.#onDurable = onDurable;
    this.#filler = new RingFiller(memory, toOffset(0));
    this.#drain = new RingDrain(memory);
  }

  get next(): number {
    return this.#next;
  }

  get congested(): boolean {
    return this.#filler.bytes > maxPendingBytes;
  }

  append(message: Message): void {
    this.#filler.fill(message, toOffset(this.#next), 0, undefined);
    this.#next += 1;
    if (!this.#scheduled && this.#commit === undefined) this.#schedule();
  }

  async flush(): Promise<void> {
    while (this.#filler.bytes > 0) {
      this.#start();
      await this.#commit;
    }
  }

  async *read(): AsyncIterable<readonly JournalEntry[]> {
    const names = new NameCache();
    for await (const frame of this.#database.frames()) yield decodeFrame(frame, names);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.flush();
    await this.#database.close();
  }

  #schedule(): void {
    this.#scheduled = true;
    const waitMs = this.#startedMs + minCommitIntervalMs - performance.now();
    const start = (): void => {
      this.#scheduled = false;
      if (this.#startedMs + minCommitIntervalMs - performance.now() > timerToleranceMs) this.#schedule();
      else this.#start();
    };
    if (waitMs > 0) setTimeout(start, waitMs);
    else setImmediate(start);
  }

  #start(): void {
    if (this.#commit !== undefined || !this.#filler.submit(toOffset(this.#next))) return;
    this.#startedMs = performance.now();
    this.#commit = this.#run(this.#next, this.#drain.take());
  }

  async #run(to: number, frames: readonly Buffer[]): Promise<void> {
    await this.#database.write(this.#frames, frames);
    this.#frames += frames.length;
    this.#filler.release(frames.length);
    this.#commit = undefined;
    this.#onDurable(to);
    if (this.#filler.bytes > 0 && !this.#scheduled) this.#schedule();
  }
}

/** Unlike the journal's reader it checks no checksum. */
function decodeFrame(bytes: Buffer, names: NameCache): readonly JournalEntry[] {
  const slot = { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
  const context = { baseTimeMs: bytes.readDoubleLE(24), streams: [stream], names };
  const end = bytes.readUInt32LE(44);
  const entries: JournalEntry[] = [];
  let offset = bytes.readUInt32LE(16);
  for (let at = frameHeaderBytes; at < end; at += recordLength(slot.view, at)) {
    entries.push(decodeRecord(slot, at, toOffset(offset), context));
    offset += 1;
  }
  return entries;
}
