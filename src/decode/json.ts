// Strict JSON (RFC 8259, with the choices that I-JSON, RFC 7493, makes): what two readers could understand differently is
// refused. The hot path is one scan of the bytes, the engine's own JSON.parse and one walk over the value; whatever they
// find suspicious goes to the slow and exact parser in json-strict.ts, which says what is wrong and where.

import { Buffer, isUtf8 } from "node:buffer";
import type { Codec, Decoded } from "./codec.ts";
import { findJsonIssue, maximumJsonDepth } from "./json-strict.ts";

const quote = 0x22;
const backslash = 0x5c;

/**
 * JSON as the payload of a PUBLISH. Refused, each with an issue: an empty payload, a byte order mark, malformed UTF-8, a
 * syntax error (with its position), a number that is too large for a double, a key given twice, the key `__proto__`, an
 * unpaired surrogate and nesting deeper than 64.
 */
export const json: Codec = Object.freeze({ name: "json", decode });

function decode(payload: Uint8Array): Decoded {
  const length = payload.length;
  let members = 0;
  let depth = 0;
  let deepest = 0;
  let inString = false;
  let all = 0;
  let escaped = false;
  for (let at = 0; at < length; at++) {
    const byte = payload[at] as number;
    all |= byte;
    if (byte === quote) inString = !inString;
    else if (inString) {
      if (byte === backslash) {
        escaped = true;
        break;
      }
    } else if (byte === 0x3a) members++;
    else if (byte === 0x7b || byte === 0x5b) {
      if (++depth > deepest) deepest = depth;
    } else if (byte === 0x7d || byte === 0x5d) depth--;
  }
  const bytes = Buffer.isBuffer(payload) ? payload : Buffer.from(payload.buffer, payload.byteOffset, length);
  if (escaped || all >= 0x80 || deepest > maximumJsonDepth) return decodeWithCare(bytes);
  const text = bytes.toString("latin1");
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "number" ? !Number.isFinite(value) : countMembers(value) !== members) return decodeText(text);
    return { kind: "decoded", value };
  } catch {
    return decodeText(text);
  }
}

/** Escapes, characters outside ASCII, or too deep: the bytes are checked, then the text is read by the exact parser. */
function decodeWithCare(bytes: Buffer): Decoded {
  if (!isUtf8(bytes)) return { kind: "undecodable", issues: [{ path: "", message: "is not well-formed UTF-8" }] };
  return decodeText(bytes.toString("utf8"));
}

function decodeText(text: string): Decoded {
  const issue = findJsonIssue(text);
  return issue === undefined
    ? { kind: "decoded", value: JSON.parse(text) as unknown }
    : { kind: "undecodable", issues: [issue] };
}

/** The number of members in all objects of `value`, or -1 when something in it needs the exact parser. */
function countMembers(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  let count = 0;
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      const item: unknown = value[index];
      if (typeof item === "object" && item !== null) {
        const inner = countMembers(item);
        if (inner < 0) return -1;
        count += inner;
      } else if (typeof item === "number" && !Number.isFinite(item)) return -1;
    }
    return count;
  }
  const object = value as Record<string, unknown>;
  // oxlint-disable-next-line guard-for-in -- a value of JSON.parse has no inherited enumerable keys, and this is half the cost of Object.keys
  for (const key in object) {
    if (key === "__proto__") return -1;
    count++;
    const item = object[key];
    if (typeof item === "object" && item !== null) {
      const inner = countMembers(item);
      if (inner < 0) return -1;
      count += inner;
    } else if (typeof item === "number" && !Number.isFinite(item)) return -1;
  }
  return count;
}
