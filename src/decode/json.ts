// Strict JSON (RFC 8259, with the choices that I-JSON, RFC 7493, makes): what two readers could understand differently is
// refused. One scan of the bytes, the engine's own JSON.parse and one walk over the value; whatever they find doubtful goes
// to the slow and exact reader in json-strict.ts, which says what is wrong and where. The decoder of a stream first tries the
// shapes that it has learned (json-shapes.ts).

import { Buffer, isUtf8 } from "node:buffer";
import type { Codec, Decoded } from "./codec.ts";
import { JsonShapes } from "./json-shapes.ts";
import { findJsonIssue, maximumJsonDepth } from "./json-strict.ts";

/**
 * JSON as the payload of a PUBLISH. Refused, each with an issue: an empty payload, a byte order mark, malformed UTF-8, a
 * syntax error (with its position), a number that is too large for a double, a key given twice, the key `__proto__`, an
 * unpaired surrogate and nesting deeper than 64.
 */
export const json: Codec = Object.freeze({
  name: "json",
  contentTypes: Object.freeze(["application/json", "text/json"]),
  decode: (payload: Uint8Array) => decode(toBuffer(payload)),
  createDecoder,
});

function createDecoder(): Codec["decode"] {
  const shapes = new JsonShapes();
  return (payload) => {
    const bytes = toBuffer(payload);
    const value = shapes.read(bytes);
    return value === undefined ? decode(bytes, shapes) : { kind: "decoded", value, shape: shapes.shape };
  };
}

const toBuffer = (payload: Uint8Array): Buffer =>
  Buffer.isBuffer(payload) ? payload : Buffer.from(payload.buffer, payload.byteOffset, payload.length);

/** JSON.parse and the copy to a string are two thirds of its cost; the scan and the walk are the rest. */
function decode(bytes: Buffer, shapes?: JsonShapes): Decoded {
  const members = scan(bytes);
  if (members === doubtful) return decodeExactly(bytes);
  try {
    const value: unknown = JSON.parse(bytes.toString("latin1"));
    if (walk(value) !== members) return decodeExactly(bytes);
    shapes?.learn(bytes);
    return { kind: "decoded", value };
  } catch {
    return decodeExactly(bytes);
  }
}

function decodeExactly(bytes: Buffer): Decoded {
  if (!isUtf8(bytes)) return { kind: "undecodable", issues: [{ path: "", message: "is not well-formed UTF-8" }] };
  const text = bytes.toString("utf8");
  const issue = findJsonIssue(text);
  return issue === undefined
    ? { kind: "decoded", value: JSON.parse(text) as unknown }
    : { kind: "undecodable", issues: [issue] };
}

/** What `scan` and `walk` give when the exact reader must look. */
const doubtful = -1;

const quote = 0x22;
const backslash = 0x5c;
const colon = 0x3a;
/** The upper of the two brackets: `[` and `]` are 0x20 below `{` and `}`. */
const opening = 0x7b;
const closing = 0x7d;

/**
 * The number of members (colons outside strings) of a text that has no escape, nothing outside ASCII in a string, and is
 * not too deep. Outside strings only colons and brackets count, and they are the highest of the bytes that JSON has there.
 */
function scan(payload: Uint8Array): number {
  const { length } = payload;
  let members = 0;
  let depth = 0;
  for (let at = 0; at < length; at++) {
    const byte = payload[at] as number;
    if (byte === quote) {
      while (++at < length) {
        const inside = payload[at] as number;
        if (inside === quote) break;
        if (inside === backslash || inside >= 0x80) return doubtful;
      }
    } else if (byte === colon) members++;
    else if (byte > colon) {
      const bracket = byte | 0x20;
      if (bracket === closing) depth--;
      else if (bracket === opening && ++depth > maximumJsonDepth) return doubtful;
    }
  }
  return members;
}

/**
 * The number of members that are left in the value: fewer than `scan` counted when a key was given twice. The recursion
 * is as deep as the text, which `scan` has bounded.
 */
function walk(value: unknown): number {
  if (typeof value === "number") return Number.isFinite(value) ? 0 : doubtful;
  if (typeof value !== "object" || value === null) return 0;
  let count = 0;
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      const inner = walk(value[index]);
      if (inner === doubtful) return doubtful;
      count += inner;
    }
    return count;
  }
  // oxlint-disable-next-line guard-for-in -- nothing that JSON.parse makes inherits an enumerable key; Object.keys costs twice as much
  for (const key in value) {
    if (key === "__proto__") return doubtful;
    const inner = walk((value as Record<string, unknown>)[key]);
    if (inner === doubtful) return doubtful;
    count += inner + 1;
  }
  return count;
}
