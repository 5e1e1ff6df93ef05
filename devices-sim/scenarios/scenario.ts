// What a scenario is: phases with faults, one after the other.

import type { FaultName } from "../faults/built-in.ts";
import type { FaultPlan } from "../faults/fault.ts";

/** A part of a run. Plain data: it crosses to the worker threads. */
export interface Phase {
  readonly name: string;
  /** Infinity: until the run ends. */
  readonly durationMs: number;
  /** How many times as often as usual devices send. */
  readonly rate: number;
  readonly faults: readonly FaultPlan<FaultName>[];
}

/** A time line has no room for more. */
const MOST_STARTS = 100;

/** As people write it: a time is a text with its unit, such as "500ms", "10s", "2m" or "1h". */
export interface ScenarioDefinition {
  /** One after the other; after the last comes the first again, as long as the run lasts. */
  readonly phases: readonly PhaseDefinition[];
}

export interface PhaseDefinition {
  /** For the report. */
  readonly name?: string;
  readonly duration: string;
  /** How many times as often as usual devices send, 0.01 to 100. */
  readonly rate?: number;
  /** By the names that `sluice-sim --help` lists: the share of the messages or devices, 0 to 1. */
  readonly faults?: Readonly<Partial<Record<FaultName, number | FaultDefinition>>>;
}

export interface FaultDefinition {
  readonly share?: number;
  /** Faults of connections: the mean time between two of a device. */
  readonly every?: string;
  /** Faults of connections: how long each lasts. */
  readonly for?: string;
}

/** Gives a scenario its type; `--scenario FILE` checks it. */
export const defineScenario = (scenario: ScenarioDefinition): ScenarioDefinition => scenario;

/** When each phase begins, as often as it comes; none when there is but one that has no name. */
export function toPhaseStarts(
  phases: readonly Phase[],
  untilMs: number,
): readonly { readonly atMs: number; readonly name: string }[] {
  const starts: { readonly atMs: number; readonly name: string }[] = [];
  let atMs = 0;
  for (let number = 0; atMs < untilMs && starts.length < MOST_STARTS; number += 1) {
    const phase = phases[number % phases.length];
    if (phase === undefined) break;
    if (phase.name !== "") starts.push({ atMs, name: phase.name });
    atMs += phase.durationMs;
  }
  return starts;
}

/** The phase that a run is in at that time. */
export function phaseAt(phases: readonly Phase[], atMs: number): Phase | undefined {
  const lengthMs = phases.reduce((sum, { durationMs }) => sum + durationMs, 0);
  let leftMs = lengthMs === Infinity ? atMs : atMs % lengthMs;
  for (const phase of phases) {
    if (leftMs < phase.durationMs) return phase;
    leftMs -= phase.durationMs;
  }
  return undefined;
}
