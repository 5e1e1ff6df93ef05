// Tells the event bus what becomes of the journal: each commit, each change of state, what the disk refused, what was
// deleted unread, and that it is filling up, with the name of the consumer that it waits for.

import type { EventBus } from "../events.ts";
import type { Journal, JournalNotice, JournalState } from "./journal.ts";

/** Unread records take this share of `maxBytes`: told once, and again when they had come down to the lower share. */
const fillingAt = 0.8;
const emptiedAt = 0.7;

/** One that reads the journal. */
export interface Holder {
  readonly name: string;
  /** Records that it has not confirmed. */
  readonly lagRecords: number;
}

export interface JournalWatch extends Disposable {
  /** The journal's hint; of a full journal with the consumer that is furthest behind. */
  hint(): string;
}

/** A journal that is not open at the start is told at once. `holders` may be asked at any time from now on. */
export function watchJournal(journal: Journal, events: EventBus, holders: () => readonly Holder[]): JournalWatch {
  let { durable } = journal;
  let state: JournalState = "open";
  let isFilling = false;

  function hint(): string {
    const slowest = findSlowest(holders());
    if (journal.state !== "full" || slowest === undefined) return journal.hint;
    return `${journal.hint} The furthest behind is ${slowest.name}, by ${slowest.lagRecords} records.`;
  }

  function onState(): void {
    if (journal.state === state) return;
    ({ state } = journal);
    events.emit("journal", state, state === "open" ? "the journal takes messages again" : hint());
  }

  function onDurable(to: typeof durable): void {
    const { lastCommitMs, heldBytes, maxBytes } = journal.stats();
    events.emit("durable", to, to - durable, lastCommitMs);
    durable = to;
    const share = heldBytes / maxBytes;
    if (!isFilling && share >= fillingAt) events.emit("filling", share, findSlowest(holders())?.name ?? "");
    isFilling = share >= (isFilling ? emptiedAt : fillingAt);
  }

  function onNotice(notice: JournalNotice): void {
    if (notice.kind === "write-error") events.emit("writeError", notice.detail);
    else events.emit("expired", notice.from, notice.to, findSlowest(holders())?.name ?? "");
  }

  const watch = new DisposableStack();
  watch.use(journal.onState(onState));
  watch.use(journal.onDurable(onDurable));
  watch.use(journal.onNotice(onNotice));
  onState();
  return { hint, [Symbol.dispose]: () => watch.dispose() };
}

function findSlowest(holders: readonly Holder[]): Holder | undefined {
  return holders
    .filter(({ lagRecords }) => lagRecords > 0)
    .toSorted((a, b) => b.lagRecords - a.lagRecords)
    .at(0);
}
