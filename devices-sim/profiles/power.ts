import type { Random } from "../random.ts";
import { between, clamp, DAY_MS, HOUR_MS, MINUTE_MS, round, SECOND_MS, stopwatch, toggle, wander } from "./process.ts";
import { defineProfile } from "./profile.ts";

/** Of the wires between transformer and meter; what makes lamps dim when the kettle is on. */
const WIRE_OHMS = 0.25;
/** An hour long: what is on for longer than that between two readings is not known better. */
const FLICKER_MS = HOUR_MS;

interface Appliance {
  readonly watts: number;
  readonly powerFactor: number;
  readonly isOn: (passedMs: number) => boolean;
}

/**
 * The meter of a house with three phases. Consumption has a night, a morning and an evening, and appliances that go on and off;
 * voltage sags as current rises; power = voltage × current × power factor; the counters of energy only ever rise, by what was
 * consumed since the reading before, also while the device was away.
 */
export const power = defineProfile({
  metrics: {
    ...perPhase("voltage", "V"),
    ...perPhase("current", "A"),
    ...perPhase("power", "W"),
    ...perPhase("power_factor", "1"),
    ...perPhase("energy", "kWh"),
    power: "W",
    energy: "kWh",
    frequency: "Hz",
  },
  intervalMs: 10 * SECOND_MS,
  open(random: Random) {
    const phases = [openPhase(random), openPhase(random), openPhase(random)] as const;
    const frequency = wander(random, { deviation: 0.02, memoryMs: 5 * MINUTE_MS });
    const passed = stopwatch();
    return {
      read(nowMs) {
        const passedMs = passed(nowMs);
        const [l1, l2, l3] = [phases[0](nowMs, passedMs), phases[1](nowMs, passedMs), phases[2](nowMs, passedMs)];
        return {
          voltage_l1: round(l1.voltage, 1),
          voltage_l2: round(l2.voltage, 1),
          voltage_l3: round(l3.voltage, 1),
          current_l1: round(l1.current, 3),
          current_l2: round(l2.current, 3),
          current_l3: round(l3.current, 3),
          power_l1: round(l1.watts, 1),
          power_l2: round(l2.watts, 1),
          power_l3: round(l3.watts, 1),
          power_factor_l1: round(l1.powerFactor, 3),
          power_factor_l2: round(l2.powerFactor, 3),
          power_factor_l3: round(l3.powerFactor, 3),
          energy_l1: round(l1.energy, 4),
          energy_l2: round(l2.energy, 4),
          energy_l3: round(l3.energy, 4),
          power: round(l1.watts + l2.watts + l3.watts, 1),
          energy: round(l1.energy + l2.energy + l3.energy, 4),
          frequency: round(50 + clamp(frequency(nowMs), -0.2, 0.2), 3),
        };
      },
    };
  },
});

function perPhase<Name extends string>(
  name: Name,
  unit: string,
): Record<`${Name}_l1` | `${Name}_l2` | `${Name}_l3`, string> {
  return { [`${name}_l1`]: unit, [`${name}_l2`]: unit, [`${name}_l3`]: unit } as ReturnType<typeof perPhase<Name>>;
}

function openPhase(random: Random) {
  const idle = between(random, 40, 200);
  const lively = between(random, 150, 700);
  const grid = wander(random, { deviation: 1.8, memoryMs: 20 * MINUTE_MS });
  const whim = wander(random, { deviation: 0.25, memoryMs: 10 * MINUTE_MS });
  const appliances: readonly Appliance[] = [
    { watts: between(random, 80, 140), powerFactor: 0.75, ...cycle(random, 15, 30) },
    { watts: between(random, 1800, 2300), powerFactor: 1, ...cycle(random, 3, 180) },
    { watts: between(random, 500, 2000), powerFactor: 0.92, ...cycle(random, 40, 900) },
  ];
  let energy = between(random, 1000, 20_000);
  let last: number | undefined;

  return (nowMs: number, passedMs: number) => {
    let watts = idle + lively * household(nowMs) * Math.exp(whim(nowMs));
    let reactive = watts * Math.tan(Math.acos(0.95));
    for (const { watts: more, powerFactor, isOn } of appliances) {
      if (!isOn(Math.min(passedMs, FLICKER_MS))) continue;
      watts += more;
      reactive += more * Math.tan(Math.acos(powerFactor));
    }
    energy += (((last ?? watts) + watts) / 2 / 1000) * (passedMs / HOUR_MS);
    last = watts;
    const apparent = Math.hypot(watts, reactive);
    const unloaded = 231 + clamp(grid(nowMs), -8, 8);
    const voltage = unloaded - WIRE_OHMS * (apparent / unloaded);
    return { watts, energy, voltage, current: apparent / voltage, powerFactor: watts / apparent };
  };
}

const cycle = (random: Random, onMinutes: number, offMinutes: number) => ({
  isOn: toggle(random, { onMs: onMinutes * MINUTE_MS, offMs: offMinutes * MINUTE_MS }),
});

/** How much is going on in a house, 0.1 to about 1: a peak at 07:30 and a broader one at 19:30 UTC. */
function household(nowMs: number): number {
  const hour = (nowMs % DAY_MS) / HOUR_MS;
  const peak = (at: number, width: number): number => Math.exp(-(((hour - at) / width) ** 2));
  return 0.1 + 0.6 * peak(7.5, 1.2) + 0.25 * peak(13, 3) + 0.9 * peak(19.5, 2.2);
}
