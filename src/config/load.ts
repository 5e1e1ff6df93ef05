// Loads a configuration file, applies the environment and reports every problem at once.

import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { z } from "zod";
import type { HandlerDefinition } from "../dispatch/handler.ts";
import { errors, toError } from "../errors.ts";
import type { SinkDefinition } from "../sinks/sink.ts";
import type { StreamDefinition } from "../validate/stream.ts";
import { showGiven, toSentences } from "./problems.ts";
import type { Problem, Sentence } from "./problems.ts";
import { resolveForConfiguration } from "./resolve.ts";
import { defaultName, gatewaySettings, isDefinition, logLevel } from "./schema.ts";
import type { GatewayConfig, GatewayDefinition } from "./schema.ts";

export { formatProblems } from "./problems.ts";
export type { Problem } from "./problems.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export type Loaded =
  | { readonly kind: "loaded"; readonly config: GatewayConfig }
  | { readonly kind: "problems"; readonly problems: readonly Problem[] };

/**
 * Loads `file`, a TypeScript or JavaScript module. Without it, `config/gateway.ts` of the working directory, else the one of
 * this package. Never rejects for what is wrong with the file, its settings or `env`. Relative paths, also those in settings, are
 * relative to the working directory. A file is evaluated once per thread: loading it again gives the same settings.
 */
export async function loadConfig(file: string | undefined, env: Environment): Promise<Loaded> {
  const path = file === undefined ? await findDefault() : resolve(file);
  const environment = readEnvironment(env);
  const opened = await openFile(path);
  if (opened.kind === "problems") return { kind: "problems", problems: [...opened.problems, ...environment.problems] };
  const { given } = opened.definition;
  const parsed = gatewaySettings.safeParse(given, { reportInput: true });
  const found = parsed.success ? [] : toSentences(gatewaySettings, parsed.error.issues);
  const problems = [
    ...[...found, ...checkNames(given)].map(({ path: key, sentence }) =>
      toProblem(path, z.core.toDotPath(key), sentence),
    ),
    ...environment.problems,
  ];
  if (!parsed.success || problems.length > 0) return { kind: "problems", problems };
  // `streamsSettings` has checked what a definition's type says; zod only cannot express it.
  const streams = parsed.data.streams as readonly StreamDefinition[];
  return { kind: "loaded", config: applyEnvironment({ file: path, ...parsed.data, streams }, environment.values) };
}

const toProblem = (place: string, path: string, expected: string): Problem => ({ place, path, expected });

async function findDefault(): Promise<string> {
  const here = resolve("config/gateway.ts");
  return (await isFile(here)) ? here : fileURLToPath(new URL("../../config/gateway.ts", import.meta.url));
}

async function isFile(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ?? false;
}

type Opened =
  | { readonly kind: "opened"; readonly definition: GatewayDefinition }
  | { readonly kind: "problems"; readonly problems: readonly Problem[] };

async function openFile(path: string): Promise<Opened> {
  const fail = (expected: string, line = ""): Opened => ({
    kind: "problems",
    problems: [toProblem(`${path}${line}`, "", expected)],
  });
  if (!(await isFile(path))) {
    const { sentence, hint } = errors.SLUICE_CONFIG_NOT_FOUND;
    return fail(`${sentence}. ${hint}`);
  }
  const url = pathToFileURL(path).href;
  using _hooks = resolveForConfiguration(url);
  try {
    const module = (await import(url)) as { readonly default?: unknown };
    if (isDefinition(module.default, "gateway")) {
      return { kind: "opened", definition: module.default as GatewayDefinition };
    }
    const given = "default" in module ? showGiven(module.default, []) : "no default export";
    return fail(`expected \`export default defineGateway({ … })\`, got ${given}`);
  } catch (cause) {
    const error = toError(cause);
    const place = placeOf(error);
    const where = place === undefined || place.path === path ? "" : ` (in ${place.path}:${place.line})`;
    const hint = (error as NodeJS.ErrnoException).code?.endsWith("TYPESCRIPT_SYNTAX")
      ? `. ${errors.SLUICE_CONFIG_UNREADABLE.hint}`
      : "";
    return fail(
      `${errors.SLUICE_CONFIG_UNREADABLE.sentence}: ${error.message}${where}${hint}`,
      place?.path === path ? `:${place.line}` : "",
    );
  }
}

/** Where an error came from: the first file that its stack names which is not part of this package. */
function placeOf(error: Error): { readonly path: string; readonly line: string } | undefined {
  const own = new URL("..", import.meta.url).href;
  for (const [, url = "", line = ""] of (error.stack ?? "").matchAll(/(file:\/\/[^\s()]+?):(\d+)/g)) {
    if (!url.startsWith(own)) return { path: fileURLToPath(url), line };
  }
  return undefined;
}

