// What a chaos run has found: whether everything that was acknowledged is everywhere, and nothing twice where that is promised.

import type { Verification } from "../../devices-sim/verify/verify.ts";
import { isRejectionBroken, isSinkBroken } from "../../devices-sim/verify/verify.ts";
import type { Found } from "./destinations.ts";

/** A sink that the ledger cannot read, held against the offsets of one that it has compared. */
export interface Counted {
  readonly sink: string;
  readonly expected: number;
  readonly found: number;
  readonly missing: number;
  /** There, and not in the other one. */
  readonly unknown: number;
  /** Rows that are there again. */
  readonly again: number;
  /** Nothing may be there again. */
  readonly isOnce: boolean;
}

/** What the gateway says at the end. */
export interface Figures {
  readonly sink: string;
  readonly lag: number;
  /** Of all its lives. */
  readonly parked: number;
  readonly expired: number;
  /** Records of the last life that its cursor has passed and that count as nothing. undefined: the sink keeps a position of its own. */
  readonly unexplained: number | undefined;
}

export interface Findings {
  /** Of the simulator: 0 when every device was connected and every good message acknowledged. */
  readonly devicesCode: number | null;
  /** Connections that its storms have cut, of so many storms. */
  readonly storms: { readonly played: number; readonly cut: number };
  readonly verification: Verification;
  readonly counted: readonly Counted[];
  /** Sinks about which only the gateway's figures tell. */
  readonly uncounted: readonly string[];
  readonly figures: readonly Figures[];
}

export function countFound(sink: string, expected: ReadonlySet<number>, { offsets, isOnce }: Found): Counted {
  const found = new Set(offsets.keys());
  const rows = [...offsets.values()].reduce((sum, times) => sum + times, 0);
  return {
    sink,
    expected: expected.size,
    found: found.size,
    missing: expected.difference(found).size,
    unknown: found.difference(expected).size,
    again: rows - found.size,
    isOnce,
  };
}

/** One sentence for each promise that was broken. */
export function findBroken({ devicesCode, storms, verification, counted, figures }: Findings): readonly string[] {
  return [
    ...(devicesCode === 0 ? [] : [`the simulator ended with ${devicesCode}: good messages were not acknowledged`]),
    ...(storms.played > 0 && storms.cut === 0 ? ["no connection was cut by the reconnect storm"] : []),
    ...verification.sinks
      .filter(isSinkBroken)
      .map(({ sink }) => `${sink} has not what was acknowledged, as it was sent`),
    ...verification.rejections
      .filter(isRejectionBroken)
      .map(({ source }) => `${source} has not what was to be rejected`),
    ...(verification.damagedLines > 0 ? [`${verification.damagedLines} lines of the ledger cannot be read`] : []),
    ...(verification.killed ? ["the ledger has no end"] : []),
    ...counted.flatMap(({ sink, missing, unknown, again, isOnce }) => [
      ...(missing > 0 ? [`${sink} lacks ${missing} readings`] : []),
      ...(unknown > 0 ? [`${sink} has ${unknown} readings that nobody else has`] : []),
      ...(isOnce && again > 0 ? [`${sink} has ${again} readings more than once`] : []),
    ]),
    ...figures.flatMap(({ sink, lag, parked, expired, unexplained = 0 }) => [
      ...(lag > 0 ? [`${sink} is ${lag} records behind`] : []),
      ...(parked > 0 ? [`${sink} has refused ${parked} records`] : []),
      ...(expired > 0 ? [`the journal had ${expired} records no longer when ${sink} came to them`] : []),
      ...(unexplained === 0
        ? []
        : [`${unexplained} records of ${sink} were neither delivered nor parked nor passed over`]),
    ]),
  ];
}

/** Two tables, each line with its end. */
export function toTables({ counted, uncounted, figures }: Pick<Findings, "counted" | "uncounted" | "figures">): string {
  return [
    ...toLines([
      ["by offset", "expected", "found", "missing", "unknown", "again"],
      ...counted.map(({ sink, expected, found, missing, unknown, again, isOnce }) => [
        sink,
        ...[expected, found, missing, unknown].map(String),
        again > 0 && !isOnce ? `${again}, as "at least once" allows` : `${again}`,
      ]),
    ]),
    ...uncounted.map((sink) => `${sink}: not compared, only the gateway's figures tell`),
    "",
    ...toLines([
      ["by the gateway's figures", "lag", "parked", "expired", "unexplained"],
      ...figures.map(({ sink, lag, parked, expired, unexplained }) => [
        sink,
        ...[lag, parked, expired, unexplained ?? "-"].map(String),
      ]),
    ]),
  ]
    .map((line) => `${line}\n`)
    .join("");
}

function toLines(rows: readonly (readonly string[])[]): readonly string[] {
  const widths = rows[0]?.map((_, at) => Math.max(...rows.map((cells) => cells[at]?.length ?? 0))) ?? [];
  return rows.map((cells) =>
    cells.map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join("  "),
  );
}
