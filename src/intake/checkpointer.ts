// When checkpoints are written: now and then while messages come, and at the end. See checkpoint.ts for the file.

import { toError } from "../errors.ts";
import type { Journal } from "../journal/journal.ts";
import type { Offset } from "../reading.ts";
import { writeCheckpoint } from "./checkpoint.ts";
import type { Memory } from "./memory.ts";

/** So many records are read again at a start in a fraction of a second. */
const recordsApart = 100_000;
const intervalMs = 60_000;
/** A journal must not fill up with what sinks have taken and only a start needs. */
const shareOfJournal = 1 / 8;

export interface CheckpointerOptions {
  /** Of the file. */
  readonly path: string;
  readonly journal: Pick<Journal, "id" | "next" | "durable" | "onDurable" | "flush" | "stats">;
  /** As it is after every record that was appended so far. */
  readonly memory: Memory;
  /** Records from here on are not in a checkpoint yet. */
  readonly position: Offset;
  /** Of the journal. */
  readonly maxBytes: number;
  readonly onWritten: () => void;
  /** It is tried again after a minute. */
  readonly onError: (error: Error) => void;
  /** Default 100,000. */
  readonly recordsApart?: number;
}

/** Disposing writes a last one. */
export interface Checkpointer extends AsyncDisposable {
  /** A start reads the journal from here on: what is at or above it must not be trimmed. */
  readonly position: Offset;
}

export function openCheckpointer(options: CheckpointerOptions): Checkpointer {
  const { path, journal, memory } = options;
  let { position } = options;
  let writing: Promise<void> | undefined;
  let triedMs = performance.now();
  let failed = false;

  async function write(): Promise<void> {
    const to = journal.next;
    triedMs = performance.now();
    try {
      await writeCheckpoint(path, { journalId: journal.id, position: to }, memory, () => journal.flush());
      position = to;
      failed = false;
      options.onWritten();
    } catch (cause) {
      failed = true;
      options.onError(toError(cause));
    } finally {
      writing = undefined;
    }
  }

  function isDue(): boolean {
    const records = journal.durable - position;
    if (performance.now() - triedMs >= intervalMs) return records > 0;
    if (failed) return false;
    const { bytes, firstOffset } = journal.stats();
    const share = records / Math.max(1, journal.durable - firstOffset);
    return records >= (options.recordsApart ?? recordsApart) || share * bytes > options.maxBytes * shareOfJournal;
  }

  const watch = journal.onDurable(() => {
    if (writing === undefined && isDue()) writing = write();
  });
  return {
    get position() {
      return position;
    },
    async [Symbol.asyncDispose]() {
      watch[Symbol.dispose]();
      await writing;
      if (journal.next > position) await write();
    },
  };
}
