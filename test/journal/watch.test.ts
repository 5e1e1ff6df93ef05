import { EventEmitter } from "node:events";
import { describe, expect, test } from "vitest";
import { createEvents, type EventBus } from "../../src/events.ts";
import type { Journal, JournalNotice, JournalState, JournalStats } from "../../src/journal/journal.ts";
import { watchJournal, type Holder, type JournalWatch } from "../../src/journal/watch.ts";
import { toOffset, type Offset } from "../../src/reading.ts";

interface Told {
  readonly watch: JournalWatch;
  readonly told: readonly unknown[][];
  readonly commit: (to: number, heldBytes: number) => void;
  readonly enter: (state: JournalState, hint: string) => void;
  readonly notice: (notice: JournalNotice) => void;
}

/** A journal that does what the test says, and everything that the bus was told. */
function openWatch(holders: readonly Holder[] = []): Told {
  const source = new EventEmitter<{ durable: [Offset]; state: []; notice: [JournalNotice] }>();
  const journal = { state: "open" as JournalState, hint: "", durable: toOffset(5), heldBytes: 0 };
  const on = (name: "durable" | "state" | "notice") => (listener: () => void) => {
    source.on(name, listener);
    return { [Symbol.dispose]: () => source.off(name, listener) };
  };
  const stats = (): Partial<JournalStats> => ({ lastCommitMs: 2, heldBytes: journal.heldBytes, maxBytes: 1000 });
  const fake = { onDurable: on("durable"), onState: on("state"), onNotice: on("notice"), stats };
  const events: EventBus = createEvents();
  const told: unknown[][] = [];
  for (const name of ["durable", "journal", "filling", "expired", "writeError"] as const) {
    events.on(name, (...args: unknown[]) => told.push([name, ...args]));
  }
  const watch = watchJournal(Object.assign(journal, fake) as unknown as Journal, events, () => holders);
  return {
    watch,
    told,
    commit(to, heldBytes) {
      journal.heldBytes = heldBytes;
      source.emit("durable", toOffset(to));
    },
    enter(state, hint) {
      Object.assign(journal, { state, hint });
      source.emit("state");
    },
    notice: (notice) => void source.emit("notice", notice),
  };
}

const holders = [
  { name: "quick", lagRecords: 3 },
  { name: "slow", lagRecords: 70 },
];

describe("the bus is told", () => {
  test("of each commit, with the records that it made durable", () => {
    const { commit, told } = openWatch();
    commit(7, 0);
    commit(10, 0);
    expect(told).toEqual([
      ["durable", 7, 2, 2],
      ["durable", 10, 3, 2],
    ]);
  });

  test("once that the journal is filling up and for whom it waits, and again after it had emptied", () => {
    const { commit, told } = openWatch(holders);
    for (const held of [799, 800, 790, 900, 700, 699, 801]) commit(6, held);
    expect(told.filter(([name]) => name === "filling")).toEqual([
      ["filling", 0.8, "slow"],
      ["filling", 0.801, "slow"],
    ]);
  });

  test("of each change of state; a full journal names the consumer that is furthest behind", () => {
    const { enter, told, watch } = openWatch(holders);
    enter("full", "Full.");
    enter("full", "Full.");
    expect(watch.hint()).toBe("Full. The furthest behind is slow, by 70 records.");
    enter("failed", "The disk.");
    enter("open", "");
    expect(told).toEqual([
      ["journal", "full", "Full. The furthest behind is slow, by 70 records."],
      ["journal", "failed", "The disk."],
      ["journal", "open", "the journal takes messages again"],
    ]);
  });

  test("of what the disk refused, and of what was deleted unread", () => {
    const { notice, told } = openWatch(holders);
    notice({ kind: "write-error", detail: "EIO" });
    notice({ kind: "expired", from: toOffset(1), to: toOffset(9) });
    expect(told).toEqual([
      ["writeError", "EIO"],
      ["expired", 1, 9, "slow"],
    ]);
  });

  test("nothing more after the end", () => {
    const { watch, commit, told } = openWatch();
    watch[Symbol.dispose]();
    commit(9, 900);
    expect(told).toEqual([]);
  });
});