/** What no single setting can tell. It reads settings that may be invalid, so that these problems are not reported later. */
function checkNames(given: unknown): readonly Sentence[] {
  const { streams, sinks, handlers } = Object(given) as Record<string, unknown>;
  const streamNames = new Set(toList(streams).map((stream) => (Object(stream) as { name?: unknown }).name));
  const consumers = [
    ...[...toList(sinks).entries()].map(([index, value]) => ({ path: ["sinks", index], value })),
    ...[...toList(handlers).entries()].map(([index, value]) => ({ path: ["handlers", index], value })),
  ];
  const names = new Map<unknown, string>();
  const problems: Sentence[] = [];
  for (const { path, value } of consumers) {
    if (!isDefinition(value, "sink") && !isDefinition(value, "handler")) continue;
    const definition = value as SinkDefinition | HandlerDefinition;
    const name = (Object(definition.given) as { name?: unknown }).name ?? defaultName(definition);
    const first = names.get(name);
    if (first === undefined) names.set(name, z.core.toDotPath(path));
    else {
      const sentence = `is the name of ${first} too: give one of them another name with { name: "…" }, got ${showGiven(name, [])}`;
      problems.push({ path: [...path, "name"], sentence });
    }
    for (const [index, stream] of toList((Object(definition.given) as { only?: unknown }).only).entries()) {
      if (definition.kind !== "sink" || typeof stream !== "string" || streamNames.has(stream)) continue;
      const sentence = `expected the name of a stream that is in \`streams\`, got ${showGiven(stream, [])}`;
      problems.push({ path: [...path, "only", index], sentence });
    }
    if (definition.kind === "handler" && !streamNames.has(definition.stream?.name)) {
      const got = showGiven(definition.stream?.name, []);
      problems.push({ path, sentence: `expected a stream that is in \`streams\`, got ${got}` });
    }
  }
  return problems;
}

function toList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

const portText = z
  .string()
  .regex(/^\d{1,5}$/)
  .transform(Number)
  .refine((port) => port <= 65_535);

/** The environment variables that replace a setting; `setting` says which. */
export const overrides = {
  SLUICE_MQTT_PORT: {
    schema: portText,
    expected: "a whole number from 0 to 65535",
    setting: "`port` of the first `tcp()` listener",
  },
  SLUICE_HTTP_PORT: { schema: portText, expected: "a whole number from 0 to 65535", setting: "`http.port`" },
  SLUICE_HOST: {
    schema: z.string().regex(/^\S+$/),
    expected: "a host name or address",
    setting: "`host` of every listener",
  },
  SLUICE_DATA_DIR: { schema: z.string(), expected: "a folder", setting: "`dataDir`" },
  SLUICE_LOG_LEVEL: { schema: logLevel, expected: `one of ${logLevel.options.join(", ")}`, setting: "`log.level`" },
} as const;

type OverrideName = keyof typeof overrides;
type Overrides = { readonly [Name in OverrideName]?: z.output<(typeof overrides)[Name]["schema"]> };

/** The settings in the environment. An empty variable counts as unset. */
function readEnvironment(env: Environment): { readonly values: Overrides; readonly problems: readonly Problem[] } {
  const values: Record<string, unknown> = {};
  const problems: Problem[] = [];
  for (const [name, { schema, expected }] of Object.entries(overrides)) {
    const text = env[name];
    if (text === undefined || text === "") continue;
    const parsed = schema.safeParse(text);
    if (parsed.success) values[name] = parsed.data;
    else problems.push(toProblem(`environment ${name}`, "", `expected ${expected}, got ${showGiven(text, [])}`));
  }
  return { values, problems };
}

function applyEnvironment(config: GatewayConfig, env: Overrides): GatewayConfig {
  const first = config.listeners.findIndex((listener) => listener.type === "tcp");
  const listeners = config.listeners.map((listener, index) => ({
    ...listener,
    host: env.SLUICE_HOST ?? listener.host,
    port: index === first ? (env.SLUICE_MQTT_PORT ?? listener.port) : listener.port,
  }));
  return Object.freeze({
    ...config,
    listeners,
    dataDir: env.SLUICE_DATA_DIR === undefined ? config.dataDir : resolve(env.SLUICE_DATA_DIR),
    http: { ...config.http, port: env.SLUICE_HTTP_PORT ?? config.http.port },
    log: { ...config.log, level: env.SLUICE_LOG_LEVEL ?? config.log.level },
  });
}
