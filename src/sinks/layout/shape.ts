// What a stream's schema says of the fields of its readings: the part of it that can be columns.

import { z } from "zod";

/** How JSON writes a value, with whole numbers and dates told apart from other numbers and strings. */
export type ScalarType = "bigint" | "double" | "boolean" | "text" | "timestamp";

/**
 * A value as a schema has it. any: of several types, of a type that is no scalar, or unknown.
 * `nullable`: it may be null.
 */
export type Shape =
  | { readonly kind: "scalar"; readonly type: ScalarType; readonly nullable: boolean }
  | { readonly kind: "object"; readonly fields: ReadonlyMap<string, Field>; readonly nullable: boolean }
  | { readonly kind: "null" }
  | { readonly kind: "any" };

interface Field {
  readonly shape: Shape;
  /** Every object has it. */
  readonly required: boolean;
}

type JsonSchema = z.core.JSONSchema.JSONSchema;

const any: Shape = { kind: "any" };
/** JSON Schema has no type for a Date. */
const DATE_FORMAT = "sluice-date";

const scalars: Readonly<Record<string, ScalarType>> = {
  integer: "bigint",
  number: "double",
  boolean: "boolean",
  string: "text",
};

/** Of what the schema returns. Never throws: what cannot be described is any. */
export function toShape(schema: z.ZodType): Shape {
  const described = z.toJSONSchema(schema, {
    io: "output",
    unrepresentable: "any",
    // Without the ids that schemas may have been given: two of them may be the same.
    metadata: z.registry(),
    override({ zodSchema, jsonSchema }) {
      if (zodSchema._zod.def.type === "date") Object.assign(jsonSchema, { type: "string", format: DATE_FORMAT });
    },
  });
  return readSchema(described);
}

function readSchema(schema: JsonSchema | boolean): Shape {
  if (typeof schema === "boolean" || schema.$ref !== undefined) return any;
  const alternatives = schema.anyOf ?? schema.oneOf;
  if (alternatives !== undefined) return alternatives.map(readSchema).reduce(either);
  if (schema.allOf !== undefined) return schema.allOf.map(readSchema).reduce(both);
  const types: readonly string[] = [schema.type ?? []].flat();
  return types.length === 0 ? any : types.map((type) => readType(type, schema)).reduce(either);
}

function readType(type: string, schema: JsonSchema): Shape {
  if (type === "null") return { kind: "null" };
  const scalar = type === "string" && schema.format === DATE_FORMAT ? "timestamp" : scalars[type];
  if (scalar !== undefined) return { kind: "scalar", type: scalar, nullable: false };
  if (type !== "object" || schema.properties === undefined) return any;
  const required = new Set(schema.required);
  const fields = Object.entries(schema.properties).map(
    ([name, field]) => [name, { shape: readSchema(field), required: required.has(name) }] as const,
  );
  return { kind: "object", fields: new Map(fields), nullable: false };
}

const isNullable = (shape: Shape): boolean => shape.kind === "null" || (shape.kind !== "any" && shape.nullable);

/** A value that is as the one or as the other says. */
function either(one: Shape, other: Shape): Shape {
  const nullable = isNullable(one) || isNullable(other);
  if (one.kind === "null") return other.kind === "null" || other.kind === "any" ? other : { ...other, nullable };
  if (other.kind === "null") return either(other, one);
  if (one.kind === "scalar" && other.kind === "scalar") {
    const type = widen(one.type, other.type);
    return type === undefined ? any : { kind: "scalar", type, nullable };
  }
  if (one.kind !== "object" || other.kind !== "object") return any;
  const fields = joinFields(one.fields, other.fields, ({ required }, twin) => required && twin?.required === true);
  return { kind: "object", fields, nullable };
}

/** A value that is as both say. */
function both(one: Shape, other: Shape): Shape {
  if (one.kind !== "object" || other.kind !== "object") return any;
  const fields = joinFields(one.fields, other.fields, ({ required }, twin) => required || twin?.required === true);
  return { kind: "object", fields, nullable: one.nullable && other.nullable };
}

/** The fields of both; what both have is as either of them has it. */
function joinFields(
  one: ReadonlyMap<string, Field>,
  other: ReadonlyMap<string, Field>,
  isRequired: (field: Field, twin: Field | undefined) => boolean,
): ReadonlyMap<string, Field> {
  const join = (field: Field, twin: Field | undefined): Field => ({
    shape: twin === undefined ? field.shape : either(field.shape, twin.shape),
    required: isRequired(field, twin),
  });
  const added = [...other].filter(([name]) => !one.has(name));
  return new Map([
    ...[...one].map(([name, field]) => [name, join(field, other.get(name))] as const),
    ...added.map(([name, field]) => [name, join(field, undefined)] as const),
  ]);
}

function widen(one: ScalarType, other: ScalarType): ScalarType | undefined {
  if (one === other) return one;
  const isNumber = [one, other].every((type) => type === "bigint" || type === "double");
  return isNumber ? "double" : undefined;
}
