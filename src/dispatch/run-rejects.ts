// Runs the inbox of rejected messages: copies them out of the journal, and has those that an operator wants tried again
// taken by the gateway. Copying must cost ingest nothing: it reads a few times in a second, and looks at no record but the
// rejected ones.

import { setImmediate, setTimeout } from "node:timers/promises";
import type { Cursor } from "../journal/cursor.ts";
import type { Reader } from "../journal/reader.ts";
import type { JournalEntry } from "../journal/record.ts";
import { toOffset } from "../reading.ts";
import type { Message } from "../reading.ts";
import type { InboxItem } from "./inbox.ts";
import type { Progress } from "./progress.ts";
import type { TakenAgain } from "./protocol.ts";
import type { RejectedEntry, Rejects, StillRejected } from "./rejects.ts";
import { createBackoff } from "./retry.ts";
import type { BackoffOptions } from "./retry.ts";

export interface RejectsRunnerOptions {
  readonly reader: Reader;
  readonly cursor: Pick<Cursor, "position" | "commit">;
  readonly rejects: Rejects;
  readonly progress: Progress;
  readonly backoff: BackoffOptions;
  /** Messages that the main thread is to take again; resolves with what became of each, which is durable then. */
  readonly takeAgain: (messages: readonly Message[]) => Promise<readonly TakenAgain[]>;
  /** Finish what is in hand, then return. */
  readonly stopping: AbortSignal;
}

const limit = { records: 2_000, bytes: 4 * 1024 * 1024, only: "rejected" } as const;
/** From one look at the journal to the next. */
const restMs = 100;
/** From one look for messages to be tried again to the next. */
const retryMs = 1_000;
/** Messages that gave way are told of so often at most. */
const tellMs = 60_000;

/** Runs until `stopping`. Never rejects. */
export async function runRejects(options: RejectsRunnerOptions): Promise<void> {
  const { stopping, progress } = options;
  const backoff = createBackoff(options.backoff);
  const tell = createTeller(progress);
  while (!stopping.aborted) {
    try {
      await runOnce(options, tell, () => backoff.reset());
    } catch (cause) {
      progress.failed(cause);
      await backoff.pause(stopping);
    }
  }
}

async function runOnce(
  options: RejectsRunnerOptions,
  tell: (dropped: number) => void,
  onSuccess: () => void,
): Promise<void> {
  const { reader, cursor, rejects, progress, stopping } = options;
  // The file knows best, but its position is written only with messages.
  const wanted = toOffset(Math.max(cursor.position, rejects.position() ?? 0));
  reader.seek(wanted);
  if (reader.position > wanted) progress.lost({ kind: "trimmed", from: wanted, to: reader.position });
  if (reader.position > cursor.position) cursor.commit(reader.position);
  let retryAtMs = 0;
  while (!stopping.aborted) {
    if (copy(options, tell)) onSuccess();
    let busy = reader.atLimit && reader.lag > 0;
    if (performance.now() >= retryAtMs) {
      const more = await retryMarked(options);
      retryAtMs = more ? 0 : performance.now() + retryMs;
      busy ||= more;
    }
    progress.running();
    if (busy) await setImmediate();
    else await setTimeout(restMs, undefined, { signal: stopping }).catch(() => {});
  }
}

/** True: something was read. */
function copy({ reader, cursor, rejects, progress }: RejectsRunnerOptions, tell: (dropped: number) => void): boolean {
  const from = cursor.position;
  const entries = reader.read(limit).filter(isRejected);
  const { position } = reader;
  if (entries.length > 0) tell(rejects.keep(entries, position));
  if (position === from) return false;
  progress.count({ delivered: entries.length, passed: Math.max(0, position - from - entries.length) });
  cursor.commit(position);
  return true;
}

const isRejected = (entry: JournalEntry): entry is RejectedEntry => entry.kind === "rejected";

/** The credentials that it came with are known to nobody any longer: it must not be taken on the word of its topic. */
const isForged = ({ reason }: InboxItem): boolean => reason === "identity";

/** One batch of them; true: there may be more. */
async function retryMarked({ rejects, takeAgain }: RejectsRunnerOptions): Promise<boolean> {
  const items = rejects.takeMarked();
  if (items.length === 0) return false;
  const tried = items.filter((item) => !isForged(item));
  const outcomes = tried.length === 0 ? [] : await takeAgain(tried.map(({ message }) => message));
  const taken: InboxItem[] = [];
  const failed: StillRejected[] = items
    .filter(isForged)
    .map((item) => ({ item, reason: "identity", issues: item.issues ?? [] }));
  for (const [index, item] of tried.entries()) {
    const outcome = outcomes[index];
    if (outcome?.kind === "rejected") failed.push({ item, ...outcome });
    else if (outcome !== undefined) taken.push(item);
  }
  rejects.settle(taken, failed);
  return true;
}

/** One line at the first message that gives way, then one a minute. */
function createTeller(progress: Progress): (dropped: number) => void {
  let untold = 0;
  let tellAtMs = 0;
  return (dropped) => {
    untold += dropped;
    if (untold === 0 || performance.now() < tellAtMs) return;
    progress.log("warn", `${untold} of the oldest rejected messages gave way to newer ones: \`rejects\` keeps no more`);
    untold = 0;
    tellAtMs = performance.now() + tellMs;
  };
}
