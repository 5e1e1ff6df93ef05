// How far the journal is durable, beside the segments: the file `head`, with slots as in slots.ts. Without it a last
// segment that was deleted or cut short looks like one that was never written, and its offsets would be used again.
//
// The writer's thread writes it after each commit's fdatasync, so that it is never ahead of what is durable; it syncs it
// only when a segment ends, before it deletes one, and at the end: after a power cut the head may be behind, never wrong.
// It is best effort: a head that cannot be written costs what it would have told, and no commit.

import { statSync } from "node:fs";
import { join } from "node:path";
import { SluiceError, toError } from "../errors.ts";
import { toOffset, type Offset } from "../reading.ts";
import { openSlots, readSlots, type Slot, type StampedSlot } from "./slots.ts";

export const headName = "head";
const magic = "SLUICEH1";

export interface HeadOptions {
  readonly dir: string;
  readonly journalId: string;
  /** Of this run. */
  readonly epoch: number;
}

export interface Head extends Disposable {
  /** Never goes back. `segment` is the number of the last segment with records. */
  advance(to: { readonly durable: Offset; readonly first: Offset; readonly segment: number }): void;
  sync(): void;
}

/** Never throws, and nothing of it does. */
export function openHead({ dir, journalId, epoch }: HeadOptions): Head {
  let slot: Slot = { offset: toOffset(0), first: toOffset(0), segment: 0, journalId, epoch };
  const file = attempt(() => openSlots(join(dir, headName), magic, slot));
  slot = { ...slot, ...file?.found, journalId, epoch };
  return {
    advance({ durable, first, segment }) {
      if (durable <= slot.offset && first <= slot.first) return;
      slot = {
        ...slot,
        offset: toOffset(Math.max(durable, slot.offset)),
        first: toOffset(Math.max(first, slot.first)),
        segment: Math.max(segment, slot.segment),
      };
      attempt(() => file?.write(slot));
    },
    sync: () => attempt(() => file?.sync()),
    [Symbol.dispose]: () => attempt(() => file?.[Symbol.dispose]()),
  };
}

/** What a start finds: `note` says why there is none, when there should be one. */
export interface FoundHead {
  readonly slot: StampedSlot | undefined;
  readonly note: string | undefined;
}

/** Throws SLUICE_JOURNAL_VERSION when a newer version of Sluice wrote it. */
export function readHead(dir: string): FoundHead {
  const path = join(dir, headName);
  try {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return { slot: undefined, note: undefined };
    if (!stats.isFile()) return { slot: undefined, note: `${headName} is not a file` };
    const slot = readSlots(path, magic);
    return { slot, note: slot === undefined ? `${headName} is damaged` : undefined };
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    return { slot: undefined, note: `${headName} cannot be read: ${toError(error).message}` };
  }
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
