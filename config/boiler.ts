// Devices of your own for the simulator: `npm run sim -- --profile config/boiler.ts --devices 20`. A boiler that heats its water
// to 60 °C, lets it cool to 50 °C, and counts its starts. Each device has a boiler of its own; one seed repeats them all.

import { defineProfile } from "sluice/sim";

const AMBIENT = 18;
const COOLING_PER_HOUR = 0.15;

export default defineProfile({
  // Every metric and its unit.
  metrics: { water: "°C", burner: "0/1", starts: "count" },

  // A message every 5 s, unless --rate says otherwise.
  intervalMs: 5000,

  // One device: what differs between them is drawn from `random`, and from nothing else.
  open(random) {
    const degreesPerMinute = 0.8 + random();
    let water = 45 + 15 * random();
    let burner = false;
    let starts = 0;
    let lastMs: number | undefined;

    return {
      // Called for each message. The time since the last call is anything from an instant to hours of being offline.
      read(nowMs) {
        const minutes = Math.max(0, nowMs - (lastMs ?? nowMs)) / 60_000;
        lastMs = nowMs;
        water = AMBIENT + (water - AMBIENT) * Math.exp(-COOLING_PER_HOUR * (minutes / 60));
        if (burner) water = Math.min(60, water + degreesPerMinute * minutes);
        if (!burner && water < 50) [burner, starts] = [true, starts + 1];
        if (water >= 60) burner = false;
        return { water: Math.round(water * 10) / 10, burner: burner ? 1 : 0, starts };
      },
    };
  },
});
