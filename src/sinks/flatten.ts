// Data as a flat list of fields, for what has columns or fields and no objects.
//
//   {"temp": 21.5, "gps": {"lat": 1, "fix": true}, "list": [7, null]}   with "_" between the parts of a name:
//   temp 21.5, gps_lat 1, gps_fix true, list_0 7

import { toError } from "../errors.ts";

export type Field = string | number | boolean;

/** A circle is deeper than this, and no telemetry is. */
const DEPTH = 128;
/** Fields, and the objects and lists around them. */
const VALUES = 20_000;
/** Of all names and texts together: a long name around many values is repeated with each of them. */
const CHARACTERS = 4 * 1024 * 1024;

/**
 * The fields of what a schema returned, in its order, as JSON.stringify would see it. What has no value has no field: null,
 * undefined, NaN and the infinities. Data that is a bare value is the field `value`. An Error: two fields would have the
 * same name, a name is empty, there is too much of it, or a toJSON throws.
 */
export function flatten(data: unknown, separator: string): ReadonlyMap<string, Field> | Error {
  const fields = new Map<string, Field>();
  let values = 0;
  let characters = 0;

  function add(name: string, value: Field): void {
    characters += name.length + (typeof value === "string" ? value.length : 0);
    if (characters > CHARACTERS) throw new Error(`its fields have more than ${CHARACTERS} characters`);
    if (name === "") throw new Error("a field has an empty name");
    if (fields.has(name)) throw new Error(`two of its fields would be called ${name}`);
    fields.set(name, value);
  }

  function visit(given: unknown, name: string | undefined, depth: number): void {
    values += 1;
    if (values > VALUES) throw new Error(`it has more than ${VALUES} values`);
    const value = hasToJson(given) ? given.toJSON(name ?? "") : given;
    if (typeof value === "string" || typeof value === "boolean") add(name ?? "value", value);
    else if (typeof value === "number" || typeof value === "bigint") {
      const number = Number(value);
      if (Number.isFinite(number)) add(name ?? "value", number);
    } else if (typeof value === "object" && value !== null) {
      if (depth === DEPTH) throw new Error(`it is deeper than ${DEPTH} levels`);
      for (const [key, inner] of Object.entries(value)) {
        visit(inner, name === undefined ? key : `${name}${separator}${key}`, depth + 1);
      }
    }
  }

  try {
    visit(data, undefined, 0);
  } catch (cause) {
    return toError(cause);
  }
  return fields;
}

/** A Date, for example. */
const hasToJson = (value: unknown): value is { toJSON(key: string): unknown } =>
  typeof value === "object" && value !== null && "toJSON" in value && typeof value.toJSON === "function";
