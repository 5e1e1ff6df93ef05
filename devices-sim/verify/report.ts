// What a verification says to people: a table of the sinks, one of the rejections, and the first of what is wrong in words.

import type { RejectionVerdict } from "./rejections.ts";
import type { SinkVerdict } from "./sink-check.ts";
import { isRejectionBroken, isSinkBroken, type Verification } from "./verify.ts";

type CountOf<Verdict> = Exclude<keyof Verdict, "sink" | "source" | "examples" | "error">;

const sinkColumns: readonly (readonly [CountOf<SinkVerdict>, title: string, breaks: boolean])[] = [
  ["acknowledged", "acknowledged", false],
  ["found", "found", false],
  ["lost", "lost", true],
  ["duplicated", "duplicated", true],
  ["reordered", "reordered", true],
  ["corrupted", "corrupted", true],
  ["spoiltStored", "spoilt stored", true],
];

const rejectionColumns: readonly (readonly [CountOf<RejectionVerdict>, title: string, breaks: boolean])[] = [
  ["spoilt", "spoilt", false],
  ["rejected", "rejected", false],
  ["wrongReason", "wrong reason", true],
  ["notRejected", "not rejected", true],
  ["goodRejected", "good rejected", true],
];

/** The verdicts of one kind of target. The text for a terminal and the page are made of it. */
export interface VerdictTable {
  readonly heading: string;
  readonly columns: readonly Column[];
  readonly rows: readonly VerdictRow[];
}

interface Column {
  readonly title: string;
  /** More than 0 may break a promise. */
  readonly breaks: boolean;
}

interface VerdictRow {
  readonly name: string;
  /** One for each column. */
  readonly counts: readonly number[];
  readonly broken: boolean;
  /** In words: why it could not be read, what is remarkable, and the first of what is wrong. */
  readonly notes: readonly string[];
}

export interface Verdicts {
  /** Those that have rows. */
  readonly tables: readonly VerdictTable[];
  /** On the run as a whole. */
  readonly remarks: readonly string[];
}

export function toVerdicts({ sinks, rejections, damagedLines, killed }: Verification): Verdicts {
  const tables = [
    toTable(
      "sink",
      sinkColumns,
      sinks.map((verdict) => ({
        name: verdict.sink,
        verdict,
        broken: isSinkBroken(verdict),
        notes: [...notesOn(verdict)],
      })),
    ),
    toTable(
      "rejections by",
      rejectionColumns,
      rejections.map((verdict) => ({
        name: verdict.source,
        verdict,
        broken: isRejectionBroken(verdict),
        notes: notesOnRejections(verdict),
      })),
    ),
  ];
  return {
    tables: tables.filter(({ rows }) => rows.length > 0),
    remarks: [
      ...(killed ? ["The simulator was killed: what it sent at the very end may be missing in the ledger."] : []),
      ...(damagedLines > 0 ? [`${damagedLines} lines of the ledger cannot be read: it proves nothing.`] : []),
    ],
  };
}

/** Ends with a line end. */
export function toVerificationText(verification: Verification): string {
  const { tables, remarks } = toVerdicts(verification);
  const lines = [
    ...tables.flatMap(toLines),
    "",
    ...tables.flatMap(({ rows }) =>
      rows.flatMap(({ name, notes }) => (notes.length === 0 ? [] : [`${name}:`, ...notes.map((note) => `  ${note}`)])),
    ),
    ...remarks,
    verification.kept ? "Every promise was kept." : "A PROMISE WAS BROKEN.",
  ];
  return lines.map((line) => `${line}\n`).join("");
}

interface Judged<Verdict> {
  readonly name: string;
  readonly verdict: Verdict;
  readonly broken: boolean;
  readonly notes: readonly string[];
}

function toTable<Verdict extends { readonly examples: readonly string[]; readonly error?: string }>(
  heading: string,
  columns: readonly (readonly [key: CountOf<Verdict>, title: string, breaks: boolean])[],
  all: readonly Judged<Verdict>[],
): VerdictTable {
  return {
    heading,
    columns: columns.map(([, title, breaks]) => ({ title, breaks })),
    rows: all.map(({ verdict, notes, ...row }) => ({
      ...row,
      counts: columns.map(([key]) => Number(verdict[key])),
      notes: [
        ...(row.broken && verdict.error !== undefined ? [`cannot be read: ${verdict.error}`] : []),
        ...notes,
        ...(row.broken ? verdict.examples : []),
      ],
    })),
  };
}

function toLines({ heading, columns, rows }: VerdictTable): readonly string[] {
  const table = [
    [heading, ...columns.map(({ title }) => title)],
    ...rows.map(({ name, counts }) => [name, ...counts.map(String)]),
  ];
  const widths = [heading, ...columns].map((_, at) => Math.max(...table.map((cells) => cells[at]?.length ?? 0)));
  return table.map((cells) =>
    cells.map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join("  "),
  );
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
