// Clocks that are wrong.

import type { ClockFault } from "./fault.ts";

const HOUR_MS = 3_600_000;

export const clockSkew: ClockFault = {
  kind: "clock",
  about: "the clock is wrong by up to 12 hours, as in another time zone",
  open(random) {
    const offsetMs = Math.round((2 * random() - 1) * 12 * HOUR_MS);
    return (nowMs) => nowMs + offsetMs;
  },
};

/** A quartz is wrong by 20 to 100 ppm; this one is bad enough to be seen within minutes. */
export const clockDrift: ClockFault = {
  kind: "clock",
  about: "the clock runs up to 1 % too fast or too slow",
  open(random) {
    const rate = 1 + 0.01 * (2 * random() - 1);
    let firstMs: number | undefined;
    return (nowMs) => {
      firstMs ??= nowMs;
      return Math.round(firstMs + (nowMs - firstMs) * rate);
    };
  },
};
