import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { specialize } from "../../src/validate/specialize.ts";

/** Order of keys and all: what a sink would see. */
const exact = (value: unknown): string => JSON.stringify(value);

function toSpecial(schema: z.ZodType, sample: unknown): z.ZodType {
  return specialize(schema, sample) as z.ZodType;
}

const leafSchema = fc.constantFrom<z.ZodType>(
  z.number(),
  z.number().int(),
  z.string(),
  z.string().min(2),
  z.boolean(),
  z.unknown(),
  z.number().transform((value) => value * 2),
  z.number().optional(),
  z.number().nullable(),
  z.string().default("none"),
  z.number().catch(0),
  z.coerce.string(),
  z.number().refine((value) => value !== 3),
  z.enum(["a", "b"]),
);
const key = fc.constantFrom("a", "b", "c", "1", "constructor", "x y");
const { schemas } = fc.letrec<{ schemas: z.ZodType }>((tie) => ({
  schemas: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    leafSchema,
    fc
      .tuple(
        fc.constantFrom("strip", "loose", "strict", "checked", "catchall"),
        fc.dictionary(key, tie("schemas"), { maxKeys: 4 }),
      )
      .map(([kind, shape]) => {
        if (kind === "loose") return z.looseObject(shape);
        if (kind === "strict") return z.strictObject(shape);
        if (kind === "checked") return z.looseObject(shape).refine((value) => Object.keys(value).length < 3);
        return kind === "catchall" ? z.object(shape).catchall(z.number()) : z.object(shape);
      }),
    fc
      .tuple(
        fc.constantFrom(z.string(), z.string().min(2), z.enum(["a", "b"]), z.string().toUpperCase()),
        tie("schemas"),
      )
      .map(([keys, values]) => z.record(keys as z.ZodString, values)),
    fc.array(tie("schemas"), { minLength: 1, maxLength: 2 }).map(([first = z.unknown()]) => z.array(first)),
    tie("schemas").map((schema) => schema.optional()),
  ),
}));
const leaf = fc.oneof(
  fc.integer({ min: 0, max: 5 }),
  fc.integer({ min: 0, max: 5 }),
  fc.constantFrom("a", "b", "long", 1.5, null, true),
);
const { values } = fc.letrec((tie) => ({
  values: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    leaf,
    fc.dictionary(key, tie("values"), { maxKeys: 4, noNullPrototype: true }),
    fc.array(tie("values"), { maxLength: 2 }),
  ),
}));

const samples = fc.oneof(fc.dictionary(key, values, { minKeys: 1, maxKeys: 4, noNullPrototype: true }), values);

/** The same keys in the same places, other leaves. */
function reshape(value: unknown, next: () => unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => reshape(item, next));
  if (typeof value !== "object" || value === null) return next();
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, reshape(item, next)]));
}

describe("a schema for one shape", () => {
  test("gives what the schema gives, or refuses", () => {
    let taken = 0;
    fc.assert(
      fc.property(schemas, samples, fc.array(leaf, { minLength: 1, maxLength: 6 }), (schema, sample, leaves) => {
        const special = toSpecial(schema, sample);
        let index = 0;
        for (const value of [sample, reshape(sample, () => leaves[index++ % leaves.length])]) {
          const parsed = special.safeParse(value);
          if (!parsed.success) continue;
          if (special !== schema) taken += 1;
          expect(exact(parsed.data)).toBe(exact(schema.parse(value)));
        }
      }),
      { numRuns: 5000 },
    );
    expect(taken).toBeGreaterThan(20);
  });

  const climate = z.looseObject({ seq: z.int(), metrics: z.record(z.string(), z.number()) });
  const sample = { note: "x", metrics: { t: 1, h: 2 }, seq: 3 };

  test("has no key left that could be any", () => {
    const special = toSpecial(climate, sample);
    expect(special).not.toBe(climate);
    expect(exact(special.parse(sample))).toBe(exact(climate.parse(sample)));
    expect(special.safeParse({ ...sample, metrics: { t: 1, h: "2" } }).success).toBe(false);
  });

  test.each<[string, z.ZodType]>([
    ["a rule for the whole object", climate.refine(({ seq }) => seq > 0)],
    ["a rule for the whole record", z.record(z.string(), z.unknown()).refine((value) => "seq" in value)],
    ["a rule for the keys", z.record(z.string().min(2), z.unknown())],
    ["a format of the keys", z.record(z.email(), z.unknown())],
    ["a catchall that is a rule", z.object({}).catchall(z.number())],
    ["no key but its own", z.strictObject({ seq: z.int() })],
    ["a choice", z.union([climate, z.object({})])],
    ["a change afterwards", climate.transform(({ seq }) => seq)],
  ])("stays the schema itself where it has %s", (_, schema) => {
    expect(toSpecial(schema, sample)).toBe(schema);
  });
});
