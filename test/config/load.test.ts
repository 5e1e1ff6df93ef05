import { execFile } from "node:child_process";
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { formatProblems } from "../../src/config/load.ts";
import type { Loaded, Problem } from "../../src/config/load.ts";

/** Loads in a process of its own, because the module hooks of Node are what is tested. */
interface Folder {
  readonly path: string;
  write(file: string, text: string): Promise<string>;
  load(file?: string, env?: Readonly<Record<string, string>>): Promise<Loaded>;
  problems(text: string, env?: Readonly<Record<string, string>>): Promise<readonly Problem[]>;
}

const script = fileURLToPath(new URL("load-once.ts", import.meta.url));

async function openFolder(): Promise<Folder> {
  const path = await realpath(await mkdtemp(join(tmpdir(), "sluice-config-")));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  const folder: Folder = {
    path,
    async write(file, text) {
      await mkdir(dirname(join(path, file)), { recursive: true });
      await writeFile(join(path, file), text);
      return join(path, file);
    },
    async load(file, env = {}) {
      const argv = [script, ...(file === undefined ? [] : [file])];
      const { stdout, stderr } = await promisify(execFile)(process.execPath, argv, { cwd: path, env });
      if (stderr !== "") throw new Error(`printed on standard error: ${stderr}`);
      return JSON.parse(stdout) as Loaded;
    },
    async problems(text, env) {
      const loaded = await folder.load(await folder.write("gateway.ts", text), env);
      return loaded.kind === "problems" ? loaded.problems : [];
    },
  };
  return folder;
}

const imports = `import { defineGateway, defineSink, defineStream, json, on, sqlite, tcp } from "sluice";
import { z } from "zod";
const climate = defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema: z.object({}) });
`;
const minimal = `${imports}export default defineGateway({ streams: [climate] });`;
const lines = (problems: readonly Problem[]): readonly string[] =>
  problems.map(({ path, expected }) => `${path}: ${expected}`);

describe("a configuration file", () => {
  test("is the package's own example when there is no other", async () => {
    const folder = await openFolder();
    const loaded = await folder.load();
    expect(loaded).toMatchObject({
      kind: "loaded",
      config: {
        listeners: [{ type: "tcp", port: 1883 }],
        streams: [{ name: "climate", topic: "devices/{device}/telemetry" }],
        handlers: [],
        sinks: [{ name: "sqlite", type: "sqlite", settings: {} }],
        dataDir: join(folder.path, "data"),
        http: { host: "127.0.0.1", port: 8080 },
        log: { level: "info" },
        journal: { maxBytes: 10 * 2 ** 30, segmentBytes: 64 * 2 ** 20 },
        limits: { maximumPacketBytes: 262_144, sessions: 10_000 },
        shutdownMs: 10_000,
      },
    });
  });

  test("is config/gateway.ts of the working directory when there is one", async () => {
    const folder = await openFolder();
    await folder.write("config/gateway.ts", minimal);
    const loaded = await folder.load();
    expect(loaded).toMatchObject({ config: { file: join(folder.path, "config/gateway.ts"), sinks: [] } });
  });

  test("works from a folder without package.json, in TypeScript with helpers and in JavaScript, without a warning", async () => {
    const folder = await openFolder();
    await folder.write("helper.ts", `export const shutdownMs: number = 7;`);
    const use = `import { shutdownMs } from "./helper.ts";\n`;
    for (const name of ["gateway.ts", "gateway.js", "gateway.mjs", "gateway.mts"]) {
      const text = minimal.replace("{ streams", "{ shutdownMs, streams");
      expect(await folder.load(await folder.write(name, use + text))).toMatchObject({
        config: { shutdownMs: 7 },
      });
    }
  });

  test("works beside a package.json that says CommonJS or nothing, in TypeScript and in JavaScript", async () => {
    const folder = await openFolder();
    await folder.write("helper.ts", `export const shutdownMs: number = 7;`);
    const text = `import { shutdownMs } from "./helper.ts";\n${minimal.replace("{ streams", "{ shutdownMs, streams")}`;
    for (const manifest of [`{ "type": "commonjs" }`, `{}`]) {
      await folder.write("package.json", manifest);
      for (const name of ["gateway.ts", "gateway.js"]) {
        expect(await folder.load(await folder.write(name, text))).toMatchObject({ config: { shutdownMs: 7 } });
      }
    }
  });

  test("may use a zod that its own folder has", async () => {
    const folder = await openFolder();
    await folder.write("node_modules/zod/package.json", `{ "name": "zod", "type": "module", "exports": "./index.js" }`);
    await folder.write("node_modules/zod/index.js", `export const z = "its own";`);
    const [problem] = await folder.problems(`import { z } from "zod"; throw new Error(z);`);
    expect(problem?.expected).toContain("its own");
  });

  test("that does not exist, or is a folder, is a problem that says so", async () => {
    const folder = await openFolder();
    for (const file of ["missing.ts", "."]) {
      const loaded = await folder.load(file);
      expect(loaded).toMatchObject({ kind: "problems", problems: [{ place: join(folder.path, file), path: "" }] });
      expect(loaded.kind === "problems" && loaded.problems[0]?.expected).toContain("does not exist");
    }
  });

  test("that TypeScript or Node cannot read is a problem with file and line, not a stack trace", async () => {
    const folder = await openFolder();
    const file = join(folder.path, "gateway.ts");
    expect(await folder.problems(`const a = 1;\nconst b: = 2;`)).toMatchObject([{ place: `${file}:2` }]);
    expect(await folder.problems(`\nenum A { b }`)).toMatchObject([
      { place: `${file}:2`, expected: expect.stringContaining("only types may be erased") as string },
    ]);
    expect(await folder.problems(`\n\nmissing();`)).toMatchObject([
      { place: `${file}:3`, expected: expect.stringContaining("missing is not defined") as string },
    ]);
    const [unresolved, ...others] = await folder.problems(`import "not-there";`);
    expect(unresolved).toMatchObject({ place: file, expected: expect.stringContaining("'not-there'") as string });
    expect(unresolved?.expected).not.toContain("\n");
    expect(others).toEqual([]);
  });

  test("names the imported file that failed", async () => {
    const folder = await openFolder();
    await folder.write("helper.ts", `\nexport const a = missing;`);
    const [problem] = await folder.problems(`import "./helper.ts";`);
    expect(problem?.place).toBe(join(folder.path, "gateway.ts"));
    expect(problem?.expected).toContain(`${join(folder.path, "helper.ts")}:2`);
  });

  test("must export defineGateway(…) as its default", async () => {
    const folder = await openFolder();
    const expected = "expected `export default defineGateway({ … })`, got";
    expect(lines(await folder.problems(`export const gateway = 5;`))).toEqual([`: ${expected} no default export`]);
    expect(lines(await folder.problems(`export default { streams: [] };`))).toEqual([`: ${expected} an object`]);
  });
});

