// A schema for values whose keys are known. What a schema does for keys that could be any (the members of z.record, the rest of
// z.looseObject) it finds out for each value by reflection, which costs ten times as much as to check the values; for values
// of one shape (json-shapes.ts) it is done once, here. bench: decode

import { z } from "zod";

type Schema = z.core.$ZodType;

/**
 * A schema that takes a value with the keys of `sample` only if `schema` takes it, and then gives the same. It may refuse what
 * `schema` takes: ask that one then. The same schema when there is nothing to gain.
 */
export function specialize(schema: Schema, sample: unknown): Schema {
  if (!isRecord(sample) || hasChecks(schema)) return schema;
  const { def } = (schema as z.core.$ZodTypes)._zod;
  if (def.type === "object") return specializeObject(schema, def, sample);
  if (def.type === "record" && isAnyString(def.keyType) && def.mode !== "loose") {
    const { valueType } = def;
    return z.object(mapEntries(sample, (value) => specialize(valueType, value)));
  }
  return schema;
}

function specializeObject(schema: Schema, { shape, catchall }: z.core.$ZodObjectDef, sample: JsonObject): Schema {
  const isLoose = catchall !== undefined && catchall._zod.def.type === "unknown" && !hasChecks(catchall);
  if (catchall !== undefined && !isLoose) return schema;
  const known = mapEntries(shape, (child, key) =>
    Object.hasOwn(sample, key) ? specialize(child, sample[key]) : child,
  );
  if (!isLoose) return Object.keys(shape).every((key) => known[key] === shape[key]) ? schema : z.object(known);
  // In the order in which a loose object gives them: the known keys, then the others as they come.
  const others = Object.entries(sample).filter(([key]) => !Object.hasOwn(shape, key));
  return z.object({ ...known, ...Object.fromEntries(others.map(([key]) => [key, z.unknown()])) });
}

type JsonObject = Readonly<Record<string, unknown>>;

const isRecord = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const hasChecks = ({ _zod: { def } }: Schema): boolean => (def.checks?.length ?? 0) > 0;

/** z.string() itself: a key that is a format or has checks must be asked for each key. */
function isAnyString(schema: Schema): boolean {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  return def.type === "string" && !("format" in def) && def.coerce !== true && !hasChecks(schema);
}

const mapEntries = <In>(
  record: Readonly<Record<string, In>>,
  map: (value: In, key: string) => Schema,
): Record<string, Schema> => Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value, key)]));
