// What a handler has done with what was read for it, and how that becomes durable: the state first, then the cursor. A cursor
// that is ahead of the state would lose what the entries between have changed.

import type { Cursor } from "../journal/cursor.ts";
import type { Progress } from "./progress.ts";
import type { CallState, StateFile } from "./state.ts";
import { createWindow } from "./window.ts";
import type { Counts, Item, Window } from "./window.ts";

/** How an item ends. `changes`: of the state, by the call that has done it. Throws when they cannot be applied, and it goes on. */
export type Finish = (counts: Partial<Counts>, changes?: CallState["changes"]) => void;

export interface Ledger extends Pick<Window, "size" | "bytes"> {
  /** Behind all that were added before. */
  add(item: Item): Finish;
  /** Makes durable now what is done. Throws when the disk refuses. */
  save(): void;
  /** Saves nothing any more. */
  close(): void;
}

export interface LedgerOptions {
  readonly cursor: Cursor;
  readonly state: StateFile;
  readonly progress: Progress;
  readonly onSaved: () => void;
  /** What is done could not be made durable. */
  readonly onError: (cause: unknown) => void;
}

/** As a cursor: what is done is durable after this time at the latest. */
const saveMs = 200;

export function createLedger({ cursor, state, progress, onSaved, onError }: LedgerOptions): Ledger {
  const window = createWindow();
  let settled: ReturnType<Window["advance"]>;
  let timer: NodeJS.Timeout | undefined;

  function save(): void {
    clearTimeout(timer);
    timer = undefined;
    const to = settled?.to ?? cursor.position;
    if (state.isOpen) state.checkpoint(to, window.deliveredAhead());
    if (to > cursor.position) cursor.commit(to);
    if (settled !== undefined) progress.count(settled);
    settled = undefined;
    onSaved();
  }

  function saveSoon(): void {
    if (!state.isOpen) return save(); // the cursor has a timer of its own
    timer ??= setTimeout(() => {
      try {
        save();
      } catch (cause) {
        onError(cause);
      }
    }, saveMs);
  }

  return {
    add(item) {
      const finish = window.add(item);
      progress.holding(window.oldestReceivedAt);
      return ({ delivered = 0, parked = 0, passed = 0 }, changes) => {
        if (changes !== undefined) state.apply(changes);
        finish({ delivered, parked, passed });
        const advanced = window.advance();
        if (advanced !== undefined) {
          settled = {
            to: advanced.to,
            delivered: advanced.delivered + (settled?.delivered ?? 0),
            parked: advanced.parked + (settled?.parked ?? 0),
            passed: advanced.passed + (settled?.passed ?? 0),
          };
          progress.holding(window.oldestReceivedAt);
        }
        saveSoon();
      };
    },
    save,
    close: () => clearTimeout(timer),
    get size() {
      return window.size;
    },
    get bytes() {
      return window.bytes;
    },
  };
}
