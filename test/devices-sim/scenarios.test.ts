import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { faultNames } from "../../devices-sim/faults/built-in.ts";
import { parseOptions, type SimOptions } from "../../devices-sim/options.ts";
import { scenarioNames } from "../../devices-sim/scenarios/built-in.ts";
import { loadScenario, parseScenario } from "../../devices-sim/scenarios/load.ts";
import { test } from "../fixtures.ts";

function simOf(...args: readonly string[]): SimOptions {
  const parsed = parseOptions(args);
  if (parsed.kind !== "run") throw new Error(parsed.text);
  return parsed.sim;
}

function errorOf(...args: readonly string[]): string {
  const parsed = parseOptions(args);
  if (parsed.kind !== "told") throw new Error("it is right");
  expect(parsed.exitCode).toBe(2);
  return parsed.text;
}

test("the built-in scenarios are right, and last as long as their phases", () => {
  for (const name of scenarioNames) expect(loadScenario(name).kind).toBe("scenario");
  const { phases, durationMs } = simOf("--scenario", "storm");
  expect(phases.map(({ name, durationMs: length, rate }) => [name, length, rate])).toEqual([
    ["calm", 15_000, 1],
    ["storm", 35_000, 2],
    ["calm again", 10_000, 1],
  ]);
  expect(durationMs).toBe(60_000);
  expect(simOf("--scenario", "storm", "--duration", "5s").durationMs).toBe(5_000);
  expect(simOf("--scenario", "storm", "--count", "5").durationMs).toBeUndefined();
});

test("without scenario and fault one message in a hundred is spoilt; with them nothing else is", () => {
  const sharesOf = (...args: readonly string[]) =>
    simOf(...args).phases.map(({ faults }) => faults.map(({ name, share }) => `${name} ${share}`));
  expect(sharesOf()[0]).toContain("empty 0.002");
  expect(sharesOf("--fault", "reset", "--fault", "oversize:0.5")).toEqual([["reset 0.1", "oversize 0.5"]]);
  expect(sharesOf("--scenario", "steady")).toEqual([[]]);
  expect(sharesOf("--scenario", "outage", "--fault", "duplicate").at(-1)).toEqual(["duplicate 0.01"]);
  expect(simOf("--fault", "offline:0.5:1m:20s").phases[0]?.faults).toEqual([
    { name: "offline", share: 0.5, everyMs: 60_000, forMs: 20_000 },
  ]);
});

test.for([
  [["--fault", "ofline"], "NAME[:SHARE[:EVERY[:FOR]]]"],
  [["--fault", "reset:2"], "number from 0 to 1"],
  [["--fault", "reset:1:soon"], "time with its unit"],
  [["--fault", "empty:1:1s"], "every and for are for faults of connections"],
  [["--fault", "offline:1:0s"], "more than 0"],
  [["--fault", "offline:1:1s:0s"], "more than 0"],
  [["--fault", "reset:1:1s:1s"], "reset is over at once"],
  [["--fault", "empty", "--fault", "empty"], "twice"],
  [["--fault", "empty:0.6", "--fault", "duplicate:0.6"], "add up to 1.2"],
  [["--fault", "empty", "--payload", "cbor"], "--payload sluice"],
  [["--fault", "bad-certificate"], "TLS"],
  [["--scenario", "strom"], "steady, flaky, hostile, outage, storm"],
  [["--scenario", "none.ts"], "none.ts: there is no such file"],
] as const)("%j is wrong: %s", ([args, message]) => {
  expect(errorOf(...args)).toContain(message);
});

test("a scenario of a file is one like the others", async ({ dir }) => {
  const file = join(dir, "monday.ts");
  await writeFile(
    file,
    `const phases: readonly object[] = [{ duration: "2s", rate: 3, faults: { empty: 0.1, offline: { every: "1s" } } }];
    export default { phases };`,
  );
  expect(loadScenario(file)).toEqual({
    kind: "scenario",
    phases: [
      {
        name: "phase 1",
        durationMs: 2_000,
        rate: 3,
        faults: [
          { name: "empty", share: 0.1, everyMs: undefined, forMs: undefined },
          { name: "offline", share: 0.1, everyMs: 1_000, forMs: undefined },
        ],
      },
    ],
  });
});

test("what is wrong in a file is told with its name", async ({ dir }) => {
  const file = join(dir, "broken.ts");
  await writeFile(file, "export default 3 +;");
  expect(errorOf("--scenario", file)).toMatch(/broken\.ts: cannot be loaded: SyntaxError/);
  const without = join(dir, "without.ts");
  await writeFile(without, "export const phases = [];");
  expect(errorOf("--scenario", without)).toMatch(/without\.ts: has no default export/);
});

test.for([
  [{}, "`phases`: expected a list of phases"],
  [{ phases: [] }, "`phases`"],
  [{ phases: [{ duration: "soon" }] }, "`phases.0.duration`: expected a time"],
  [{ phases: [{ duration: "0s" }] }, "`phases.0.duration`: expected more than 0"],
  [{ phases: [{ duration: "1s", rate: 0 }] }, "`phases.0.rate`"],
  [{ phases: [{ duration: "1s", fault: {} }] }, 'Unrecognized key: "fault"'],
  [{ phases: [{ duration: "1s", faults: { ofline: 1 } }] }, '`phases.0.faults`: Unrecognized key: "ofline"'],
  [{ phases: [{ duration: "1s", faults: { empty: 2 } }] }, "`phases.0.faults.empty`"],
  [{ phases: [{ duration: "1s", faults: { empty: { every: "1s" } } }] }, "every and for are for faults of connections"],
  [{ phases: [{ duration: "1s", faults: { offline: { for: "ever" } } }] }, "`phases.0.faults.offline"],
  [{ phases: [{ duration: "1s", faults: { empty: 0.7, duplicate: 0.7 } }] }, "`phases.0.faults`: the shares"],
] as const)("%j is told with its key", ([candidate, message]) => {
  const loaded = parseScenario(candidate, "monday.ts");
  expect(loaded).toEqual({ kind: "wrong", problem: expect.stringContaining("monday.ts: ") });
  expect(loaded).toEqual({ kind: "wrong", problem: expect.stringContaining(message) });
});

test("docs/simulator.md has every fault and every scenario", async () => {
  const text = await readFile(join(import.meta.dirname, "../../docs/simulator.md"), "utf8");
  for (const name of [...faultNames, ...scenarioNames]) expect(text).toContain(`\`${name}\``);
});