describe("what is wrong with a configuration", () => {
  test("is reported all at once, each with its key, what was expected and what was given", async () => {
    const folder = await openFolder();
    const problems = await folder.problems(
      `${imports}
      const other = defineStream({ name: "Other", topic: "other/#/x", codec: "json", schema: {} });
      export default defineGateway({
        listeners: [tcp({ port: 70_000 }), tcp({ hots: "::1" }), "tcp"],
        streams: [climate, other],
        handlers: [on(climate, 5), on(climate, () => {}), on(defineStream({ name: "gone" }), () => {})],
        sinks: [sqlite({ path: 5 }), sqlite({ name: "other", file: "x" }), sqlite(), 7],
        http: { host: "0.0.0.0", port: "8080" },
        log: { level: "loud" },
        journal: { maxBytes: 2 ** 20 },
        limits: { maximumPacketBytes: 1e9, sessions: 1.5 },
        limts: {},
      });`,
      { SLUICE_HTTP_PORT: "abc" },
    );
    expect(lines(problems)).toEqual([
      "listeners[0].port: expected at most 65535, got 70000",
      "listeners[1].hots: unknown; known here: host, port",
      'listeners[2]: expected a listener such as tcp(), got "tcp"',
      'streams[1].name: expected a lower-case letter, then at most 62 letters, digits, _ or -, got "Other"',
      "streams[1].topic: may have # only as its last level",
      'streams[1].codec: expected a codec, such as json, or a list of codecs, got "json"',
      "streams[1].schema: expected a zod 4 schema, such as z.object({ … }), got an object",
      "handlers[0]: expected a function as the second argument of on(), got 5",
      "sinks[0].path: expected a string, got 5",
      "sinks[1].file: unknown; known here: path, layout, name, only, from, batch, retry, timeoutMs",
      "sinks[3]: expected a sink such as sqlite(), got 7",
      'http.host: expected a loopback address such as 127.0.0.1, because this server asks for no credentials, got "0.0.0.0"',
      'http.port: expected a number, got "8080"',
      'log.level: expected one of fatal, error, warn, info, debug, trace, silent, got "loud"',
      "journal.maxBytes: expected at least 4194304, got 1048576",
      "limits.maximumPacketBytes: expected at most 368640, got 1000000000",
      "limits.sessions: expected a whole number, got 1.5",
      "limts: unknown; known here: listeners, streams, handlers, sinks, dataDir, http, log, credentials, journal, parked, rejects, limits, shutdownMs",
      'sinks[2].name: is the name of sinks[0] too: give one of them another name with { name: "…" }, got "sqlite"',
      'handlers[1].name: is the name of handlers[0] too: give one of them another name with { name: "…" }, got "on-climate"',
      'handlers[2]: expected a stream that is in `streams`, got "gone"',
      ': expected a whole number from 0 to 65535, got "abc"',
    ]);
    expect(problems.map(({ place }) => place)).toEqual([
      ...Array.from({ length: 21 }, () => join(folder.path, "gateway.ts")),
      "environment SLUICE_HTTP_PORT",
    ]);
  });

  test("of the options of a handler", async () => {
    const folder = await openFolder();
    const problems = await folder.problems(
      `${imports}
      const given = { concurrency: 0, timeoutMs: 1.5, from: "end", retry: { attempts: "many", every: 5 }, stateBytes: 10 };
      export default defineGateway({ streams: [climate], handlers: [on(climate, () => {}, given)] });`,
    );
    expect(lines(problems)).toEqual([
      'handlers[0].from: expected one of start, now, got "end"',
      "handlers[0].concurrency: expected at least 1, got 0",
      "handlers[0].timeoutMs: expected a whole number, got 1.5",
      'handlers[0].retry.attempts: expected a number, got "many"',
      "handlers[0].retry.every: unknown; known here: minimumMs, maximumMs, attempts",
      "handlers[0].stateBytes: expected at least 1024, got 10",
    ]);
  });

  test("is found in what every sink takes: streams that do not exist, batches and pauses out of bounds", async () => {
    const folder = await openFolder();
    const problems = await folder.problems(`${imports}
      export default defineGateway({ streams: [climate], sinks: [
        sqlite({ only: ["climate", "climbate"], from: "end", batch: { records: 0, size: 1 }, retry: { maximumMs: 0 }, timeoutMs: 1 }),
      ] });`);
    expect(problems.map(({ path, expected }) => `${path}: ${expected}`)).toEqual([
      'sinks[0].from: expected one of start, now, got "end"',
      "sinks[0].batch.records: expected at least 1, got 0",
      "sinks[0].batch.size: unknown; known here: records, bytes, lingerMs",
      "sinks[0].retry.maximumMs: expected at least 1, got 0",
      "sinks[0].timeoutMs: expected at least 100, got 1",
      'sinks[0].only[1]: expected the name of a stream that is in `streams`, got "climbate"',
    ]);
  });

  test("is found in the settings of a user's sink too, and unknown keys there are named", async () => {
    const folder = await openFolder();
    const problems = await folder.problems(`${imports}
      const print = defineSink({ type: "print", settings: z.object({ width: z.number(), deep: z.object({ a: z.string() }) }), open() {} });
      const bad = { kind: "sink", sink: { type: "bad", settings: {} }, given: {} };
      export default defineGateway({ streams: [climate], sinks: [print({ widht: 1, deep: {} }), bad, print(5)] });`);
    expect(lines(problems)).toEqual([
      "sinks[0].width: expected a number, got nothing",
      "sinks[0].deep.a: expected a string, got nothing",
      "sinks[0].widht: unknown; known here: width, deep, name, only, from, batch, retry, timeoutMs",
      "sinks[1]: expected a sink such as sqlite(), got an object",
      "sinks[2]: expected an object with the sink's settings, got 5",
      'sinks[2].name: is the name of sinks[0] too: give one of them another name with { name: "…" }, got "print"',
    ]);
  });

  test("never shows what could be a secret", async () => {
    const folder = await openFolder();
    const problems = await folder.problems(`${imports}
      const sink = defineSink({ type: "db", settings: z.object({ url: z.number(), auth: z.object({ value: z.int() }) }), open() {} });
      export default defineGateway({ streams: [climate], sinks: [sink({ url: "db://me:hunter2@x", auth: { value: "hunter2" } })] });`);
    expect(problems).toHaveLength(2);
    expect(formatProblems(problems)).not.toContain("hunter2");
  });

  test("is printed one line each", () => {
    const problems = [
      { place: "a.ts", path: "sinks[0].path", expected: "expected a string, got 5" },
      { place: "environment SLUICE_HOST", path: "", expected: "expected a host name or address" },
    ];
    expect(formatProblems(problems)).toBe(
      "a.ts: sinks[0].path: expected a string, got 5\nenvironment SLUICE_HOST: expected a host name or address",
    );
  });
});

