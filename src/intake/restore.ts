// Before any listener opens: makes the intake's memory again, from the checkpoint and the records behind it. Synchronous.
// Where something cannot be known it is forgotten: a message that comes twice is better than one that is taken for
// another and lost.

import type { Journal } from "../journal/journal.ts";
import type { LostRange, Reader } from "../journal/reader.ts";
import type { JournalEntry } from "../journal/record.ts";
import { toOffset, type Offset } from "../reading.ts";
import type { Registry } from "../validate/registry.ts";
import { readCheckpoint } from "./checkpoint.ts";
import { toDigest } from "./key-window.ts";
import { createMemory, type Memory } from "./memory.ts";

/** No more than this is read, and no more than so many records are decoded for their keys: a start takes less than 2 s. */
const foldBytes = 128 * 1024 * 1024;
const keyRecords = 150_000;
const chunk = { records: 5_000, bytes: 8 * 1024 * 1024 };

export interface RestoreOptions {
  /** The checkpoint's file. */
  readonly path: string;
  readonly journal: Pick<Journal, "id" | "next" | "onDurable" | "stats" | "release">;
  readonly openReader: (from: Offset, onLost: (range: LostRange) => void) => Reader;
  readonly registry: Pick<Registry, "windows" | "read" | "keyOf">;
  readonly limits: {
    /** Sessions whose unfinished messages are kept, and how many of each; the oldest are forgotten first. */
    readonly sessions: number;
    readonly maximumInflightQos2: number;
  };
  /** Default 128 MiB. */
  readonly foldBytes?: number;
  /** Default 150,000. */
  readonly keyRecords?: number;
}

/** Dispose it before the journal. */
export interface Restored extends Disposable {
  readonly memory: Memory;
  /** Records from here on were read: a start needs them until there is a newer checkpoint. */
  readonly position: Offset;
  readonly records: number;
  /** Sentences for the operator about what could not be known; none when all is. */
  readonly unknown: readonly string[];
  readonly elapsedMs: number;
}

export function restoreMemory(options: RestoreOptions): Restored {
  const startedMs = performance.now();
  const { path, journal, registry } = options;
  const memory = createMemory(registry.windows);
  const found = readCheckpoint(path, journal.id, journal.next, memory);
  const unknown: string[] = [];
  if (found.kind === "unusable") unknown.push(`the checkpoint ${path} ${found.reason}`);
  const known = found.kind === "found" ? found.position : toOffset(0);
  const from = toOffset(Math.max(known, latest(journal, options.foldBytes ?? foldBytes)));
  const keysFrom = toOffset(journal.next - (options.keyRecords ?? keyRecords));
  const fold = openFold(options, memory, { from, keysFrom });
  const { position } = fold;
  if (position > known) {
    memory.unfinished.clear();
    unknown.push(`records from offset ${known} to ${position} are not looked at`);
  }
  if (registry.windows.size > 0 && keysFrom > position)
    unknown.push(`keys of records from offset ${position} to ${keysFrom} are not looked at`);
  fold.run();
  if (fold.hasLost) unknown.push("records behind the checkpoint are damaged");
  const forgotten = applyLimits(options, memory);
  if (forgotten > 0)
    unknown.push(`${forgotten} unfinished messages are more than limits.sessions and limits.maximumInflightQos2 allow`);
  return {
    memory,
    position,
    records: fold.position - position,
    unknown,
    elapsedMs: performance.now() - startedMs,
    [Symbol.dispose]: () => fold[Symbol.dispose](),
  };
}

/** About where the last `bytes` of the journal begin: by the mean length of its records. */
function latest(journal: RestoreOptions["journal"], bytes: number): Offset {
  const { bytes: total, firstOffset } = journal.stats();
  const share = Math.min(1, bytes / Math.max(1, total));
  return toOffset(journal.next - Math.floor((journal.next - firstOffset) * share));
}

interface FoldRange {
  readonly from: Offset;
  /** Of records below it no key is remembered. */
  readonly keysFrom: Offset;
}

interface Fold extends Disposable {
  readonly position: Offset;
  readonly hasLost: boolean;
  run(): void;
}

/**
 * Applies records to the memory. A journal that opens on a full disk shows its last commit only when the disk has it again:
 * then that is applied too, before the connections go on, because until then they are not read.
 */
function openFold(
  { journal, openReader, registry }: RestoreOptions,
  memory: Memory,
  { from, keysFrom }: FoldRange,
): Fold {
  const lost: LostRange[] = [];
  let hasLost = false;
  const reader = openReader(from, (range) => lost.push(range));
  const end = journal.next;
  const forget = (): void => {
    // Any of them may have been released in what is lost.
    memory.unfinished.clear();
    lost.shift();
    hasLost = true;
  };
  const run = (): void => {
    for (let entries = reader.read(chunk); entries.length > 0; entries = reader.read(chunk)) {
      for (const entry of entries) {
        while (lost[0] !== undefined && lost[0].to <= entry.offset) forget();
        if (entry.offset >= end) continue;
        applyHandshake(memory, entry);
        if (entry.offset >= keysFrom) applyKey(memory, registry, entry);
      }
    }
    while (lost.length > 0) forget();
    if (reader.position >= end) closed.dispose();
  };
  const closed = new DisposableStack();
  closed.use(reader);
  closed.use(journal.onDurable(run));
  return {
    get position() {
      return reader.position;
    },
    get hasLost() {
      return hasLost;
    },
    run,
    [Symbol.dispose]: () => closed.dispose(),
  };
}

function applyHandshake({ unfinished }: Memory, { kind, message: { clientId, packetId }, offset }: JournalEntry): void {
  if (kind === "released") unfinished.release(clientId, packetId);
  else if (packetId !== 0) unfinished.add(clientId, packetId, offset);
}

function applyKey({ windows }: Memory, registry: RestoreOptions["registry"], entry: JournalEntry): void {
  const { kind, message, offset, stream } = entry;
  const window = kind === "accepted" ? windows.get(stream) : undefined;
  if (window === undefined) return;
  const result = registry.read(message, stream);
  const keyed = result.kind === "reading" ? registry.keyOf(result.reading) : undefined;
  if (keyed?.kind === "key") window.remember(toDigest(message.deviceId, keyed.key), offset);
}

/** What is forgotten is released in the journal too: else the next start would know it, long after the client has finished. */
function applyLimits({ journal, limits }: RestoreOptions, { unfinished }: Memory): number {
  const { sessions } = unfinished;
  let forgotten = 0;
  const release = (clientId: string, packetId: number, count: number): void => {
    unfinished.release(clientId, packetId);
    journal.release(clientId, packetId, Date.now());
    forgotten += count;
  };
  const tooMany = Math.max(0, sessions.size - limits.sessions);
  for (const [clientId, { size }] of [...sessions].slice(0, tooMany)) release(clientId, 0, size);
  for (const [clientId, ids] of sessions) {
    const excess = Math.max(0, ids.size - limits.maximumInflightQos2);
    for (const packetId of [...ids.keys()].slice(0, excess)) release(clientId, packetId, 1);
  }
  return forgotten;
}
