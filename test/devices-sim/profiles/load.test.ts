import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createRandom } from "../../../devices-sim/random.ts";
import { climate } from "../../../devices-sim/profiles/climate.ts";
import { loadProfile } from "../../../devices-sim/profiles/load.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "sluice-profile-"));
});
afterAll(() => rm(dir, { recursive: true }));

let files = 0;
async function load(text: string) {
  files += 1;
  const path = join(dir, `profile-${files}.ts`);
  await writeFile(path, text);
  return loadProfile(path);
}

async function problem(text: string): Promise<string> {
  const loaded = await load(text);
  return loaded.kind === "wrong" ? loaded.problem : "none";
}

const reading = (read: string, rest = ""): string =>
  `export default { metrics: { water: "°C" }, intervalMs: 1000, open: () => ({ read: () => (${read})${rest} }) };`;

test("a built-in profile is found by its name", async () => {
  expect(await loadProfile("climate")).toEqual({ kind: "profile", profile: climate });
});

test("the example is a profile: it heats, cools and counts its starts", async () => {
  const loaded = await loadProfile(join(import.meta.dirname, "../../../config/boiler.ts"));
  if (loaded.kind === "wrong") throw new Error(loaded.problem);
  const boiler = loaded.profile.open(createRandom(1));
  const rows = Array.from({ length: 2000 }, (_, minute) => boiler.read(minute * 60_000));
  expect(rows.at(-1)?.["starts"]).toBeGreaterThan(1);
  expect(Math.max(...rows.map((row) => row["water"] ?? 0))).toBeLessThanOrEqual(60);
});

test.each([
  ["export const profile = 1;", "no default export"],
  ["export default 7;", "expected object"],
  [`export default { metrics: {}, intervalMs: 1, open: () => 1 };`, "`metrics`: expected at least one metric"],
  [`export default { metrics: { a: "°C" }, intervalMs: "1s", open: () => 1 };`, "`intervalMs`: expected a number"],
  [`export default { metrics: { a: "°C" }, intervalMs: 0, open: () => 1 };`, "`intervalMs`"],
  [`export default { metrics: { a: "°C" }, intervalMs: 1 };`, "`open`: expected a function"],
  [`export default { metrics: { a: "°C" }, intervalMs: 1, opne: 1, open: () => 1 };`, "opne"],
  [`export default { metrics: { a: "°C" }, intervalMs: 1, open: () => ({}) };`, "`read`: expected a function"],
  [reading("7"), "expected an object, got 7"],
  [reading("{}"), "`water`: expected a finite number, got undefined"],
  [reading("{ water: NaN }"), "`water`: expected a finite number, got NaN"],
  [reading("{ water: 1, air: 2 }"), "`air` is not among"],
  [reading("missing"), "`read` threw ReferenceError"],
  [reading("{ water: 1 }", ", waitMs: () => -1"), "`waitMs` returned -1"],
  ["export default {", "cannot be loaded"],
])("%s is refused, naming file and key", async (text, expected) => {
  const sentence = await problem(text);
  expect(sentence).toContain(`profile-${files}.ts: `);
  expect(sentence).toContain(expected);
});

test("a file that is not there is refused", async () => {
  expect(await loadProfile(join(dir, "none.ts"))).toMatchObject({ problem: expect.stringContaining("no such file") });
});

test("a sensor that goes wrong later says so as well", async () => {
  const loaded = await load(
    `export default { metrics: { a: "1" }, intervalMs: 1, open() { let n = 0; return { read: () => ({ a: (n += 1) > 3 ? NaN : n }) }; } };`,
  );
  if (loaded.kind === "wrong") throw new Error(loaded.problem);
  const sensor = loaded.profile.open(createRandom(1));
  expect([sensor.read(0), sensor.read(0), sensor.read(0)]).toEqual([{ a: 1 }, { a: 2 }, { a: 3 }]);
  expect(() => sensor.read(0)).toThrow("`a`: expected a finite number, got NaN");
});
