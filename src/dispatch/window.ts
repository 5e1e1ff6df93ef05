// The entries between the oldest that is not finished and the newest that was begun: a cursor may only move behind the former.

import type { Offset, UnixMs } from "../reading.ts";

export interface Counts {
  readonly delivered: number;
  readonly parked: number;
  readonly passed: number;
}

/** What was read, from the item before it up to `to`. */
export interface Item {
  readonly offset: Offset;
  readonly to: Offset;
  readonly bytes: number;
  readonly receivedAt: UnixMs | undefined;
}

export interface Window {
  /** Behind all that were added before. Returns how it is finished, once. */
  add(item: Item): (counts: Counts) => void;
  /** Takes away what is finished without a gap; undefined when that is nothing. */
  advance(): (Counts & { readonly to: Offset }) | undefined;
  /** Delivered, behind one that is not finished. What was parked or passed may come again. */
  deliveredAhead(): readonly Offset[];
  readonly size: number;
  readonly bytes: number;
  /** When the oldest was received. */
  readonly oldestReceivedAt: UnixMs | undefined;
}

export function createWindow(): Window {
  const items: (Item & { counts: Counts | undefined })[] = [];
  let bytes = 0;
  return {
    add(item) {
      const added: (typeof items)[number] = { ...item, counts: undefined };
      items.push(added);
      bytes += item.bytes;
      return (counts) => {
        added.counts = counts;
      };
    },
    advance() {
      const unfinished = items.findIndex(({ counts }) => counts === undefined);
      const finished = items.splice(0, unfinished === -1 ? items.length : unfinished);
      const last = finished.at(-1);
      if (last === undefined) return undefined;
      const sum = { delivered: 0, parked: 0, passed: 0, to: last.to };
      for (const { counts, bytes: itsBytes } of finished) {
        sum.delivered += counts?.delivered ?? 0;
        sum.parked += counts?.parked ?? 0;
        sum.passed += counts?.passed ?? 0;
        bytes -= itsBytes;
      }
      return sum;
    },
    deliveredAhead: () => items.filter(({ counts }) => (counts?.delivered ?? 0) > 0).map(({ offset }) => offset),
    get size() {
      return items.length;
    },
    get bytes() {
      return bytes;
    },
    get oldestReceivedAt() {
      return items[0]?.receivedAt;
    },
  };
}
