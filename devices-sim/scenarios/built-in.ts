import { defineScenario, type ScenarioDefinition } from "./scenario.ts";

export const scenarios = {
  /** Nothing goes wrong. */
  steady: defineScenario({ phases: [{ name: "steady", duration: "1m" }] }),
  /** Radio at the edge of its range: connections break in every way, messages come twice, late and again. */
  flaky: defineScenario({
    phases: [
      {
        name: "flaky",
        duration: "2m",
        faults: {
          flapping: { share: 0.1, every: "20s", for: "5s" },
          reset: { share: 0.2, every: "15s" },
          "half-open": { share: 0.05, every: "20s", for: "20s" },
          offline: { share: 0.1, every: "30s", for: "15s" },
          "last-will": { share: 0.05, every: "30s" },
          duplicate: 0.01,
          "dup-resend": 0.002,
          "out-of-order": 0.01,
        },
      },
    ],
  }),
  /** Everything that is not as it should be comes in, and from strangers too. */
  hostile: defineScenario({
    phases: [
      {
        name: "hostile",
        duration: "1m",
        faults: {
          "malformed-json": 0.02,
          "wrong-type": 0.02,
          "missing-seq": 0.02,
          empty: 0.01,
          "not-an-object": 0.01,
          "out-of-range": 0.02,
          "impossible-time": 0.02,
          "hostile-bytes": 0.05,
          "wrong-topic": 0.01,
          oversize: 0.001,
          "clock-skew": 0.1,
          "clock-drift": 0.1,
          takeover: { share: 0.05, every: "20s", for: "5s" },
          "slow-reader": { share: 0.01, every: "10s", for: "20s" },
          "hostile-packets": { share: 0.1, every: "5s", for: "5s" },
        },
      },
    ],
  }),
  /** The network of three devices in four is away for 40 s, and comes back with all that they kept. */
  outage: defineScenario({
    phases: [
      { name: "before", duration: "20s" },
      { name: "outage", duration: "45s", faults: { offline: { share: 0.75, every: "1s", for: "40s" } } },
      { name: "after", duration: "25s" },
    ],
  }),
  /** All devices lose their connection at once, three times, while they send twice as often as usual. */
  storm: defineScenario({
    phases: [
      { name: "calm", duration: "15s" },
      { name: "storm", duration: "35s", rate: 2, faults: { "reconnect-storm": { share: 1, every: "10s" } } },
      { name: "calm again", duration: "10s" },
    ],
  }),
} satisfies Record<string, ScenarioDefinition>;

export type ScenarioName = keyof typeof scenarios;

export const scenarioNames = Object.keys(scenarios) as readonly ScenarioName[];
