// Which of the oldest segments may go, or must. A policy without state: store.ts asks it and deletes.
//
// Read (all of its records are below what the consumers still need): a segment goes at once, unless `retain` keeps it
// for replay, or the next start wants it; when room is needed it goes all the same. Unread: it stays, whatever that costs the devices (`hold`), or
// goes when room is needed (`expire`).

import type { Offset } from "../reading.ts";

/** Above this share of `maxBytes` room is made: a segment is at most an eighth, so that one more always fits. */
const roomAt = 7 / 8;

export interface RetentionRules {
  readonly maxBytes: number;
  readonly whenFull: "hold" | "expire";
  /** Read segments younger than `time` ms stay, the youngest `bytes` of them at most; neither: none stays. */
  readonly retain: { readonly time?: number | undefined; readonly bytes?: number | undefined };
}

export interface StoredSegment {
  readonly end: Offset;
  readonly bytes: number;
  /** When its last record was written. */
  readonly endedMs: number;
}

export interface StoreState {
  /** What the journal has beside the sealed segments. */
  readonly otherBytes: number;
  /** Nobody needs anything below. */
  readonly released: Offset;
  /** Records from here on are kept, though nobody needs them, as long as their room is not needed. */
  readonly keepFrom: number;
  readonly nowMs: number;
  /** What must become free on the disk beside the journal's own limit. */
  readonly lackingBytes: number;
}

export const isRoomNeeded = (bytes: number, { maxBytes }: RetentionRules): boolean => bytes > roomAt * maxBytes;

/** How many of the sealed segments are to be deleted, from the oldest on. */
export function countDeletable(segments: readonly StoredSegment[], state: StoreState, rules: RetentionRules): number {
  const { released, keepFrom, nowMs } = state;
  let lackingBytes = state.lackingBytes;
  let bytes = segments.reduce((sum, segment) => sum + segment.bytes, state.otherBytes);
  let readBytes = segments.reduce((sum, segment) => sum + (segment.end <= released ? segment.bytes : 0), 0);
  let count = 0;
  for (const segment of segments) {
    const isRead = segment.end <= released;
    const isWanted = segment.end > keepFrom || isRetained(readBytes, nowMs - segment.endedMs, rules);
    const roomNeeded = isRoomNeeded(bytes, rules) || lackingBytes > 0;
    const mayGo = isRead ? roomNeeded || !isWanted : roomNeeded && rules.whenFull === "expire";
    if (!mayGo) break;
    count += 1;
    bytes -= segment.bytes;
    lackingBytes -= segment.bytes;
    if (isRead) readBytes -= segment.bytes;
  }
  return count;
}

/** `readBytes`: of this segment and of all younger ones that are read. */
function isRetained(readBytes: number, ageMs: number, { retain: { time, bytes } }: RetentionRules): boolean {
  if (time === undefined && bytes === undefined) return false;
  return (time === undefined || ageMs < time) && (bytes === undefined || readBytes <= bytes);
}

/** When the oldest segment becomes too old to be retained; undefined: age does not matter now. */
export function retainedUntilMs(
  [oldest]: readonly StoredSegment[],
  released: Offset,
  { retain: { time } }: RetentionRules,
): number | undefined {
  return time === undefined || oldest === undefined || oldest.end > released ? undefined : oldest.endedMs + time;
}
