import type { Random } from "../random.ts";
import { between, clamp, MINUTE_MS, round, SECOND_MS, stopwatch, wander } from "./process.ts";
import { defineProfile } from "./profile.ts";

/** Metres per degree of latitude, and of longitude on the equator. */
const METRES_PER_DEGREE = 111_320;
const STEP_S = 0.5;
const TURN_SPEED = 5;
const TURN_DEGREES_PER_S = 30;
const ACCELERATION = 2.2;
const BRAKING = 3;
/** Beyond this distance from where it began the next turn leads back. */
const RADIUS_M = 12_000;
/** A vehicle that says nothing for longer has parked. */
const DRIVE_MS = 10 * MINUTE_MS;
const LIMITS_KMH = [30, 50, 50, 50, 70, 90];

/** Where fleets begin: latitude and longitude in degrees, altitude in metres. */
const cities = [
  [52.52, 13.405, 35],
  [48.8566, 2.3522, 40],
  [40.4168, -3.7038, 650],
  [41.8781, -87.6298, 180],
  [35.6762, 139.6503, 40],
  [-33.8688, 151.2093, 30],
  [-23.5505, -46.6333, 760],
  [28.6139, 77.209, 216],
] as const;

/**
 * A vehicle in a town: straight roads with a speed limit, corners that it brakes for, traffic lights where it waits. It never
 * accelerates or brakes harder than a car does; position, speed, heading and odometer belong together.
 */
export const vehicle = defineProfile({
  metrics: {
    latitude: "°",
    longitude: "°",
    altitude: "m",
    speed: "km/h",
    heading: "°",
    acceleration: "m/s²",
    odometer: "km",
    fuel: "%",
  },
  intervalMs: SECOND_MS,
  open(random: Random) {
    const drive = openDrive(random);
    const passed = stopwatch();
    const hills = wander(random, { deviation: 8, memoryMs: 5 * MINUTE_MS });
    return {
      read(nowMs) {
        const { latitude, longitude, altitude, speed, heading, acceleration, odometer, fuel } = drive(
          Math.min(passed(nowMs), DRIVE_MS) / 1000,
        );
        return {
          latitude: round(latitude, 6),
          longitude: round(longitude, 6),
          altitude: round(altitude + hills(nowMs), 1),
          speed: round(speed * 3.6, 1),
          heading: round(heading, 1) % 360,
          acceleration: round(acceleration, 2),
          odometer: round(odometer / 1000, 3),
          fuel: round(fuel, 2),
        };
      },
    };
  },
});

/** Lets the vehicle drive for so many seconds. Lengths in metres, speeds in m/s, angles in degrees clockwise from north. */
function openDrive(random: Random) {
  const [homeLatitude, homeLongitude, altitude] = cities[Math.floor(random() * cities.length)] ?? cities[0];
  const metresPerLongitude = METRES_PER_DEGREE * Math.cos((homeLatitude * Math.PI) / 180);
  const perKilometre = between(random, 0.08, 0.2);
  let [north, east] = [between(random, -3000, 3000), between(random, -3000, 3000)];
  let heading = Math.floor(random() * 4) * 90 + between(random, 0, 20);
  let odometer = between(random, 5e6, 150e6);
  let fuel = between(random, 30, 100);
  let [speed, acceleration, waitS] = [0, 0, between(random, 0, 20)];
  let road = nextRoad(random);
  let toTurn = 0;

  const corner = (): void => {
    road = nextRoad(random);
    const choices = [-90, 0, 0, 90].map((turn) => turn + between(random, -8, 8));
    const home = (Math.atan2(-east, -north) * 180) / Math.PI;
    toTurn =
      Math.hypot(north, east) > RADIUS_M
        ? clamp(angle(home - heading), -100, 100)
        : (choices[Math.floor(random() * choices.length)] ?? 0);
    if (Math.abs(toTurn) < 20) return;
    if (random() < 0.4) waitS = between(random, 3, 40);
    if (fuel < 10) [fuel, waitS] = [100, between(random, 120, 300)];
  };
  const step = (seconds: number): void => {
    const stopping = waitS > 0 && speed < 0.01;
    if (stopping) waitS -= seconds;
    const braking = Math.sqrt(TURN_SPEED ** 2 + 2 * BRAKING * 0.8 * Math.max(0, road.metres - speed * seconds));
    const turning = Math.abs(toTurn) > 20 ? TURN_SPEED : road.limit;
    const wanted = waitS > 0 ? 0 : Math.min(road.limit, braking, turning);
    const before = speed;
    speed = clamp(wanted, speed - BRAKING * seconds, speed + ACCELERATION * seconds);
    acceleration = (speed - before) / seconds;
    const metres = ((before + speed) / 2) * seconds;
    const turned = speed > 0.5 ? clamp(toTurn, -TURN_DEGREES_PER_S * seconds, TURN_DEGREES_PER_S * seconds) : 0;
    toTurn -= turned;
    heading = (heading + turned + 360) % 360;
    north += metres * Math.cos((heading * Math.PI) / 180);
    east += metres * Math.sin((heading * Math.PI) / 180);
    odometer += metres;
    fuel = Math.max(0, fuel - (perKilometre * metres) / 1000);
    road.metres -= metres;
    if (road.metres <= 0) corner();
  };

  return (seconds: number) => {
    const steps = Math.ceil(seconds / STEP_S);
    for (let at = 0; at < steps; at += 1) step(seconds / steps);
    return {
      latitude: homeLatitude + north / METRES_PER_DEGREE,
      longitude: homeLongitude + east / metresPerLongitude,
      altitude,
      speed,
      heading,
      acceleration,
      odometer,
      fuel,
    };
  };
}

const nextRoad = (random: Random): { metres: number; readonly limit: number } => ({
  metres: between(random, 80, 700),
  limit: (LIMITS_KMH[Math.floor(random() * LIMITS_KMH.length)] ?? 50) / 3.6,
});

/** The same direction between -180 and 180. */
const angle = (degrees: number): number => ((((degrees + 180) % 360) + 360) % 360) - 180;
