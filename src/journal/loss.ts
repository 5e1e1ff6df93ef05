// What a start or a check finds to be gone, in words for the operator. Offsets are exact; the places say where the records
// were, or would have been.

import type { Offset } from "../reading.ts";
import { toSegmentName } from "./segment.ts";

/** Bytes of a segment file without a readable record. Of no length: the file ends or goes on there, too early. */
export interface DamagedBytes {
  readonly file: string;
  readonly fromByte: number;
  readonly toByte: number;
}

/** The records from `from` up to, not including, `to` are gone. */
export interface LostRecords {
  readonly from: Offset;
  readonly to: Offset;
  readonly damaged: readonly DamagedBytes[];
  /** Numbers between the files around the loss for which there is no file. */
  readonly missing: { readonly first: number; readonly last: number } | undefined;
  /** All of it belongs to the last commit, whose write may have been torn before it was acknowledged. */
  readonly inLastCommit: boolean;
}

/** A segment between two others, as far as it explains a gap. */
interface Neighbour {
  readonly number: number;
  /** What of it holds no record, at the side of the gap; undefined: nothing. */
  readonly damaged: DamagedBytes | undefined;
}

export interface Gap {
  readonly from: Offset;
  readonly to: Offset;
  /** The file before the gap, if any. */
  readonly before: (Neighbour & { readonly size: number }) | undefined;
  /** Files in it, without one valid frame. */
  readonly between: readonly Neighbour[];
  /** The file behind it; only a number when it should be there and is not. */
  readonly after: Neighbour | { readonly missing: number } | undefined;
}

/** What is lost in a gap between two segments, and where to look. */
export function toLostRecords({ from, to, before, between, after }: Gap): LostRecords {
  const around = [before, ...between, after !== undefined && "number" in after ? after : undefined];
  const damaged = around.map((file) => file?.damaged).filter((bytes) => bytes !== undefined);
  const first = before === undefined ? undefined : before.number + 1;
  const last = after === undefined ? undefined : "number" in after ? after.number - 1 : after.missing;
  const there = new Set(between.map(({ number }) => number));
  const missing = toMissing(first ?? (damaged.length === 0 ? last : undefined), last, there);
  if (damaged.length === 0 && missing === undefined && before !== undefined) {
    damaged.push({ file: toSegmentName(before.number), fromByte: before.size, toByte: before.size });
  }
  return { from, to, damaged, missing, inLastCommit: false };
}

/** The numbers from `first` to `last` but for those at both ends that are there. */
function toMissing(
  first: number | undefined,
  last: number | undefined,
  there: ReadonlySet<number>,
): LostRecords["missing"] {
  if (first === undefined || last === undefined || first < 1) return undefined;
  let [from, to] = [first, last];
  while (from <= to && there.has(from)) from += 1;
  while (to >= from && there.has(to)) to -= 1;
  return from <= to ? { first: from, last: to } : undefined;
}

export const countLost = (lost: readonly LostRecords[]): number =>
  lost.reduce((sum, { from, to }) => sum + to - from, 0);

/** One sentence: offsets, count, files and bytes. */
export function describeLoss({ from, to, damaged, missing }: LostRecords): string {
  const records = to - from === 1 ? `record ${from} (1)` : `records ${from} to ${to - 1} (${to - from})`;
  const places = damaged.map(({ file, fromByte, toByte }) =>
    fromByte === toByte
      ? `${file} has them no longer, at byte ${fromByte}`
      : `bytes ${fromByte} to ${toByte - 1} of ${file} are damaged`,
  );
  if (missing !== undefined) {
    const { first, last } = missing;
    const names = first === last ? toSegmentName(first) : `${toSegmentName(first)} to ${toSegmentName(last)}`;
    places.push(`there is no ${names}`);
  }
  return [records, places.join("; ")].filter((part) => part !== "").join(": ");
}
