// docs/simulator.md says of profiles what they are, and its example is one.

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { payloadNames } from "../../devices-sim/payloads/built-in.ts";
import { createSensor, profileNames, profiles } from "../../devices-sim/profiles/built-in.ts";
import { loadProfile } from "../../devices-sim/profiles/load.ts";

const root = join(import.meta.dirname, "../..");
const page = await readFile(join(root, "docs/simulator.md"), "utf8");

test.each(profileNames)("the profile %s has the fields, units and interval that its row says", (name) => {
  const { metrics, intervalMs } = profiles[name];
  const fields = Object.entries(metrics).map(([field, unit]) => `\`${field}\` ${unit}`);
  expect(page).toContain(`| \`${name}\` | ${fields.join(", ")} | ${intervalMs / 1000} s |`);
  expect(page).toContain(`\n- \`${name}\`: `);
});

test.each(payloadNames)("the payload %s has a row", (name) => {
  expect(page).toMatch(new RegExp(`^\\| \`${name}\` \\|`, "m"));
});

test("the example of a profile drains and is filled, and one seed repeats it", async () => {
  const dir = await mkdtemp(join(tmpdir(), "sluice-tank-"));
  try {
    const [, example = ""] = /```ts\n(\/\/ tank\.ts.*?)```/s.exec(page) ?? [];
    const file = join(dir, "tank.ts");
    const definitions = pathToFileURL(join(root, "devices-sim/definitions.ts")).href;
    await writeFile(file, example.replace('"sluice/sim"', JSON.stringify(definitions)));
    const loaded = await loadProfile(file);
    if (loaded.kind === "wrong") throw new Error(loaded.problem);
    const run = (): unknown[] => {
      const tank = createSensor(loaded.profile, 7, 0);
      return Array.from({ length: 200 }, (_, minute) => tank.read(minute * 60_000));
    };
    const rows = run() as { readonly level: number; readonly valve: number }[];
    expect(new Set(rows.map(({ valve }) => valve))).toEqual(new Set([0, 1]));
    expect(rows.some(({ level }, at) => level > (rows[at - 1]?.level ?? 100))).toBe(true);
    expect(rows.every(({ level }) => level >= 0 && level <= 100)).toBe(true);
    expect(run()).toEqual(rows);
  } finally {
    await rm(dir, { recursive: true });
  }
});
