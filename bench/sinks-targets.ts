// What the benchmark of sinks writes to: for each kind of sink the server that it needs, the sink itself, and the same library
// as one uses it without much thought. Both write the same readings, with the same durability unless docs/benchmarks.md says so.

import { localTargets } from "./sinks-local.ts";
import { remoteTargets } from "./sinks-remote.ts";
import type { Target } from "./sinks-target.ts";

export const targets: readonly Target[] = [...localTargets, ...remoteTargets];
