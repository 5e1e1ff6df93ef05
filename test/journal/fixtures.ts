// What the journal's tests share: a folder, journals that are closed, messages, and everything that a journal holds.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test as base } from "vitest";
import { openJournal, type Journal, type JournalOptions } from "../../src/journal/journal.ts";
import { openReader, type JournalShare, type LostRange } from "../../src/journal/reader.ts";
import type { JournalEntry } from "../../src/journal/record.ts";
import { toOffset } from "../../src/reading.ts";
import { message } from "./message.ts";

export { message };

type Open = (options?: Partial<JournalOptions>) => Promise<Journal>;

export const test = base
  .extend("dir", async ({}, { onCleanup }) => {
    const dir = await mkdtemp(join(tmpdir(), "sluice-journal-"));
    onCleanup(() => rm(dir, { recursive: true, force: true }));
    return dir;
  })
  /** Opens journals in `dir`. They are closed after the test when it has not done so. */
  .extend("open", async ({ dir }, { onCleanup }): Promise<Open> => {
    const journals: Journal[] = [];
    onCleanup(async () => {
      await Promise.allSettled(journals.map((journal) => journal[Symbol.asyncDispose]()));
    });
    return async (options) => {
      const journal = await openJournal({ dir, streams: ["climate", "power"], maxBytes: 64 * 2 ** 20, ...options });
      journals.push(journal);
      return journal;
    };
  });

export const close = (journal: Journal): Promise<void> => journal[Symbol.asyncDispose]();

/** Appends one commit of messages with the given sequence numbers. */
export async function commit(journal: Journal, from: number, to: number): Promise<void> {
  for (let sequence = from; sequence < to; sequence += 1) journal.append(message(sequence), "climate");
  await journal.flush();
}

export function readAll(share: JournalShare, from = 0): { entries: JournalEntry[]; lost: LostRange[] } {
  const lost: LostRange[] = [];
  using reader = openReader(share, toOffset(from), (range) => lost.push(range));
  const entries: JournalEntry[] = [];
  for (let part = reader.read(limit); part.length > 0; part = reader.read(limit)) entries.push(...part);
  return { entries, lost };
}

const limit = { records: 1000, bytes: 2 ** 20 };

export const payloads = (entries: readonly JournalEntry[]): string[] =>
  entries.map(({ message: { payload } }) => Buffer.from(payload).toString());

export const sequences = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, index) => `{"seq":${from + index}}`);
