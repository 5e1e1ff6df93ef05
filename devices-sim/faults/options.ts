// The command line's part that is about faults: --invalid, --fault, --scenario.

import { InvalidArgumentError, Option } from "commander";
import { duration, number } from "../arguments.ts";
import type { PayloadName } from "../payloads/built-in.ts";
import { scenarioNames } from "../scenarios/built-in.ts";
import { loadScenario } from "../scenarios/load.ts";
import type { Phase } from "../scenarios/scenario.ts";
import {
  faultNames,
  faults,
  findExcess,
  findWrongTimes,
  toInvalidPlans,
  usualShare,
  type FaultName,
} from "./built-in.ts";
import type { Fault, FaultPlan } from "./fault.ts";

/** What commander makes of the options below. */
export interface RawFaults {
  readonly invalid?: number;
  readonly fault?: readonly FaultPlan<FaultName>[];
  readonly scenario?: readonly Phase[];
}

export const faultOptions = (): readonly Option[] => [
  new Option(
    "--invalid <share>",
    "share of messages spoilt in the commonest ways, 0 to 1, only with --payload sluice (default: 0.01; 0 with other faults)",
  ).argParser(number(0, 1)),
  new Option(
    "--fault <name[:share[:every[:for]]]>",
    "what goes wrong on purpose, as listed below; may be repeated",
  ).argParser(fault),
  new Option("--scenario <name>", `phases with faults: ${scenarioNames.join(", ")}, or a file with your own`).argParser(
    scenario,
  ),
];

function fault(text: string, before: readonly FaultPlan<FaultName>[] = []): readonly FaultPlan<FaultName>[] {
  const [given = "", share, every, lasting, ...more] = text.split(":");
  const name = faultNames.find((each) => each === given);
  if (name === undefined || more.length > 0) {
    throw new InvalidArgumentError("expected NAME[:SHARE[:EVERY[:FOR]]]; --help lists the names.");
  }
  if (before.some((plan) => plan.name === name)) throw new InvalidArgumentError(`${name} is given twice.`);
  const plan = {
    name,
    share: share === undefined ? usualShare(name) : number(0, 1)(share),
    everyMs: every === undefined ? undefined : duration(every),
    forMs: lasting === undefined ? undefined : duration(lasting),
  };
  const problem = findWrongTimes(plan);
  if (problem !== undefined) throw new InvalidArgumentError(`${problem}.`);
  return [...before, plan];
}

function scenario(name: string): readonly Phase[] {
  const loaded = loadScenario(name);
  if (loaded.kind === "wrong") throw new InvalidArgumentError(`${loaded.problem}.`);
  return loaded.phases;
}

export interface FaultSettings {
  readonly phases: readonly Phase[];
  /** How long the scenario is; undefined without one. */
  readonly durationMs: number | undefined;
}

/** A text: what is wrong. */
export function toFaultSettings(
  { invalid, fault: given = [], scenario: script }: RawFaults,
  payload: PayloadName,
  isTls: boolean,
): FaultSettings | string {
  if (invalid !== undefined && invalid > 0 && payload !== "sluice") {
    return "option '--invalid' spoils messages of '--payload sluice' only";
  }
  const isPlain = given.length === 0 && script === undefined && payload === "sluice";
  const plans = [...toInvalidPlans(invalid ?? (isPlain ? 0.01 : 0)), ...given];
  const phases = (script ?? [{ name: "", durationMs: Infinity, rate: 1, faults: [] }]).map((phase) => ({
    ...phase,
    faults: [...phase.faults, ...plans],
  }));
  for (const phase of phases) {
    const problem = findExcess(phase.faults) ?? findMisfit(phase.faults, payload, isTls);
    if (problem !== undefined)
      return script === undefined ? `option '--fault': ${problem}` : `phase ${phase.name}: ${problem}`;
  }
  return { phases, durationMs: script?.reduce((sum, { durationMs }) => sum + durationMs, 0) };
}

/** A fault that needs another kind of payload or broker. */
function findMisfit(plans: readonly FaultPlan<FaultName>[], payload: PayloadName, isTls: boolean): string | undefined {
  for (const { name } of plans) {
    const one: Fault = faults[name];
    if (one.kind === "payload" && one.anyShape !== true && payload !== "sluice") {
      return `${name} spoils messages of '--payload sluice' only`;
    }
    if (one.kind === "connection" && one.needsTls === true && !isTls) return `${name} needs a broker that speaks TLS`;
  }
  return undefined;
}

const times = (one: Fault): string => {
  if (one.kind !== "connection") return "";
  const lasting = one.forMs === 0 ? "" : ` for ${one.forMs / 1000} s`;
  return `, every ${one.everyMs / 1000} s${lasting}`;
};

/** The faults by name, for --help. */
export const faultHelp = (): string =>
  faultNames.map((name) => `  ${name.padEnd(17)}${faults[name].about}${times(faults[name])}`).join("\n");
