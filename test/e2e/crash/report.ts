// What a crash run has found, for people and for the exit code.

import type { LogLine } from "../../gateway-process.ts";
import { isBroken, type Verdict } from "./check.ts";
import type { CrashResult } from "./run.ts";

/** What is told of any crash run. */
export type CrashFindings = Omit<CrashResult, "whileStarting"> & Partial<Pick<CrashResult, "whileStarting">>;

/** Every promise that was broken. A line of level ERROR is one: nothing was damaged, so nothing may be said to be. */
export const broken = ({ verdicts, errors }: CrashFindings): readonly (Verdict | LogLine)[] => [
  ...verdicts.filter(isBroken),
  ...errors,
];

const columns = ["sink", "kind", "acknowledged", "found", "lost", "duplicated", "reordered"] as const;

/** A table of all verdicts and a line about the run. `crash` names what the gateway suffered. */
export function formatResult(crash: string, result: CrashFindings): string {
  const { crashes, whileStarting, verdicts, errors, seed, seconds } = result;
  const early = whileStarting === undefined ? "" : `, ${whileStarting} of them while starting`;
  const rows = [columns, ...verdicts.map((verdict) => columns.map((column) => String(verdict[column])))];
  const widths = columns.map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  const lines = rows.map((row) =>
    row.map((cell, at) => (at < 2 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join("  "),
  );
  return [
    `${crash}: ${crashes} times${early}; seed ${seed}, ${seconds.toFixed(0)} s`,
    ...lines,
    ...errors.map((line) => JSON.stringify(line)),
  ].join("\n");
}
