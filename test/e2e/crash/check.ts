// What a sink's database holds, held against what the devices were told: lost, duplicated, reordered, by kind of device.

import { DatabaseSync } from "node:sqlite";
import { type Device, type DeviceKind, deviceKinds } from "./device.ts";

export interface Verdict {
  readonly sink: string;
  readonly kind: DeviceKind;
  /** Messages acknowledged; of QoS 0, sent. */
  readonly acknowledged: number;
  readonly found: number;
  /** Acknowledged, and not found. */
  readonly lost: number;
  /** Found once more than once. */
  readonly duplicated: number;
  /** Found for the first time behind a later one of their device. */
  readonly reordered: number;
}

/** A QoS 0 message may be lost; everything else is promised. */
export const isBroken = ({ kind, lost, duplicated, reordered }: Verdict): boolean =>
  (lost > 0 && kind !== "qos0") || duplicated > 0 || reordered > 0;

/** Numbers of messages by device, in the order of the journal or of the destination. */
export type Sequences = ReadonlyMap<string, readonly number[]>;

/** What is in the file of a sqlite sink. */
export const checkSink = (sink: string, path: string, devices: readonly Device[]): readonly Verdict[] =>
  checkSequences(sink, readSequences(path), devices);

export function checkSequences(sink: string, found: Sequences, devices: readonly Device[]): readonly Verdict[] {
  return deviceKinds.map((kind) => {
    const verdicts = devices
      .filter((device) => device.kind === kind)
      .map(({ id, acknowledged }) => compare(acknowledged, found.get(id) ?? []));
    const sum = (key: keyof (typeof verdicts)[number]): number =>
      verdicts.reduce((total, verdict) => total + verdict[key], 0);
    return {
      sink,
      kind,
      acknowledged: sum("acknowledged"),
      found: sum("found"),
      lost: sum("lost"),
      duplicated: sum("duplicated"),
      reordered: sum("reordered"),
    };
  });
}

function readSequences(path: string): Sequences {
  using database = new DatabaseSync(path, { readOnly: true });
  const rows = database.prepare(`SELECT device, data ->> 'seq' AS seq FROM readings ORDER BY "offset"`);
  return toSequences(rows.iterate());
}

/** Of rows with a device and a number. */
export function toSequences(rows: Iterable<Readonly<Record<string, unknown>>>): Sequences {
  const found = new Map<string, number[]>();
  for (const { device, seq } of rows) {
    const sequences = found.get(String(device));
    if (sequences === undefined) found.set(String(device), [Number(seq)]);
    else sequences.push(Number(seq));
  }
  return found;
}

function compare(
  acknowledged: readonly number[],
  found: readonly number[],
): Pick<Verdict, "acknowledged" | "found" | "lost" | "duplicated" | "reordered"> {
  const seen = new Set<number>();
  let highest = 0;
  let reordered = 0;
  for (const seq of found) {
    if (!seen.has(seq) && seq < highest) reordered += 1;
    seen.add(seq);
    highest = Math.max(highest, seq);
  }
  return {
    acknowledged: acknowledged.length,
    found: found.length,
    lost: acknowledged.filter((seq) => !seen.has(seq)).length,
    duplicated: found.length - seen.size,
    reordered,
  };
}
