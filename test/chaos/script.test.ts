import { expect, test } from "vitest";
import { parseScenario } from "../../devices-sim/scenarios/load.ts";
import { toPhaseStarts } from "../../devices-sim/scenarios/scenario.ts";
import { createScript, SHORTEST_EVERY_MS, shortestMs } from "./script.ts";
import { toPhases } from "./simulator.ts";

const servers = [
  { sink: "postgres", canBeKilled: true },
  { sink: "redis", canBeKilled: true },
  { sink: "kafka", canBeKilled: false },
];
const options = { seed: 1, servers, hasDisk: true };
const shortest = shortestMs(options);
const seeds = Array.from({ length: 100 }, (_, seed) => seed);

test("everything happens once in the shortest run, whatever the seed", () => {
  for (const seed of seeds) {
    const script = createScript({ ...options, seed, durationMs: shortest });
    const kinds = script.map((event) => ("sink" in event ? `${event.kind} ${event.sink}` : event.kind));
    expect(kinds[0]).toBe("freeze-subscriber");
    expect(kinds).toEqual(expect.arrayContaining(["kill-gateway", "kill-server postgres", "kill-server redis"]));
    expect(kinds).toEqual(expect.arrayContaining(["freeze-server kafka", "fill-disk", "reconnect-storm"]));
    expect(kinds).not.toContain("kill-server kafka");
    for (const [at, { atMs }] of script.entries()) {
      expect(atMs - (script[at - 1]?.atMs ?? -SHORTEST_EVERY_MS)).toBeGreaterThanOrEqual(SHORTEST_EVERY_MS);
    }
    expect(script.at(-1)?.atMs).toBeLessThan(shortest - 10_000);
  }
});

test("a seed repeats a script, and another one has another", () => {
  const durationMs = 600_000;
  expect(createScript({ ...options, durationMs })).toEqual(createScript({ ...options, durationMs }));
  expect(createScript({ ...options, durationMs })).not.toEqual(createScript({ ...options, durationMs, seed: 2 }));
});

test("a long run has more of everything, and nothing of a disk that is not there", () => {
  const script = createScript({ ...options, durationMs: 600_000, hasDisk: false });
  const kinds = script.map(({ kind }) => kind);
  expect(kinds.filter((kind) => kind === "kill-gateway").length).toBeGreaterThan(5);
  expect(kinds.filter((kind) => kind === "freeze-subscriber")).toHaveLength(1);
  expect(kinds).not.toContain("fill-disk");
});

test("the simulator's scenario has each storm of the script at its time", () => {
  for (const seed of seeds) {
    const durationMs = 300_000;
    const script = createScript({ ...options, seed, durationMs });
    const loaded = parseScenario({ phases: toPhases(script, durationMs) }, "scenario");
    if (loaded.kind === "wrong") throw new Error(loaded.problem);
    const storms = toPhaseStarts(loaded.phases, durationMs).filter(({ name }) => name === "storm");
    const wanted = script.filter(({ kind }) => kind === "reconnect-storm");
    // It comes a second after its phase has begun.
    expect(storms.map(({ atMs }) => atMs + 1_000)).toEqual(wanted.map(({ atMs }) => atMs));
    expect(loaded.phases.reduce((sum, phase) => sum + phase.durationMs, 0)).toBe(durationMs);
  }
});
