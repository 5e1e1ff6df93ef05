import { gaussian, type Random } from "../random.ts";
import { between, clamp, HOUR_MS, MINUTE_MS, round, SECOND_MS, stopwatch, wander } from "./process.ts";
import { defineProfile } from "./profile.ts";

const CELLS = 14;
const STEP_MS = 30 * SECOND_MS;
/** A pack that says nothing for longer has rested. */
const USE_MS = 12 * HOUR_MS;
const EMPTY = 0.12;
const COOL_MS = 40 * MINUTE_MS;

/** Volts of a lithium-ion cell (NMC) without load, by its charge in steps of a tenth. */
const openCircuit = [3.0, 3.45, 3.55, 3.61, 3.66, 3.71, 3.79, 3.88, 3.97, 4.07, 4.19] as const;

/**
 * A battery pack of a vehicle or a solar store, 14 cells in series. It is used until it is nearly empty and then charged, first
 * with constant current, then with a falling one. Under load the voltage sags, more when cold or nearly empty; the current warms
 * it. A full charge counts a cycle, and every cycle takes a little of its health. Current is positive while it is charged.
 */
export const battery = defineProfile({
  metrics: {
    voltage: "V",
    current: "A",
    soc: "%",
    soh: "%",
    temperature: "°C",
    charging: "0/1",
    cycles: "count",
  },
  intervalMs: 10 * SECOND_MS,
  open(random: Random) {
    const ampereHours = between(random, 15, 60);
    const ohms = between(random, 2, 3.2) / ampereHours;
    const ambient = between(random, 8, 28);
    const demand = wander(random, { deviation: 0.6, memoryMs: 2 * MINUTE_MS });
    const passed = stopwatch();
    let soc = between(random, 0.3, 1);
    let charging = false;
    let current = 0;
    let temperature = ambient;
    let cycles = Math.floor(between(random, 0, 400));
    let soh = 1 - cycles * 0.00025 - between(random, 0, 0.02);

    const resistance = (): number =>
      ohms * (1 + 0.02 * Math.max(0, 20 - temperature) + Math.max(0, 0.2 - soc) * 4) * (1 + 2 * (1 - soh));
    const step = (ms: number, nowMs: number): void => {
      const hours = ms / HOUR_MS;
      const capacity = ampereHours * soh;
      if (charging && soc >= 0.995) {
        [charging, cycles, soh] = [false, cycles + 1, Math.max(0.5, soh - 0.00025)];
      } else if (!charging && soc <= EMPTY) charging = true;
      const wanted = charging
        ? 0.5 * capacity * clamp((1.02 - soc) / 0.2, 0.1, 1)
        : -0.3 * capacity * clamp(Math.exp(demand(nowMs)), 0.05, 4);
      current = clamp(wanted, -1.2 * ampereHours, ampereHours);
      soc = clamp(soc + (current * hours) / capacity, 0, 1);
      temperature += (ambient + current ** 2 * resistance() * 0.35 - temperature) * (1 - Math.exp(-ms / COOL_MS));
    };

    return {
      read(nowMs) {
        let leftMs = Math.min(passed(nowMs), USE_MS);
        do {
          step(Math.min(leftMs, STEP_MS), nowMs - leftMs);
          leftMs -= STEP_MS;
        } while (leftMs > 0);
        return {
          voltage: round(CELLS * cellVoltage(soc) + current * resistance(), 2),
          current: round(current, 2),
          soc: round(soc * 100, 2),
          soh: round(soh * 100, 2),
          temperature: round(temperature + 0.05 * gaussian(random), 2),
          charging: charging ? 1 : 0,
          cycles,
        };
      },
    };
  },
});

function cellVoltage(soc: number): number {
  const at = Math.min(9, Math.floor(soc * 10));
  const [low = 0, high = 0] = [openCircuit[at], openCircuit[at + 1]];
  return low + (high - low) * (soc * 10 - at);
}
