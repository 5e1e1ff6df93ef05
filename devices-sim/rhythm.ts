// When a device takes its readings: as planned from the start of the run, whatever the broker and this machine take.

import type { SimOptions } from "./options.ts";
import type { Sensor } from "./profiles/profile.ts";
import type { Random } from "./random.ts";

export interface RhythmParts {
  readonly options: Pick<SimOptions, "jitter" | "clockMs">;
  readonly sensor: Sensor;
  /** Mean time between two readings. */
  readonly intervalMs: number;
  /** What the times of a sensor of events are multiplied by. */
  readonly pace: number;
  /** When the device connects, from the start of the run. */
  readonly startsAtMs: number;
  readonly random: Random;
}

/** Behind by more than this, readings are skipped instead of sent in a burst. */
const CATCH_UP_MS = 1000;

export class Rhythm {
  readonly #parts: RhythmParts;
  /** From the start of the run to the next reading. */
  #sinceStartMs: number;

  constructor(parts: RhythmParts) {
    this.#parts = parts;
    this.#sinceStartMs = parts.startsAtMs;
  }

  /** Until the first reading. */
  firstMs(): number {
    const { random, intervalMs } = this.#parts;
    const waitMs = random() * intervalMs;
    this.#sinceStartMs += waitMs;
    return waitMs;
  }

  /** From one reading to the next, and how many are left out because it is `lateMs` already. `rate`: times as often as usual. */
  next(lateMs: number, rate: number): { readonly waitMs: number; readonly missed: number } {
    const intervalMs = this.#parts.intervalMs / rate;
    const waitMs = this.#waitMs() / rate;
    const behindMs = lateMs - waitMs;
    const missed = behindMs <= CATCH_UP_MS ? 0 : Math.ceil(behindMs / intervalMs);
    this.#sinceStartMs += waitMs + missed * intervalMs;
    return { waitMs: waitMs + missed * intervalMs, missed };
  }

  /** What the device's clock shows. One of its own shows when the reading was due, so that it does so again in another run. */
  now(): number {
    const { clockMs } = this.#parts.options;
    return clockMs === undefined ? Date.now() : clockMs + Math.round(this.#sinceStartMs);
  }

  #waitMs(): number {
    const { options, sensor, intervalMs, pace, random } = this.#parts;
    if (sensor.waitMs !== undefined) return sensor.waitMs() * pace;
    return intervalMs * (1 + options.jitter * (2 * random() - 1));
  }
}
