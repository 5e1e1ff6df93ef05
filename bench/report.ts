// What the rounds of a benchmark say: each figure as min, median and max, and the ratio of two servers within the same
// round. Neighbours in time are compared, so the spread of a ratio says how far to trust it.

export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** One measurement of one server. */
export interface Measured {
  readonly server: string;
  readonly round: number;
}

export interface Figure<Round extends Measured> {
  /** With its unit. */
  readonly name: string;
  readonly digits: number;
  /** Undefined: the round does not have it. */
  readonly pick: (round: Round) => number | undefined;
  /** False for a figure whose ratio says nothing. */
  readonly compared?: false;
}

export interface Row {
  readonly figure: string;
  readonly server: string;
  readonly digits: number;
  readonly spread: Spread;
  readonly ratio?: Spread;
}

/** Whose ratio stands beside a server's figure: the first one's value divided by the second one's. */
export interface Comparison {
  readonly title: string;
  of(server: string, measured: readonly string[]): readonly [subject: string, other: string] | undefined;
}

/** The first server that has the figure, against this one. */
const withFirst: Comparison = {
  title: "first / it",
  of: (server, [first = server]) => (server === first ? undefined : [first, server]),
};

export function toSpread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (index: number): number => sorted[index] ?? Number.NaN;
  const middle = (sorted.length - 1) / 2;
  return { min: at(0), median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2, max: at(sorted.length - 1) };
}

/** `subject` / `other`, round by round; undefined when one of them was not measured, or did nothing. */
export function toRatio<Round extends Measured>(
  rounds: readonly Round[],
  pick: Figure<Round>["pick"],
  subject: string,
  other: string,
): Spread | undefined {
  const valueOf = (server: string, round: number): number | undefined => {
    const found = rounds.find((each) => each.server === server && each.round === round);
    return found === undefined ? undefined : pick(found);
  };
  const numbers = new Set(rounds.map(({ round }) => round));
  const ratios = [...numbers].flatMap((round) => {
    const [own, its] = [valueOf(subject, round), valueOf(other, round)];
    return own === undefined || its === undefined || its === 0 ? [] : own / its;
  });
  return ratios.length === 0 ? undefined : toSpread(ratios);
}

/** A figure of one server over the rounds; undefined when it was not measured. */
export function spreadOf<Round extends Measured>(
  rounds: readonly Round[],
  pick: Figure<Round>["pick"],
  server: string,
): Spread | undefined {
  const values = rounds.flatMap((round) => (round.server === server ? (pick(round) ?? []) : []));
  return values.length === 0 ? undefined : toSpread(values);
}

/** Figure by figure, the servers in the order in which they were measured. */
export function toRows<Round extends Measured>(
  rounds: readonly Round[],
  figures: readonly Figure<Round>[],
  comparison = withFirst,
): readonly Row[] {
  const servers = [...new Set(rounds.map(({ server }) => server))];
  return figures.flatMap(({ name, digits, pick, compared = true }) => {
    const measured = servers.filter((server) => spreadOf(rounds, pick, server) !== undefined);
    return measured.map((server) => {
      const spread = spreadOf(rounds, pick, server) ?? toSpread([]);
      const pair = compared ? comparison.of(server, measured) : undefined;
      const ratio = pair && toRatio(rounds, pick, ...pair);
      return { figure: name, server, digits, spread, ...(ratio !== undefined && { ratio }) };
    });
  });
}

export function toTable(rows: readonly Row[], { title } = withFirst): string {
  return markdownTable([
    ["figure", "server", "min", "median", "max", title],
    ...rows.map(({ figure, server, digits, spread: { min, median, max }, ratio }) => [
      figure,
      server,
      ...[min, median, max].map((value) => value.toFixed(digits)),
      ratio === undefined ? "" : formatSpread(ratio, 2),
    ]),
  ]);
}

/** A table in Markdown that can be read as it is; the first line is its head. */
export function markdownTable(lines: readonly (readonly string[])[]): string {
  const widths = (lines[0] ?? []).map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  const text = lines.map((line) => `| ${line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`);
  text.splice(1, 0, `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`);
  return text.join("\n");
}

export const formatSpread = ({ min, median, max }: Spread, digits: number): string =>
  `${median.toFixed(digits)} (${min.toFixed(digits)} to ${max.toFixed(digits)})`;

export interface Goal {
  /** What is measured, as the subject of a sentence. */
  readonly what: string;
  /** Undefined: not measured, and nothing is said of it. */
  readonly measured: Spread | undefined;
  readonly bound: { readonly atLeast: number } | { readonly atMost: number };
  /** Behind each number. */
  readonly unit: string;
  readonly digits: number;
}

/** "met" or "missed", by the median. */
export function toVerdicts(goals: readonly Goal[]): readonly string[] {
  return goals.flatMap(({ what, measured, bound, unit, digits }) => {
    if (measured === undefined) return [];
    const least = "atLeast" in bound;
    const limit = least ? bound.atLeast : bound.atMost;
    const met = least ? measured.median >= limit : measured.median <= limit;
    const goal = `goal ${least ? "≥" : "≤"} ${limit}${unit}`;
    return `${met ? "met" : "missed"}: ${what} ${formatSpread(measured, digits)}${unit}, ${goal}`;
  });
}
