import type { Random } from "../random.ts";
import { clamp, dayCurve, HOUR_MS, MINUTE_MS, round, SECOND_MS, wander } from "./process.ts";
import { defineProfile } from "./profile.ts";

/**
 * A room or greenhouse sensor: a day curve (warmest at 15:00 UTC), slow drift and noise; humidity falls as it gets warmer;
 * pressure wanders over half a day; the battery declines and never recovers; the dew point follows from temperature and humidity.
 */
export const climate = defineProfile({
  metrics: { temperature: "°C", humidity: "%", pressure: "hPa", battery: "%", dew_point: "°C", rssi: "dBm" },
  intervalMs: SECOND_MS,
  open(random: Random) {
    const mean = 19 + 5 * random();
    const amplitude = 2 + 3 * random();
    const dampness = 45 + 15 * random();
    const stationPressure = 1013.25 - 30 * random();
    const fullBattery = 70 + 30 * random();
    const drainPerHour = 0.5 + 1.5 * random();
    const strength = -50 - 30 * random();
    const noise = wander(random, { deviation: 0.08, memoryMs: 20 * SECOND_MS });
    const drift = wander(random, { deviation: 0.8, memoryMs: 6 * HOUR_MS });
    const moisture = wander(random, { deviation: 1.5, memoryMs: 10 * MINUTE_MS });
    const weather = wander(random, { deviation: 6, memoryMs: 12 * HOUR_MS });
    const fading = wander(random, { deviation: 3, memoryMs: 30 * SECOND_MS });
    let startedMs: number | undefined;

    return {
      read(nowMs) {
        startedMs ??= nowMs;
        const temperature = mean + amplitude * dayCurve(nowMs) + drift(nowMs) + noise(nowMs);
        const humidity = clamp(dampness - 2.2 * (temperature - mean) + moisture(nowMs), 5, 99);
        return {
          temperature: round(temperature, 2),
          humidity: round(humidity, 2),
          pressure: round(stationPressure + weather(nowMs), 2),
          battery: round(Math.max(0, fullBattery - drainPerHour * ((nowMs - startedMs) / HOUR_MS)), 2),
          dew_point: round(dewPoint(temperature, humidity), 2),
          rssi: Math.round(strength + fading(nowMs)),
        };
      },
    };
  },
});

/** Magnus formula with the coefficients of Sonntag (1990). */
function dewPoint(temperature: number, humidity: number): number {
  const gamma = Math.log(humidity / 100) + (17.62 * temperature) / (243.12 + temperature);
  return (243.12 * gamma) / (17.62 - gamma);
}
