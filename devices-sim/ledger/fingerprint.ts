// What a message says, in 52 bits: how a reading in a sink is known again, whatever was done to the order of its fields, its
// white space and the way its numbers are written.

import { hash } from "node:crypto";

/** A whole number below 2^52, so that it is exact in JSON and in a Float64Array. */
export type Fingerprint = number;

/** Hexadecimal digits of 52 bits. */
const DIGITS = 13;

/** Of a payload: of the value if it is JSON, else of its bytes. */
export function fingerprintOfPayload(payload: string | Uint8Array): Fingerprint {
  const text = typeof payload === "string" ? payload : Buffer.from(payload).toString();
  try {
    return fingerprintOfValue(JSON.parse(text));
  } catch {
    return shorten(hash("sha256", payload, "hex"));
  }
}

/** Of what JSON.parse returns. Throws a RangeError for a value that is nested some thousand levels deep. */
export const fingerprintOfValue = (value: unknown): Fingerprint => shorten(hash("sha256", canonical(value), "hex"));

/** JSON with sorted names. Called for each message: to quote each name again would be a third of its time. */
function canonical(value: unknown): string {
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "null";
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  const fields = value as Readonly<Record<string, unknown>>;
  let text = "{";
  for (const name of Object.keys(fields).sort()) text += quote(name) + canonical(fields[name]);
  return `${text}}`;
}

/** Names as they stand before their values; those of devices are few, those of attackers are not kept. */
const quoted = new Map<string, string>();
const MOST_QUOTED = 1000;

function quote(name: string): string {
  const known = quoted.get(name);
  if (known !== undefined) return known;
  const text = `,${JSON.stringify(name)}:`;
  if (quoted.size < MOST_QUOTED) quoted.set(name, text);
  return text;
}

const shorten = (digest: string): Fingerprint => Number.parseInt(digest.slice(0, DIGITS), 16);
