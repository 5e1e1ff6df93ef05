// The writer's work without its thread: what tests of the bytes on disk use, many times in a second.

import { join } from "node:path";
import { nodeDisk, type Disk } from "../../src/journal/disk.ts";
import { openHead, type Head } from "../../src/journal/head.ts";
import type { JournalShare } from "../../src/journal/reader.ts";
import { recover, type Recovered } from "../../src/journal/recovery.ts";
import { createRingMemory, RingDrain, RingFiller } from "../../src/journal/ring.ts";
import type { RetentionRules } from "../../src/journal/retention.ts";
import { toSegmentName } from "../../src/journal/segment.ts";
import { SegmentStore, type Range } from "../../src/journal/store.ts";
import { SegmentTable } from "../../src/journal/table.ts";
import { toOffset, type Offset } from "../../src/reading.ts";
import { message, payloads, readAll } from "./fixtures.ts";

export interface StoreHarness {
  /** What was found at the beginning. */
  readonly recovered: Recovered;
  readonly store: SegmentStore;
  readonly table: SegmentTable;
  readonly share: JournalShare;
  /** All payloads. */
  readonly read: () => string[];
  readonly readAll: () => ReturnType<typeof readAll>;
  /** Makes so many more messages durable, numbered by their offsets, and those that the disk refused before. */
  readonly commit: (count: number) => string | undefined;
  /** Nobody needs anything below. Returns what was deleted though somebody did. */
  readonly trim: (below: Offset) => Range | undefined;
}

export const hold: RetentionRules = { maxBytes: 2 ** 30, whenFull: "hold", retain: {} };

interface Special {
  readonly rules?: RetentionRules;
  readonly wrap?: (head: Head) => Head;
}

/** Recovers a folder, writes its last commit again and takes commits: the writer without its thread. */
export function openStore(
  dir: string,
  disk: Disk = nodeDisk,
  segmentBytes = 2 ** 20,
  { rules = hold, wrap = (head: Head): Head => head }: Special = {},
): StoreHarness {
  const recovered = recover(dir);
  const { id, epoch, nextNumber, segments, lastCommit, next, garbage } = recovered;
  const table = SegmentTable.create(256);
  const head = wrap(openHead({ dir, journalId: id, epoch }));
  const store = new SegmentStore({
    dir,
    disk,
    table,
    head,
    journalId: id,
    epoch,
    streams: ["climate"],
    segmentBytes,
    rules,
    nextNumber,
    segments,
    durable: lastCommit?.base ?? next,
  });
  if (lastCommit === undefined) {
    store.begin(next);
  } else {
    store.commit(
      lastCommit.frames.map(({ bytes }) => bytes),
      lastCommit.end,
    );
    disk.truncate(join(dir, toSegmentName(lastCommit.segment)), lastCommit.keepBytes);
  }
  for (const name of garbage) disk.unlink(join(dir, name));
  const memory = createRingMemory();
  const filler = new RingFiller(memory, next);
  const drain = new RingDrain(memory);
  const pending: Buffer[] = [];
  let sequence: number = next;
  const share = { dir, id, table: table.buffer };
  return {
    recovered,
    store,
    table,
    share,
    read: () => payloads(readAll(share).entries),
    readAll: () => readAll(share),
    trim(below) {
      store.release(below);
      return store.sweep(Date.now(), 0).expired;
    },
    commit(count) {
      for (let left = count; left > 0; left -= 1) {
        filler.fill(message(sequence), toOffset(sequence), 0, undefined);
        sequence += 1;
      }
      filler.submit(toOffset(sequence));
      pending.push(...drain.take());
      const refusal = store.commit(pending, toOffset(sequence));
      filler.release(pending.length);
      pending.length = 0;
      return refusal;
    },
  };
}
