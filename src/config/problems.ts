// What is wrong with a configuration, as sentences for its author: what was expected and what was given.

import { z } from "zod";

/** One thing that is wrong with a configuration. */
export interface Problem {
  /** The configuration file, with `:line` where that is known; or `environment NAME`. */
  readonly place: string;
  /** The key as `sinks[0].path`; "" is the whole. */
  readonly path: string;
  /** A sentence such as `expected a string, got 5`. */
  readonly expected: string;
}

/** One line per problem, for standard error. */
export function formatProblems(problems: readonly Problem[]): string {
  return problems
    .map((problem) => [problem.place, problem.path, problem.expected].filter(Boolean).join(": "))
    .join("\n");
}

export interface Sentence {
  readonly path: readonly PropertyKey[];
  readonly sentence: string;
}

/**
 * The issues of a schema, parsed with `reportInput`, as sentences. An unknown key becomes a sentence of its own that
 * names the known ones, `furtherKeys` among them at the top level.
 */
export function toSentences(
  schema: z.ZodType,
  issues: readonly z.core.$ZodIssue[],
  furtherKeys: readonly string[] = [],
): readonly Sentence[] {
  return issues.flatMap((issue): readonly Sentence[] => {
    if (issue.code !== "unrecognized_keys") return [{ path: issue.path, sentence: toSentence(issue) }];
    const known = [...knownKeys(schema, issue.path), ...(issue.path.length === 0 ? furtherKeys : [])];
    const sentence =
      known.length === 0 ? "unknown; no settings are known here" : `unknown; known here: ${known.join(", ")}`;
    return issue.keys.map((key) => ({ path: [...issue.path, key], sentence }));
  });
}

function toSentence(issue: z.core.$ZodIssue): string {
  // A sentence that says what was given, and one that is no expectation, is complete.
  const complete =
    issue.code === "custom" && !(issue.message.startsWith("expected") && !issue.message.includes(", got "));
  if (complete) return issue.message;
  const own = /^(?:Invalid|Too|Unrecognized)\b/.test(issue.message) ? expectation(issue) : issue.message;
  return `${own}, got ${showGiven(issue.input, issue.path)}`;
}

function expectation(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_type") return `expected ${typeNames[issue.expected] ?? issue.expected}`;
  if (issue.code === "too_small") return `expected at least ${issue.minimum}${units[issue.origin] ?? ""}`;
  if (issue.code === "too_big") return `expected at most ${issue.maximum}${units[issue.origin] ?? ""}`;
  if (issue.code !== "invalid_value") return `expected something else (${issue.message})`;
  return `expected ${issue.values.length === 1 ? "" : "one of "}${issue.values.map(String).join(", ")}`;
}

const typeNames: Readonly<Record<string, string>> = {
  array: "a list",
  boolean: "true or false",
  function: "a function",
  int: "a whole number",
  number: "a number",
  object: "an object",
  string: "a string",
};

const units: Readonly<Record<string, string>> = { string: " characters", array: " entries" };

const secretName = /auth|cert|conn|credential|dsn|key|pass|pwd|secret|token|ur[il]|user/i;
const maximumShown = 60;

/** What was given, but never what could be a secret. */
export function showGiven(value: unknown, path: readonly PropertyKey[]): string {
  if (value === undefined) return "nothing";
  if (value === null || typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value === "string") {
    if (path.some((key) => typeof key === "string" && secretName.test(key))) return "a string that is not shown";
    return value.length <= maximumShown ? JSON.stringify(value) : `a string of ${value.length} characters`;
  }
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** The keys of the object schema at `path` in `schema`; none where there is no such object. */
function knownKeys(schema: z.core.$ZodType, path: readonly PropertyKey[]): readonly string[] {
  const inner = unwrap(schema);
  const [key, ...rest] = path;
  if (key === undefined) return inner instanceof z.core.$ZodObject ? Object.keys(inner._zod.def.shape) : [];
  if (inner instanceof z.core.$ZodArray) return knownKeys(inner._zod.def.element, rest);
  const next = inner instanceof z.core.$ZodObject ? inner._zod.def.shape[String(key)] : undefined;
  return next === undefined ? [] : knownKeys(next, rest);
}

function unwrap(schema: z.core.$ZodType): z.core.$ZodType {
  if (schema instanceof z.core.$ZodPipe) return unwrap(schema._zod.def.in);
  const wrapped =
    schema instanceof z.core.$ZodOptional ||
    schema instanceof z.core.$ZodNullable ||
    schema instanceof z.core.$ZodDefault ||
    schema instanceof z.core.$ZodPrefault ||
    schema instanceof z.core.$ZodReadonly;
  return wrapped ? unwrap(schema._zod.def.innerType) : schema;
}
