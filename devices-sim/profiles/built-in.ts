import { createRandom } from "../random.ts";
import { battery } from "./battery.ts";
import { climate } from "./climate.ts";
import { door } from "./door.ts";
import { machine } from "./machine.ts";
import { power } from "./power.ts";
import type { Profile, Sensor } from "./profile.ts";
import { vehicle } from "./vehicle.ts";

export const profiles = { climate, power, vehicle, machine, door, battery } satisfies Record<string, Profile>;

export const profileNames = Object.keys(profiles) as readonly (keyof typeof profiles)[];

/** The sensor of device number `index`. */
export const createSensor = (profile: Profile, seed: number, index: number): Sensor =>
  profile.open(createRandom(seed, index, 0));
