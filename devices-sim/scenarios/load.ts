// Finds a scenario by its name, or in a file of the user's. What is wrong there is a sentence with the file and the key.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { relative, resolve } from "node:path";
import { z } from "zod";
import { duration } from "../arguments.ts";
import { faultNames, findExcess, findWrongTimes, usualShare, type FaultName } from "../faults/built-in.ts";
import type { FaultPlan } from "../faults/fault.ts";
import { scenarioNames, scenarios } from "./built-in.ts";
import type { Phase } from "./scenario.ts";

export type LoadedScenario =
  | { readonly kind: "scenario"; readonly phases: readonly Phase[] }
  | { readonly kind: "wrong"; readonly problem: string };

const time = z.string("expected a time with its unit like 500ms, 10s, 2m or 1h").transform((text, context) => {
  try {
    return duration(text);
  } catch (error) {
    context.addIssue({ code: "custom", message: error instanceof Error ? error.message : String(error) });
    return z.NEVER;
  }
});

const share = z.number("expected a share from 0 to 1").min(0).max(1);

const faultShape = z.union(
  [
    share.transform((value) => ({ share: value, every: undefined, for: undefined })),
    z.strictObject({ share: share.optional(), every: time.optional(), for: time.optional() }),
  ],
  "expected a share from 0 to 1, or { share, every, for }",
);

const phaseShape = z.strictObject({
  name: z.string().optional(),
  duration: time.refine((ms) => ms > 0, "expected more than 0"),
  rate: z.number("expected a number from 0.01 to 100").min(0.01).max(100).default(1),
  faults: z.partialRecord(z.enum(faultNames), z.unknown()).default({}),
});

const shape = z.strictObject({ phases: z.array(phaseShape, "expected a list of phases").min(1) });

/** `name` is that of a built-in scenario or the path of a file. */
export function loadScenario(name: string): LoadedScenario {
  const builtIn = Object.entries(scenarios).find(([each]) => each === name)?.[1];
  if (builtIn !== undefined) return parseScenario(builtIn, name);
  const path = resolve(name);
  const file = relative(process.cwd(), path);
  const wrong = (problem: string): LoadedScenario => ({ kind: "wrong", problem: `${file}: ${problem}` });
  if (!/\.[cm]?[jt]s$/.test(path)) {
    return { kind: "wrong", problem: `expected ${scenarioNames.join(", ")} or the path of a TypeScript file` };
  }
  if (!existsSync(path)) return wrong("there is no such file");
  try {
    const { default: candidate } = createRequire(import.meta.url)(path) as { readonly default?: unknown };
    if (candidate === undefined) return wrong("has no default export: `export default defineScenario({ … })`");
    return parseScenario(candidate, file);
  } catch (error) {
    return wrong(`cannot be loaded: ${String(error)}`);
  }
}

/** `where` is named when something is wrong. */
export function parseScenario(candidate: unknown, where: string): LoadedScenario {
  const wrong = (problem: string): LoadedScenario => ({ kind: "wrong", problem: `${where}: ${problem}` });
  const parsed = shape.safeParse(candidate);
  if (!parsed.success) return wrong(toSentence(parsed.error, []));
  const phases: Phase[] = [];
  for (const [at, phase] of parsed.data.phases.entries()) {
    const plans: FaultPlan<FaultName>[] = [];
    for (const [name, settings] of Object.entries(phase.faults) as readonly [FaultName, unknown][]) {
      const plan = parseFault(name, settings);
      const key = ["phases", at, "faults", name];
      if (plan instanceof z.ZodError) return wrong(toSentence(plan, key));
      if (typeof plan === "string") return wrong(`\`${key.join(".")}\`: ${plan}`);
      plans.push(plan);
    }
    const excess = findExcess(plans);
    if (excess !== undefined) return wrong(`\`phases.${at}.faults\`: ${excess}`);
    phases.push({
      name: phase.name ?? `phase ${at + 1}`,
      durationMs: phase.duration,
      rate: phase.rate,
      faults: plans,
    });
  }
  return { kind: "scenario", phases };
}

function parseFault(name: FaultName, settings: unknown): FaultPlan<FaultName> | z.ZodError | string {
  const parsed = faultShape.safeParse(settings);
  if (!parsed.success) return parsed.error;
  const { share: given = usualShare(name), every, for: lasting } = parsed.data;
  const plan = { name, share: given, everyMs: every, forMs: lasting };
  return findWrongTimes(plan) ?? plan;
}

function toSentence({ issues }: z.ZodError, before: readonly PropertyKey[]): string {
  return issues
    .map(({ path, message }) => {
      const key = [...before, ...path].map(String).join(".");
      return key === "" ? message : `\`${key}\`: ${message}`;
    })
    .join("; ");
}
