// The import table of the house (DESIGN: layout and imports). A row says what a room may import beyond itself and the
// vocabulary; `types` are rooms whose types it may name but whose values it may not touch.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative, sep } from "node:path";
import { describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "..");

const vocabulary = ["reading", "errors", "telemetry", "events"];

interface Row {
  readonly values: readonly string[];
  readonly types: readonly string[];
}

const every = ["config", "listener", "broker", "decode", "validate", "journal", "dispatch", "sinks", "admin", "intake"];

const table: Readonly<Record<string, Row>> = {
  // The vocabulary: reading imports nothing, the others only each other.
  reading: { values: [], types: [] },
  errors: { values: [], types: [] },
  events: { values: [], types: ["reading"] },
  telemetry: { values: [], types: ["reading", "events"] },
  // The stages.
  listener: { values: vocabulary, types: vocabulary },
  broker: { values: vocabulary, types: [...vocabulary, "listener"] },
  decode: { values: vocabulary, types: vocabulary },
  validate: { values: vocabulary, types: [...vocabulary, "decode"] },
  journal: { values: vocabulary, types: vocabulary },
  sinks: { values: vocabulary, types: vocabulary },
  dispatch: { values: vocabulary, types: [...vocabulary, "validate", "journal", "sinks", "config", "decode"] },
  admin: { values: vocabulary, types: vocabulary },
  intake: { values: vocabulary, types: [...vocabulary, "validate", "journal"] },
  // Configuration knows the settings of all stages.
  config: { values: [...vocabulary, "listener", "validate", "sinks"], types: every },
  index: { values: every, types: [...vocabulary, ...every] },
  // The composition roots: of the process, and of the workers' threads.
  gateway: { values: [...vocabulary, ...every], types: [...vocabulary, ...every] },
  main: { values: ["gateway", "config", "errors", "commands"], types: ["gateway", "config", "errors", "commands"] },
  // Each subcommand composes what it needs of the stages, as the gateway does for itself.
  commands: { values: [...vocabulary, ...every], types: [...vocabulary, ...every] },
  "dispatch/inbox-worker": { values: [...vocabulary, "journal"], types: [...vocabulary, "journal"] },
  "dispatch/worker": { values: [...vocabulary, ...every], types: [...vocabulary, ...every] },
};

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
  readonly external: boolean;
}

const files = (folder: string): readonly string[] =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(folder, name));

/** The room of a file below src: its folder, or its own name. */
function roomOf(path: string): string {
  const [first = "", ...rest] = relative("src", path).split(sep);
  return rest.length === 0 ? first.replace(/\.ts$/, "") : first;
}

function importsOf(path: string): readonly Import[] {
  const text = readFileSync(join(root, path), "utf8");
  const found: Import[] = [];
  const statement = /^(?:import|export)\s+(type\s+)?([^"';]*?)\s*(?:from\s+)?"([^"]+)"/gm;
  for (const [, type, names = "", specifier = ""] of text.matchAll(statement)) {
    const external = !specifier.startsWith(".");
    const to = external ? specifier : normalize(join(dirname(path), specifier));
    const listed = /^\{([\s\S]*)\}$/.exec(names.trim())?.[1];
    const onlyTypes =
      type !== undefined ||
      (listed !== undefined &&
        listed.split(",").every((name) => name.trim() === "" || name.trim().startsWith("type ")));
    found.push({ from: path, to, typeOnly: onlyTypes, external });
  }
  return found;
}

describe("the import table", () => {
  const all = files("src").filter((path) => !path.endsWith(".d.ts"));

  test("has a row for every room", () => {
    expect(all.map(roomOf).filter((room) => table[room] === undefined)).toEqual([]);
  });

  test.each(all)("%s imports only what its room may", (path) => {
    const own = roomOf(path);
    const row = table[relative("src", path).replace(/\.ts$/, "")] ?? table[own];
    const wrong = importsOf(path)
      .filter(({ external }) => !external)
      .filter(({ to, typeOnly }) => {
        if (!to.startsWith(`src${sep}`)) return !to.endsWith("package.json");
        const room = roomOf(to);
        if (room === own) return false;
        return !(typeOnly ? row?.types : row?.values)?.includes(room) && !row?.values.includes(room);
      })
      .map(({ to, typeOnly }) => `${to}${typeOnly ? " (types)" : ""}`);
    expect(wrong).toEqual([]);
  });

  test("only main.ts names the process", () => {
    const named = all.filter((path) => {
      const code = readFileSync(join(root, path), "utf8").replaceAll(/\/\/.*$|\/\*[\s\S]*?\*\//gm, "");
      return /\bprocess\.\w/.test(code);
    });
    expect(named).toEqual([join("src", "main.ts")]);
  });

  test("the simulator imports nothing of the gateway", () => {
    const wrong = files("devices-sim")
      .flatMap(importsOf)
      .filter(({ external, to }) => !external && !to.startsWith("devices-sim") && !to.endsWith("package.json"));
    expect(wrong).toEqual([]);
  });

  test("there is no drawer for odds and ends", () => {
    expect(all.filter((path) => /[/\\](utils?|lib|helpers?|types|common|misc)([/\\]|\.ts$)/.test(path))).toEqual([]);
  });
});
