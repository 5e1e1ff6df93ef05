// What the models have in common: quantities that wander, states that last for a while, time that passes between readings.

import { gaussian, type Random } from "../random.ts";

export const SECOND_MS = 1000;
export const MINUTE_MS = 60 * SECOND_MS;
export const HOUR_MS = 60 * MINUTE_MS;
export const DAY_MS = 24 * HOUR_MS;

/**
 * A value that wanders around 0 with the given standard deviation and forgets its past after about `memoryMs`: an
 * Ornstein–Uhlenbeck process by its exact solution, so that it does not matter how often it is read.
 */
export function wander(
  random: Random,
  { deviation, memoryMs }: { readonly deviation: number; readonly memoryMs: number },
): (nowMs: number) => number {
  let value = deviation * gaussian(random);
  let lastMs: number | undefined;
  return (nowMs) => {
    const kept = Math.exp(-Math.max(0, nowMs - (lastMs ?? nowMs)) / memoryMs);
    lastMs = nowMs;
    value = value * kept + deviation * Math.sqrt(1 - kept * kept) * gaussian(random);
    return value;
  };
}

/** Milliseconds since the call before, 0 at first; never negative, also when the clock is set back. */
export function stopwatch(): (nowMs: number) => number {
  let lastMs: number | undefined;
  return (nowMs) => {
    const passedMs = Math.max(0, nowMs - (lastMs ?? nowMs));
    lastMs = nowMs;
    return passedMs;
  };
}

/**
 * Something that is on and off for random times (a two-state Markov process). `advance` lets time pass and tells whether it
 * is on then; with steps longer than the times the states just have their long-term shares.
 */
export function toggle(
  random: Random,
  { onMs, offMs }: { readonly onMs: number; readonly offMs: number },
): (passedMs: number) => boolean {
  const share = onMs / (onMs + offMs);
  let on = random() < share;
  return (passedMs) => {
    const kept = Math.exp(-passedMs * (1 / onMs + 1 / offMs));
    on = random() < (on ? share + (1 - share) * kept : share * (1 - kept));
    return on;
  };
}

/** A random time with this mean, of something that happens at any moment with the same chance. */
export const exponential = (random: Random, mean: number): number => -mean * Math.log(1 - random());

/** A random number in [low, high). */
export const between = (random: Random, low: number, high: number): number => low + (high - low) * random();

/** From -1 at 03:00 UTC to 1 at 15:00. */
export const dayCurve = (nowMs: number): number => Math.sin(2 * Math.PI * ((nowMs % DAY_MS) / DAY_MS - 9 / 24));

export const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));

export function round(value: number, digits: number): number {
  const scale = 10 ** digits;
  return Math.round(value * scale) / scale;
}
