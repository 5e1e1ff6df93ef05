import { describe, expect, test } from "vitest";
import { spreadOf, toRatio, toRows, toSpread, toTable, toVerdicts } from "../../bench/report.ts";

const rounds = [
  { server: "gateway", round: 1, rate: 30 },
  { server: "peer", round: 1, rate: 10 },
  { server: "gateway", round: 2, rate: 40 },
  { server: "peer", round: 2, rate: 20 },
  { server: "gateway", round: 3, rate: 50 },
];
const rate = (round: { readonly rate: number }): number => round.rate;

describe("a report", () => {
  test("has the least, the middle and the greatest of the rounds", () => {
    expect(toSpread([3, 1, 2])).toEqual({ min: 1, median: 2, max: 3 });
    expect(toSpread([4, 1, 2, 3])).toEqual({ min: 1, median: 2.5, max: 4 });
  });

  test("compares within a round, and leaves out a round that only one of them has", () => {
    expect(toRatio(rounds, rate, "gateway", "peer")).toEqual({ min: 2, median: 2.5, max: 3 });
    expect(toRatio(rounds, rate, "gateway", "nobody")).toBeUndefined();
    expect(spreadOf(rounds, rate, "gateway")).toEqual({ min: 30, median: 40, max: 50 });
  });

  test("leaves out a figure that no round has, and a ratio that says nothing", () => {
    const rows = toRows(rounds, [
      { name: "rate", digits: 0, pick: rate },
      { name: "queue", digits: 0, pick: rate, compared: false },
      { name: "none", digits: 0, pick: () => undefined },
    ]);
    expect(rows.map(({ figure, server, ratio }) => [figure, server, ratio?.median])).toEqual([
      ["rate", "gateway", undefined],
      ["rate", "peer", 2.5],
      ["queue", "gateway", undefined],
      ["queue", "peer", undefined],
    ]);
    expect(toTable(rows).split("\n")[3]).toBe("| rate   | peer    | 10  | 15     | 20  | 2.50 (2.00 to 3.00) |");
  });

  test("holds goals against the median, and says nothing of what was not measured", () => {
    const measured = { min: 1, median: 2, max: 3 };
    const goal = { unit: " ×", digits: 1 };
    expect(
      toVerdicts([
        { ...goal, what: "a", measured, bound: { atLeast: 2 } },
        { ...goal, what: "b", measured, bound: { atLeast: 2.5 } },
        { ...goal, what: "c", measured, bound: { atMost: 1.5 } },
        { ...goal, what: "d", measured: undefined, bound: { atMost: 1.5 } },
      ]),
    ).toEqual([
      "met: a 2.0 (1.0 to 3.0) ×, goal ≥ 2 ×",
      "missed: b 2.0 (1.0 to 3.0) ×, goal ≥ 2.5 ×",
      "missed: c 2.0 (1.0 to 3.0) ×, goal ≤ 1.5 ×",
    ]);
  });
});
