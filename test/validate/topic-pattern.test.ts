import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type TopicPattern,
  bySpecificity,
  isReservedTopic,
  matchesPattern,
  parseTopicPattern,
} from "../../src/validate/topic-pattern.ts";

function pattern(text: string): TopicPattern {
  const parsed = parseTopicPattern(text);
  if (typeof parsed === "string") throw new Error(`${text} ${parsed}`);
  return parsed;
}

const matches = (text: string, topic: string): boolean => matchesPattern(pattern(text), topic.split("/"));

describe("parseTopicPattern", () => {
  test.for([
    ["", /not be empty/],
    ["$SYS/x", /belong to the gateway/],
    ["sluice/x", /belong to the gateway/],
    ["sluice", /belong to the gateway/],
    ["a/#/b", /only as its last level/],
    ["a/b#", /must fill their level/],
    ["a/x+", /must fill their level/],
    ["a/{device", /must fill its level/],
    ["a/x{device}", /must fill its level/],
    ["a/{}", /must fill its level/],
    ["a/{1}", /must fill its level/],
    ["{device}/{device}", /has \{device\} twice/],
    ["a\0", /text that MQTT can carry/],
    ["a\ud800", /text that MQTT can carry/],
    ["/".repeat(64), /at most 64 levels/],
    ["x".repeat(1025), /at most 1024 characters/],
  ] as const)("refuses %j", ([text, problem]) => {
    expect(parseTopicPattern(text)).toMatch(problem);
  });

  test("finds the device's level", () => {
    expect(pattern("a/{site}/{device}").deviceLevel).toBe(2);
    expect(pattern("a/{site}/+").deviceLevel).toBe(-1);
  });

  test("gives the same shape to patterns that differ in names only", () => {
    expect(pattern("a/{device}/b").shape).toBe(pattern("a/+/b").shape);
    expect(pattern("a/{device}/b").shape).not.toBe(pattern("a/+/c").shape);
  });
});

describe("matchesPattern", () => {
  test.for([
    ["devices/{device}/telemetry", "devices/a/telemetry", true],
    ["devices/{device}/telemetry", "devices//telemetry", false],
    ["devices/{device}/telemetry", "devices/a/b/telemetry", false],
    ["devices/{device}/telemetry", "devices/a", false],
    ["devices/{device}/telemetry", "devices/a/telemetry/x", false],
    ["devices/{device}/telemetry", "Devices/a/telemetry", false],
    ["a/+/b", "a//b", true],
    ["a/#", "a/b/c", true],
    ["a/#", "a", true],
    ["a/#", "ab", false],
    ["a/+/#", "a", false],
    ["a/+/#", "a/b", true],
    ["#", "a/b", true],
    ["+", "a", true],
    ["+", "a/b", false],
    ["/{device}", "/x", true],
    ["/{device}", "x", false],
  ] as const)("%s on %s: %s", ([text, topic, expected]) => {
    expect(matches(text, topic)).toBe(expected);
  });
});

test("the gateway's own topics are reserved", () => {
  for (const topic of ["$SYS/broker", "$x", "sluice", "sluice/rejected/x"]) expect(isReservedTopic(topic)).toBe(true);
  for (const topic of ["sluices", "a/$SYS", "a/sluice/b", ""]) expect(isReservedTopic(topic)).toBe(false);
});

describe("bySpecificity", () => {
  test("puts a literal before a wildcard, and that before #, at the first level that differs", () => {
    const sorted = ["#", "+/b/c", "a/#", "a/+/c", "a/b/#", "a", "a/b/+", "a/b/c", "+"].map(pattern).sort(bySpecificity);
    expect(sorted.map(({ text }) => text)).toEqual(["a/b/c", "a/b/+", "a/b/#", "a/+/c", "a", "a/#", "+/b/c", "+", "#"]);
  });

  test("orders the same whatever order the patterns come in", () => {
    const text = fc
      .array(fc.constantFrom("a", "b", "+", ""), { minLength: 1, maxLength: 4 })
      .chain((levels) => fc.constantFrom(levels.join("/"), `${levels.join("/")}/#`))
      .filter((candidate) => candidate !== "");
    fc.assert(
      fc.property(
        fc.uniqueArray(text, { minLength: 2, maxLength: 8 }),
        fc.infiniteStream(fc.nat()),
        (texts, numbers) => {
          const once = texts.map(pattern).sort(bySpecificity);
          const shuffled = texts
            .map((candidate) => ({ candidate, key: numbers.next().value }))
            .sort((left, right) => left.key - right.key)
            .map(({ candidate }) => pattern(candidate));
          expect(shuffled.sort(bySpecificity)).toEqual(once);
        },
      ),
    );
  });
});
