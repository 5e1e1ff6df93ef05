// What a profile is, for the built-in ones and for your own: `sluice-sim --profile ./my-profile.ts`, see config/boiler.ts.

import type { Random } from "../random.ts";

/** One number per metric. What is on or off is 1 or 0. */
export type Metrics<Name extends string = string> = Readonly<Record<Name, number>>;

/** What one device measures: it has a state of its own, and what it reads depends on seed and times only. */
export interface Sensor<Name extends string = string> {
  /**
   * Takes a reading at a Unix time in milliseconds. Called for each message that is sent, so the time between two calls may
   * be anything, and may be negative when the computer's clock is set back. Must be quick: thousands of devices share a thread.
   */
  read(nowMs: number): Metrics<Name>;
  /**
   * Only where a device sends when something happens: how long until the next message, in milliseconds. Called after each
   * `read`; the mean over a long time is `intervalMs`. Left out: the device sends every `intervalMs`, give or take `--jitter`.
   */
  waitMs?(): number;
}

/** A kind of device. */
export interface Profile<Name extends string = string> {
  /** Every metric, in the order in which it is sent, and its unit: `{ temperature: "°C", open: "0/1" }`. */
  readonly metrics: Readonly<Record<Name, string>>;
  /** Time between two messages of a device in milliseconds, or their mean; `--rate` replaces it. */
  readonly intervalMs: number;
  /** Makes the sensor of one device. `random` is a stream of its own: draw from nothing else, and a seed repeats the run. */
  open(random: Random): Sensor<Name>;
}

/** Gives a profile its types; a file for `--profile` has it as its default export. */
export const defineProfile = <const Name extends string>(profile: Profile<Name>): Profile<Name> => profile;
