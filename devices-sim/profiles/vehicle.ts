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

/** Where a vehicle is and what it is about to do. Lengths in metres, speeds in m/s, angles in degrees clockwise from north. */
interface Drive {
  /** From the middle of the town. */
  north: number;
  east: number;
  heading: number;
  odometer: number;
  /** Per cent of the tank. */
  fuel: number;
  readonly fuelPerKilometre: number;
  speed: number;
  acceleration: number;
  /** What is left of the present road. */
  road: Road;
  /** What is left of the present corner. */
  toTurn: number;
  /** How long it stands still, once it does. */
  waitS: number;
}

interface Road {
  metres: number;
  readonly limit: number;
}

/** Lets the vehicle drive for so many seconds. */
function openDrive(random: Random) {
  const [homeLatitude, homeLongitude, altitude] = cities[Math.floor(random() * cities.length)] ?? cities[0];
  const metresPerLongitude = METRES_PER_DEGREE * Math.cos((homeLatitude * Math.PI) / 180);
  // In this order: each takes the next of the numbers that the seed gives.
  const drive: Drive = {
    fuelPerKilometre: between(random, 0.08, 0.2),
    north: between(random, -3000, 3000),
    east: between(random, -3000, 3000),
    heading: Math.floor(random() * 4) * 90 + between(random, 0, 20),
    odometer: between(random, 5e6, 150e6),
    fuel: between(random, 30, 100),
    speed: 0,
    acceleration: 0,
    waitS: between(random, 0, 20),
    road: nextRoad(random),
    toTurn: 0,
  };
  return (seconds: number) => {
    const steps = Math.ceil(seconds / STEP_S);
    for (let at = 0; at < steps; at += 1) {
      move(drive, seconds / steps);
      if (drive.road.metres <= 0) reachCorner(drive, random);
    }
    return {
      ...drive,
      latitude: homeLatitude + drive.north / METRES_PER_DEGREE,
      longitude: homeLongitude + drive.east / metresPerLongitude,
      altitude,
    };
  };
}

function move(drive: Drive, seconds: number): void {
  const before = drive.speed;
  if (drive.waitS > 0 && before < 0.01) drive.waitS -= seconds;
  drive.speed = clamp(wantedSpeed(drive, seconds), before - BRAKING * seconds, before + ACCELERATION * seconds);
  drive.acceleration = (drive.speed - before) / seconds;
  const metres = ((before + drive.speed) / 2) * seconds;
  const mostTurn = TURN_DEGREES_PER_S * seconds;
  const turned = drive.speed > 0.5 ? clamp(drive.toTurn, -mostTurn, mostTurn) : 0;
  drive.toTurn -= turned;
  drive.heading = (drive.heading + turned + 360) % 360;
  drive.north += metres * Math.cos((drive.heading * Math.PI) / 180);
  drive.east += metres * Math.sin((drive.heading * Math.PI) / 180);
  drive.odometer += metres;
  drive.fuel = Math.max(0, drive.fuel - (drive.fuelPerKilometre * metres) / 1000);
  drive.road.metres -= metres;
}

/** No more than the road allows, and so slow that the next corner can be taken. */
function wantedSpeed({ waitS, road, speed, toTurn }: Drive, seconds: number): number {
  if (waitS > 0) return 0;
  const braking = Math.sqrt(TURN_SPEED ** 2 + 2 * BRAKING * 0.8 * Math.max(0, road.metres - speed * seconds));
  return Math.min(road.limit, braking, isCorner(toTurn) ? TURN_SPEED : road.limit);
}

/** Turns into the next road, perhaps after a traffic light or at a filling station. */
function reachCorner(drive: Drive, random: Random): void {
  const { north, east, heading } = drive;
  drive.road = nextRoad(random);
  const choices = [-90, 0, 0, 90].map((turn) => turn + between(random, -8, 8));
  const home = (Math.atan2(-east, -north) * 180) / Math.PI;
  drive.toTurn =
    Math.hypot(north, east) > RADIUS_M
      ? clamp(angle(home - heading), -100, 100)
      : (choices[Math.floor(random() * choices.length)] ?? 0);
  if (!isCorner(drive.toTurn)) return;
  if (random() < 0.4) drive.waitS = between(random, 3, 40);
  if (drive.fuel < 10) [drive.fuel, drive.waitS] = [100, between(random, 120, 300)];
}

/** Less than that is a bend, which is taken at full speed. */
const isCorner = (turn: number): boolean => Math.abs(turn) >= 20;

const nextRoad = (random: Random): Road => ({
  metres: between(random, 80, 700),
  limit: (LIMITS_KMH[Math.floor(random() * LIMITS_KMH.length)] ?? 50) / 3.6,
});

/** The same direction between -180 and 180. */
const angle = (degrees: number): number => ((((degrees + 180) % 360) + 360) % 360) - 180;
