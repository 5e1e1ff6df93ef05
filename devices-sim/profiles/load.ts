// Finds a profile by its name, or in a file of the user's. What is wrong there is a sentence with the file and the key.

import { existsSync } from "node:fs";
import { relative } from "node:path";
import { pathToFileURL } from "node:url";
import { z } from "zod";
import { createRandom } from "../random.ts";
import { profiles } from "./built-in.ts";
import type { Metrics, Profile, Sensor } from "./profile.ts";

export type LoadedProfile =
  | { readonly kind: "profile"; readonly profile: Profile }
  | { readonly kind: "wrong"; readonly problem: string };

const isFunction = (value: unknown): boolean => typeof value === "function";

const shape = z.strictObject({
  metrics: z
    .record(z.string().min(1), z.string(), "expected an object: metric → unit")
    .refine((metrics) => Object.keys(metrics).length > 0, "expected at least one metric"),
  intervalMs: z
    .number("expected a number of milliseconds")
    .positive()
    .max(2 ** 31 - 1),
  open: z.custom(isFunction, "expected a function: (random) => sensor"),
});

const sensorShape = z.strictObject({
  read: z.custom(isFunction, "expected a function: (nowMs) => metrics"),
  waitMs: z.custom(isFunction, "expected a function: () => milliseconds").optional(),
});

/** `name` is that of a built-in profile or the absolute path of a file. Never rejects. */
export async function loadProfile(name: string): Promise<LoadedProfile> {
  const builtIn = Object.entries(profiles).find(([each]) => each === name)?.[1];
  if (builtIn !== undefined) return { kind: "profile", profile: builtIn };
  const file = relative(process.cwd(), name);
  const wrong = (problem: string): LoadedProfile => ({ kind: "wrong", problem: `${file}: ${problem}` });
  if (!existsSync(name)) return wrong("there is no such file");
  try {
    const { default: candidate } = (await import(pathToFileURL(name).href)) as { readonly default?: unknown };
    if (candidate === undefined) return wrong("has no default export: `export default defineProfile({ … })`");
    const parsed = shape.safeParse(candidate);
    if (!parsed.success) return wrong(toSentence(parsed.error));
    const profile = guard(candidate as Profile, file);
    const sensor = profile.open(createRandom(0));
    sensor.read(Date.now());
    sensor.waitMs?.();
    return { kind: "profile", profile };
  } catch (error) {
    if (error instanceof ProfileError) return { kind: "wrong", problem: error.message };
    return wrong(`cannot be loaded: ${String(error)}`);
  }
}

const toSentence = ({ issues }: z.ZodError): string =>
  issues
    .map(({ path, message }) => (path.length === 0 ? message : `\`${path.map(String).join(".")}\`: ${message}`))
    .join("; ");

class ProfileError extends Error {}

/** The profile, and an error that names file and key as soon as one of its sensors says what it must not. */
function guard(profile: Profile, file: string): Profile {
  const names = Object.keys(profile.metrics);
  const calling = <Value>(key: string, call: () => Value): Value => {
    try {
      return call();
    } catch (error) {
      throw new ProfileError(`${file}: \`${key}\` threw ${String(error)}`, { cause: error });
    }
  };
  return {
    ...profile,
    open(random) {
      const sensor = calling<Sensor>("open", () => profile.open(random));
      const parsed = sensorShape.safeParse(sensor);
      if (!parsed.success) throw new ProfileError(`${file}: what \`open\` returns: ${toSentence(parsed.error)}`);
      return {
        read(nowMs) {
          const metrics = calling<Metrics>("read", () => sensor.read(nowMs));
          const problem = check(metrics, names);
          if (problem !== undefined) throw new ProfileError(`${file}: what \`read\` returns: ${problem}`);
          return metrics;
        },
        ...(sensor.waitMs === undefined
          ? {}
          : {
              waitMs() {
                const wait = calling("waitMs", () => sensor.waitMs?.() ?? Number.NaN);
                if (Number.isFinite(wait) && wait >= 0) return wait;
                throw new ProfileError(`${file}: \`waitMs\` returned ${String(wait)}: expected milliseconds`);
              },
            }),
      };
    },
  };
}

function check(metrics: unknown, names: readonly string[]): string | undefined {
  if (typeof metrics !== "object" || metrics === null) return `expected an object, got ${String(metrics)}`;
  const values = new Map<string, unknown>(Object.entries(metrics));
  for (const name of names) {
    const value = values.get(name);
    if (typeof value !== "number" || !Number.isFinite(value)) {
      return `\`${name}\`: expected a finite number, got ${String(value)}`;
    }
  }
  const unknown = [...values.keys()].find((name) => !names.includes(name));
  return unknown === undefined ? undefined : `\`${unknown}\` is not among the profile's \`metrics\``;
}
