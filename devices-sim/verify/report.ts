// What a verification says to people: a table of the sinks, one of the rejections, and the first of what is wrong in words.

import type { RejectionVerdict } from "./rejections.ts";
import type { SinkVerdict } from "./sink-check.ts";
import { isRejectionBroken, isSinkBroken, type Verification } from "./verify.ts";

const sinkColumns = {
  acknowledged: "acknowledged",
  found: "found",
  lost: "lost",
  duplicated: "duplicated",
  reordered: "reordered",
  corrupted: "corrupted",
  spoiltStored: "spoilt stored",
} as const satisfies Partial<Record<keyof SinkVerdict, string>>;

const rejectionColumns = {
  spoilt: "spoilt",
  rejected: "rejected",
  wrongReason: "wrong reason",
  notRejected: "not rejected",
  goodRejected: "good rejected",
} as const satisfies Partial<Record<keyof RejectionVerdict, string>>;

/** Ends with a line end. */
export function toVerificationText({ sinks, rejections, damagedLines, killed, kept }: Verification): string {
  const lines = [
    ...toTable(
      "sink",
      sinkColumns,
      sinks.map(({ sink, ...verdict }) => ({ name: sink, ...verdict })),
    ),
    ...toTable(
      "rejections by",
      rejectionColumns,
      rejections.map(({ source, ...verdict }) => ({ name: source, ...verdict })),
    ),
    "",
    ...sinks.flatMap((verdict) =>
      toNotes(verdict.sink, [...notesOn(verdict)], isSinkBroken(verdict) ? verdict : undefined),
    ),
    ...rejections.flatMap((verdict) =>
      toNotes(verdict.source, notesOnRejections(verdict), isRejectionBroken(verdict) ? verdict : undefined),
    ),
    ...(killed ? ["The simulator was killed: what it sent at the very end may be missing in the ledger."] : []),
    ...(damagedLines > 0 ? [`${damagedLines} lines of the ledger cannot be read: it proves nothing.`] : []),
    kept ? "Every promise was kept." : "A PROMISE WAS BROKEN.",
  ];
  return lines.map((line) => `${line}\n`).join("");
}

function toTable(
  heading: string,
  columns: Readonly<Record<string, string>>,
  rows: readonly (Readonly<Record<string, unknown>> & { readonly name: string })[],
): readonly string[] {
  if (rows.length === 0) return [];
  const names = Object.entries(columns);
  const table = [
    [heading, ...names.map(([, title]) => title)],
    ...rows.map((row) => [row.name, ...names.map(([key]) => String(row[key]))]),
  ];
  const widths = [heading, ...names].map((_, at) => Math.max(...table.map((cells) => cells[at]?.length ?? 0)));
  return table.map((cells) =>
    cells.map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join("  "),
  );
}

function toNotes(
  name: string,
  notes: readonly string[],
  broken: { readonly examples: readonly string[]; readonly error?: string } | undefined,
): readonly string[] {
  const lines = [
    ...(broken?.error === undefined ? [] : [`cannot be read: ${broken.error}`]),
    ...notes,
    ...(broken?.examples ?? []),
  ];
  return lines.length === 0 ? [] : [`${name}:`, ...lines.map((line) => `  ${line}`)];
}

function* notesOn({ resent, redelivered, unacknowledged, foreign }: SinkVerdict): Iterable<string> {
  if (unacknowledged > 0) yield `${unacknowledged} are there whose acknowledgement never came`;
  if (resent > 0) yield `${resent} are there again because the device sent them again`;
  if (redelivered > 0) yield `${redelivered} came again, as "at least once" allows`;
  if (foreign > 0) yield `${foreign} rows of other devices or runs were passed over`;
}

const notesOnRejections = ({ forgotten }: RejectionVerdict): readonly string[] =>
  forgotten > 0
    ? [`${forgotten} of the oldest gave way to newer ones, and may be among those that are not rejected`]
    : [];
