// The topics of a stream: `devices/{device}/telemetry`. Pure; stream.ts checks with it, registry.ts routes with it.

/** One level of a pattern. `rest` is `#`: this level and all below it, and also none. */
type Level =
  | { readonly kind: "literal"; readonly text: string }
  | { readonly kind: "named"; readonly name: string }
  | { readonly kind: "any" }
  | { readonly kind: "rest" };

/** A topic pattern that has been checked. */
export interface TopicPattern {
  readonly text: string;
  readonly levels: readonly Level[];
  /** The place of `{device}` in `levels`; -1 when the pattern has none. */
  readonly deviceLevel: number;
  /** Equal for two patterns that are the same but for the names of their levels. */
  readonly shape: string;
}

const maximumPatternLength = 1024;
const maximumPatternLevels = 64;

const nameShape = /^\{[A-Za-z][A-Za-z0-9_]*\}$/;

/** Topics that belong to the gateway and never to a stream, [MQTT-4.7.2-1] for the first. */
export function isReservedTopic(topic: string): boolean {
  return topic.startsWith("$") || topic.startsWith("sluice/") || topic === "sluice";
}

/** A pattern, or the sentence that says what is wrong with it. */
export function parseTopicPattern(text: string): TopicPattern | string {
  if (text === "") return "must not be empty";
  if (text.length > maximumPatternLength) return `must have at most ${maximumPatternLength} characters`;
  if (text.includes("\0") || !text.isWellFormed()) return "must be text that MQTT can carry";
  if (isReservedTopic(text)) return "must not start with $ or sluice/, which belong to the gateway";
  const parts = text.split("/");
  if (parts.length > maximumPatternLevels) return `must have at most ${maximumPatternLevels} levels`;
  const levels: Level[] = [];
  const names = new Set<string>();
  for (const [index, part] of parts.entries()) {
    const level = parseLevel(part);
    if (typeof level === "string") return level;
    if (level.kind === "rest" && index < parts.length - 1) return "may have # only as its last level";
    if (level.kind === "named" && names.has(level.name)) return `has {${level.name}} twice`;
    if (level.kind === "named") names.add(level.name);
    levels.push(level);
  }
  const deviceLevel = levels.findIndex((level) => level.kind === "named" && level.name === "device");
  return { text, levels, deviceLevel, shape: levels.map(shapeOf).join("/") };
}

function parseLevel(part: string): Level | string {
  if (part === "#") return { kind: "rest" };
  if (part === "+") return { kind: "any" };
  if (nameShape.test(part)) return { kind: "named", name: part.slice(1, -1) };
  if (/[{}]/.test(part)) return `has the level "${part}": a name must fill its level, as in {device}`;
  if (/[#+]/.test(part)) return `has the level "${part}": + and # must fill their level`;
  return { kind: "literal", text: part };
}

const shapeOf = (level: Level): string => (level.kind === "literal" ? level.text : level.kind === "rest" ? "#" : "+");

const rank = { literal: 0, named: 1, any: 1, rest: 2 } as const;

/**
 * Orders patterns so that of those that match a topic the most specific comes first: at the first level that differs, a
 * literal goes before a wildcard for one level, and that before `#`.
 */
export function bySpecificity(left: TopicPattern, right: TopicPattern): number {
  for (let index = 0; ; index++) {
    const a = left.levels[index];
    const b = right.levels[index];
    if (a === undefined || b === undefined) {
      if (a !== undefined) return a.kind === "rest" ? 1 : -1;
      if (b !== undefined) return b.kind === "rest" ? -1 : 1;
      return 0;
    }
    if (rank[a.kind] !== rank[b.kind]) return rank[a.kind] - rank[b.kind];
    if (a.kind === "literal" && b.kind === "literal" && a.text !== b.text) return a.text < b.text ? -1 : 1;
  }
}

/** Whether a topic, split at "/", is one of the pattern's. A named level is never empty. */
export function matchesPattern(pattern: TopicPattern, topicLevels: readonly string[]): boolean {
  const { levels } = pattern;
  for (const [index, level] of levels.entries()) {
    if (level.kind === "rest") return true;
    const part = topicLevels[index];
    if (part === undefined) return false;
    if (level.kind === "literal" ? part !== level.text : level.kind === "named" && part === "") return false;
  }
  return topicLevels.length === levels.length;
}