describe("the environment", () => {
  test("overrides the file: the port only of the first listener, an empty variable not at all", async () => {
    const folder = await openFolder();
    const file = await folder.write(
      "gateway.ts",
      minimal.replace(
        "{ streams",
        `{ listeners: [tcp({ port: 1 }), tcp({ port: 2 })], http: { port: 3 }, credentials: { passwordFile: "users" }, streams`,
      ),
    );
    const env = { SLUICE_MQTT_PORT: "0", SLUICE_HOST: "::1", SLUICE_DATA_DIR: "else", SLUICE_LOG_LEVEL: "debug" };
    expect(await folder.load(file, { ...env, SLUICE_HTTP_PORT: "" })).toMatchObject({
      config: {
        listeners: [
          { host: "::1", port: 0 },
          { host: "::1", port: 2 },
        ],
        http: { port: 3 },
        credentials: { passwordFile: join(folder.path, "users") },
        dataDir: join(folder.path, "else"),
        log: { level: "debug" },
      },
    });
  });

  test("is checked: each bad value is a problem with the variable as its place", async () => {
    const folder = await openFolder();
    const bad = { SLUICE_MQTT_PORT: "65536", SLUICE_HTTP_PORT: "1e3", SLUICE_HOST: "a b", SLUICE_LOG_LEVEL: "loud" };
    const problems = await folder.problems(minimal, bad);
    expect(problems.map(({ place }) => place)).toEqual(Object.keys(bad).map((name) => `environment ${name}`));
  });
});
