// What a simulated device measures. A profile is a kind of sensor; each device gets a sensor of its own with its own state.

import { createRandom, gaussian, type Random } from "./random.ts";

/** One reading as the device sends it: `ts` in Unix milliseconds, `seq` from 1, one number per metric. */
export interface Telemetry {
  readonly ts: number;
  readonly seq: number;
  readonly metrics: Metrics;
}

export type Metrics = Readonly<Record<string, number>>;

/** Takes a reading at a Unix time in milliseconds. The values depend on seed and times only. */
export type Sensor = (nowMs: number) => Metrics;

/** Makes the sensor of one device. */
export type Profile = (random: Random) => Sensor;

const profiles = { climate } satisfies Record<string, Profile>;

export type ProfileName = keyof typeof profiles;

export const profileNames = Object.keys(profiles) as readonly ProfileName[];

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/**
 * A room or greenhouse sensor. temperature °C: day curve (warmest at 15:00 UTC), slow drift and noise; humidity % falls
 * as it gets warmer; pressure hPa wanders over half a day; battery % declines and never recovers; dew_point °C follows
 * from temperature and humidity; rssi dBm.
 */
function climate(random: Random): Sensor {
  const mean = 19 + 5 * random();
  const amplitude = 2 + 3 * random();
  const dampness = 45 + 15 * random();
  const stationPressure = 1013.25 - 30 * random();
  const fullBattery = 70 + 30 * random();
  const drainPerHour = 0.5 + 1.5 * random();
  const strength = -50 - 30 * random();
  const noise = wander(random, { deviation: 0.08, memoryMs: 20_000 });
  const drift = wander(random, { deviation: 0.8, memoryMs: 6 * HOUR_MS });
  const moisture = wander(random, { deviation: 1.5, memoryMs: 10 * 60_000 });
  const weather = wander(random, { deviation: 6, memoryMs: 12 * HOUR_MS });
  const fading = wander(random, { deviation: 3, memoryMs: 30_000 });
  let startedMs: number | undefined;

  return (nowMs) => {
    startedMs ??= nowMs;
    const day = amplitude * Math.sin(2 * Math.PI * ((nowMs % DAY_MS) / DAY_MS - 9 / 24));
    const temperature = mean + day + drift(nowMs) + noise(nowMs);
    const humidity = clamp(dampness - 2.2 * (temperature - mean) + moisture(nowMs), 5, 99);
    return {
      temperature: round(temperature, 2),
      humidity: round(humidity, 2),
      pressure: round(stationPressure + weather(nowMs), 2),
      battery: round(Math.max(0, fullBattery - drainPerHour * ((nowMs - startedMs) / HOUR_MS)), 2),
      dew_point: round(dewPoint(temperature, humidity), 2),
      rssi: Math.round(strength + fading(nowMs)),
    };
  };
}

/** The sensor of device number `index`. */
export function createSensor(profile: ProfileName, seed: number, index: number): Sensor {
  return profiles[profile](createRandom(seed, index, 0));
}

/**
 * A value that wanders around 0 with the given standard deviation and forgets its past after about `memoryMs`: an
 * Ornstein–Uhlenbeck process by its exact solution, so that it does not matter how often it is read.
 */
function wander(
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

/** Magnus formula with the coefficients of Sonntag (1990). */
function dewPoint(temperature: number, humidity: number): number {
  const gamma = Math.log(humidity / 100) + (17.62 * temperature) / (243.12 + temperature);
  return (243.12 * gamma) / (17.62 - gamma);
}

const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));

function round(value: number, digits: number): number {
  const scale = 10 ** digits;
  return Math.round(value * scale) / scale;
}
