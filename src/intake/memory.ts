// What the intake remembers of messages that it has taken: a fold over the journal's records, so that a start can make it
// again from a checkpoint and the records behind it.

import { KeyWindow } from "./key-window.ts";
import { Unfinished } from "./unfinished.ts";

export interface Memory {
  readonly unfinished: Unfinished;
  /** By stream; of those with `dedupe`. */
  readonly windows: ReadonlyMap<string, KeyWindow>;
}

/** `windows`: how many keys each stream wants remembered. */
export const createMemory = (windows: ReadonlyMap<string, number>): Memory => ({
  unfinished: new Unfinished(),
  windows: new Map([...windows].map(([stream, window]) => [stream, new KeyWindow(window)])),
});
