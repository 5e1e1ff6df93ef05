import { gaussian, type Random } from "../random.ts";
import { between, clamp, HOUR_MS, MINUTE_MS, round, SECOND_MS, stopwatch, toggle, wander } from "./process.ts";
import { defineProfile } from "./profile.ts";

/** The spindle reaches its speed, and loses it, with this time constant. */
const SPIN_MS = 4 * SECOND_MS;
const WARM_MS = 15 * MINUTE_MS;
/** What a sensor shows of a machine that stands still. */
const FLOOR_MM_S = 0.04;

/**
 * A machine tool with a bad bearing to come. The spindle runs and rests; vibration (velocity, ISO 20816) follows its speed, with
 * bursts of chatter. A bearing fault grows with the hours run: first kurtosis and peaks rise, later the RMS, and kurtosis falls
 * again as the damage spreads. A signal without a fault has kurtosis 3.
 */
export const machine = defineProfile({
  metrics: {
    running: "0/1",
    rpm: "1/min",
    vibration_rms: "mm/s",
    vibration_peak: "mm/s",
    kurtosis: "1",
    temperature: "°C",
    running_hours: "h",
  },
  intervalMs: SECOND_MS,
  open(random: Random) {
    const nominal = between(random, 2400, 6000);
    const smooth = between(random, 0.6, 1.4);
    const ambient = between(random, 17, 24);
    const heat = between(random, 18, 35);
    const duty = toggle(random, { onMs: 12 * MINUTE_MS, offMs: 5 * MINUTE_MS });
    const chatter = toggle(random, { onMs: 4 * SECOND_MS, offMs: 90 * SECOND_MS });
    const load = wander(random, { deviation: 0.12, memoryMs: 40 * SECOND_MS });
    const passed = stopwatch();
    let wear = openWear(random);
    let [rpm, temperature, hours] = [0, ambient, between(random, 500, 20_000)];

    return {
      read(nowMs) {
        const passedMs = passed(nowMs);
        const running = duty(passedMs);
        rpm += ((running ? nominal : 0) - rpm) * (1 - Math.exp(-passedMs / SPIN_MS));
        const share = rpm / nominal;
        temperature += (ambient + heat * share ** 2 - temperature) * (1 - Math.exp(-passedMs / WARM_MS));
        if (running) hours += passedMs / HOUR_MS;
        wear = wear.after(running ? passedMs / HOUR_MS : 0);
        const burst = chatter(passedMs) && share > 0.5 ? 1.2 + random() : 0;
        const rms = FLOOR_MM_S + share ** 1.5 * (smooth * Math.exp(load(nowMs)) * (1 + burst) + 9 * wear.damage ** 2);
        const kurtosis = Math.max(
          1.5,
          3 + 0.12 * gaussian(random) + share * (burst + 32 * wear.damage * (1 - wear.damage)),
        );
        const crest = 3 + 0.6 * Math.sqrt(Math.max(0, kurtosis - 3)) + 0.3 * random();
        return {
          running: running ? 1 : 0,
          rpm: Math.round(rpm),
          vibration_rms: round(rms, 3),
          vibration_peak: round(rms * crest, 3),
          kurtosis: round(kurtosis, 2),
          temperature: round(temperature + 0.05 * gaussian(random), 2),
          running_hours: round(hours, 3),
        };
      },
    };
  },
});

interface Wear {
  /** 0: as new; 1: destroyed. Never falls. */
  readonly damage: number;
  after(hours: number): Wear;
}

/** A crack that grows as fast as it is long: by e in `doubling` hours of running. */
function openWear(random: Random): Wear {
  const doubling = between(random, 4, 40);
  const at = (damage: number): Wear => ({
    damage,
    after: (hours) => at(clamp(damage * Math.exp(hours / doubling), 0, 1)),
  });
  return at(0.002 + 0.05 * random() ** 3);
}
