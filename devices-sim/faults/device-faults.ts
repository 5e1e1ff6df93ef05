// The faults of one device in the present phase: which message is spoilt, what its clock says, what happens to its connection.
// What happens depends on the seed, the device and the phase only, not on how fast the broker is.

import type { Phase } from "../scenarios/scenario.ts";
import { createRandom, type Random } from "../random.ts";
import type { Schedule } from "../schedule.ts";
import { faults, type FaultName } from "./built-in.ts";
import type { ConnectionFault, DeliveryFault, End, FaultPlan, Link, PayloadFault } from "./fault.ts";

/** What one message suffers. */
export interface MessageFault {
  readonly name: FaultName;
  readonly fault: PayloadFault | DeliveryFault;
}

export interface DeviceFaultsParts {
  readonly seed: number;
  /** The device's number. */
  readonly index: number;
  readonly schedule: Schedule;
  /** A fault that is none of a message has begun. */
  readonly onFault: (name: FaultName) => void;
}

export class DeviceFaults {
  readonly #parts: DeviceFaultsParts;
  /** For each message, and for how it is spoilt. */
  readonly #messages: Random;
  readonly #spoiling: Random;
  #plans: readonly FaultPlan<FaultName>[] = [];
  #clock: (nowMs: number) => number = (nowMs) => nowMs;
  /** Counts phases: a task of an earlier one does nothing. */
  #phase = 0;
  #rate = 1;
  /** Ends the fault of the connection that lasts; one at a time. */
  #end: End | undefined;

  constructor(parts: DeviceFaultsParts) {
    this.#parts = parts;
    this.#messages = createRandom(parts.seed, parts.index, 1);
    this.#spoiling = createRandom(parts.seed, parts.index, 5);
  }

  /** How many times as often as usual the device sends. */
  get rate(): number {
    return this.#rate;
  }

  get spoiling(): Random {
    return this.#spoiling;
  }

  /** `number` counts the phases of the run; `startMs` is on the schedule's clock. `link`: undefined until the device connects. */
  enter(phase: Phase, number: number, startMs: number, link: () => Link | undefined): void {
    this.leave();
    const { seed, index, onFault } = this.#parts;
    this.#rate = phase.rate;
    const plans: FaultPlan<FaultName>[] = [];
    for (const [at, plan] of phase.faults.entries()) {
      const fault = faults[plan.name];
      const random = createRandom(seed, index, 4, number, at);
      if (fault.kind === "payload" || fault.kind === "delivery") plans.push(plan);
      else if (random() >= plan.share) continue;
      else if (fault.kind === "connection") this.#repeat({ plan, fault, random, startMs, link });
      else {
        onFault(plan.name);
        this.#clock = fault.open(random);
      }
    }
    this.#plans = plans;
  }

  /** Ends what lasts, and all that would come. */
  leave(): void {
    this.#phase += 1;
    this.#plans = [];
    this.#clock = (nowMs) => nowMs;
    this.#endOne(true);
  }

  /** Asked once for each message. */
  drawMessage(): MessageFault | undefined {
    if (this.#plans.length === 0) return undefined;
    let draw = this.#messages();
    for (const { name, share } of this.#plans) {
      const fault = faults[name];
      if (draw < share) return fault.kind === "payload" || fault.kind === "delivery" ? { name, fault } : undefined;
      draw -= share;
    }
    return undefined;
  }

  /** What the device takes for the time. */
  toDeviceTime(nowMs: number): number {
    return this.#clock(nowMs);
  }

  #repeat({
    plan,
    fault,
    random,
    startMs,
    link,
  }: {
    readonly plan: FaultPlan<FaultName>;
    readonly fault: ConnectionFault;
    readonly random: Random;
    readonly startMs: number;
    readonly link: () => Link | undefined;
  }): void {
    const { everyMs = fault.everyMs, forMs = fault.forMs } = plan;
    const phase = this.#phase;
    const gapMs = (): number => (fault.together === true ? everyMs : everyMs * (0.5 + random()));
    let isOn = false;
    this.#parts.schedule.at(startMs + gapMs(), (dueMs) => {
      if (phase !== this.#phase) return undefined;
      if (isOn) {
        isOn = false;
        this.#endOne(false);
        return dueMs + gapMs();
      }
      const connection = this.#end === undefined ? link() : undefined;
      if (connection === undefined) return dueMs + gapMs();
      this.#parts.onFault(plan.name);
      const end = fault.begin(connection, random);
      if (forMs === 0) return dueMs + gapMs();
      isOn = true;
      this.#end = end;
      return dueMs + forMs;
    });
  }

  #endOne(isEarly: boolean): void {
    const end = this.#end;
    this.#end = undefined;
    end?.(isEarly);
  }
}
