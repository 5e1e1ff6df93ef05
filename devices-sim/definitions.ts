// Everything that a file of the user's may import for the simulator: `import { defineProfile, defineScenario } from "sluice/sim"`.

export { defineProfile } from "./profiles/profile.ts";
export type { Metrics, Profile, Sensor } from "./profiles/profile.ts";
export { defineScenario } from "./scenarios/scenario.ts";
export type { FaultDefinition, PhaseDefinition, ScenarioDefinition } from "./scenarios/scenario.ts";
