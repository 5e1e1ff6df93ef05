// JSON texts that differ only in their values: what devices send. A shape is a text with a place for each value that is not
// an object or array; it is turned into a function that compares the bytes between the places, reads the values and makes the object
// in one literal. For a reading of 150 B that costs an eighth of JSON.parse with the checks of json.ts (bench: decode).
//
//   text    {"seq":17,"metrics":{"temperature":21.5}}
//   shape   {"seq":□,"metrics":{"temperature":□}}
//
// A shape never reads what JSON.parse would read otherwise: whatever is not exactly as expected (another order, a blank more, an
// escape, anything outside ASCII, a number of more than 15 digits or with an exponent) is not read at all.

import type { Buffer } from "node:buffer";

/** The value, or undefined: the text is not of this shape. */
type Read = (bytes: Buffer) => unknown;

/** How many shapes one stream has at most; which of them are wanted is found out by use. */
const maximumShapes = 16;
const maximumCandidates = 64;
/** Longer texts gain less, and their functions grow. */
const maximumBytes = 2048;
/** One text in so many that had no shape is looked at, because that costs more than to read it. */
const sampleEvery = 8;
/** How often a shape must be seen before a function is made of it; when another must go for it, much more often. */
const wantedAfter = 4;
const wantedInsteadAfter = 256;

interface Shape {
  readonly text: string;
  readonly read: Read;
}

/** The shapes of one stream. What it learns changes only how fast it reads. */
export class JsonShapes {
  readonly #shapes: Shape[] = [];
  #candidates = new Map<string, number>();
  #missed = 0;
  /** Of the value that was read last. */
  shape: object | undefined;

  /** The value of a text whose shape is known, with `shape` set; undefined otherwise. */
  read(bytes: Buffer): unknown {
    const shapes = this.#shapes;
    for (let index = 0; index < shapes.length; index++) {
      const shape = shapes[index];
      const value = shape?.read(bytes);
      if (value === undefined) continue;
      this.shape = shape;
      if (index > 0) this.#promote(index);
      return value;
    }
    return undefined;
  }

  /** A text that had no shape: valid, ASCII, without escapes, no key given twice or called `__proto__`. */
  learn(bytes: Buffer): void {
    this.#missed += 1;
    if (this.#missed % sampleEvery !== 0 || bytes.length > maximumBytes) return;
    const parts = toParts(bytes.toString("latin1"));
    const text = parts.join("□");
    const seen = (this.#candidates.get(text) ?? 0) + 1;
    const isFull = this.#shapes.length === maximumShapes;
    if (seen < (isFull ? wantedInsteadAfter : wantedAfter)) {
      if (this.#candidates.size >= maximumCandidates) this.#candidates = new Map();
      this.#candidates.set(text, seen);
      return;
    }
    this.#candidates.delete(text);
    if (isFull) this.#shapes.pop();
    this.#shapes.push({ text, read: compile(parts) });
  }

  /** What is read more often comes to stand in front; the last is the one to go. */
  #promote(index: number): void {
    const [shape] = this.#shapes.splice(index, 1);
    if (shape !== undefined) this.#shapes.splice(index - 1, 0, shape);
  }
}

/** A string that is not a key, a number, or a word. A key is passed over by the first alternative. */
const place = /"[^"]*"(?=[ \t\n\r]*:)|("[^"]*"|-?\d[\d.eE+-]*|true|false|null)/g;

/** The text between the places. The blanks at the end do not count. */
function toParts(text: string): readonly string[] {
  const parts: string[] = [];
  let from = 0;
  for (const match of text.matchAll(place)) {
    if (match[1] === undefined) continue;
    parts.push(text.slice(from, match.index));
    from = match.index + match[0].length;
  }
  parts.push(text.slice(from).replace(/[ \t\n\r]+$/, ""));
  return parts;
}

/** Quotients of integers below 10^15 by these are correctly rounded, because both are exact (Clinger 1990). */
const powersOfTen = Array.from({ length: 16 }, (_, exponent) => 10 ** exponent);

/**
 * The function of a shape. Its source holds the device's text only where a JSON text stands for itself in ECMAScript: the keys
 * have neither quote, backslash, control character nor anything outside ASCII, and `__proto__` is none of them.
 */
function compile(parts: readonly string[]): Read {
  const values = parts.slice(1).map((_, index) => `value${index}`);
  const steps = parts.map((part, index) => toComparison(part) + (index < values.length ? readValue(index) : ""));
  const literal = parts.map((part, index) => part + (values[index] ?? "")).join("");
  const source = `"use strict";
    return (bytes) => {
      const { length } = bytes;
      let at = 0, byte = 0, start = 0, fraction = 0, digits = 0, isNegative = false;
      ${steps.join("")}
      while (at < length) {
        byte = bytes[at++];
        if (byte !== 32 && byte !== 10 && byte !== 13 && byte !== 9) return undefined;
      }
      return (${literal});
    };`;
  // oxlint-disable-next-line no-implied-eval, no-new-func -- zod compiles schemas the same way; what is in the source is said above
  return (new Function("powersOfTen", source) as (powers: readonly number[]) => Read)(powersOfTen);
}

function toComparison(part: string): string {
  if (part === "") return "";
  const tests = Array.from(part, (character, index) => `bytes[at + ${index}] !== ${character.charCodeAt(0)}`);
  return `if (${tests.join(" || ")}) return undefined; at += ${part.length};`;
}

/** Reads a string, a number or a word, whichever stands there. Reading beyond the end gives undefined, which is none of them. */
const readValue = (index: number): string => `
  let value${index};
  byte = bytes[at];
  if (byte === 34) {
    start = ++at;
    for (byte = bytes[at]; byte !== 34; byte = bytes[++at]) if (!(byte >= 32 && byte < 128) || byte === 92) return undefined;
    value${index} = bytes.latin1Slice(start, at++);
  } else if (byte === 116) {
    if (bytes[at + 1] !== 114 || bytes[at + 2] !== 117 || bytes[at + 3] !== 101) return undefined;
    value${index} = true;
    at += 4;
  } else if (byte === 102) {
    if (bytes[at + 1] !== 97 || bytes[at + 2] !== 108 || bytes[at + 3] !== 115 || bytes[at + 4] !== 101) return undefined;
    value${index} = false;
    at += 5;
  } else if (byte === 110) {
    if (bytes[at + 1] !== 117 || bytes[at + 2] !== 108 || bytes[at + 3] !== 108) return undefined;
    value${index} = null;
    at += 4;
  } else {
    isNegative = byte === 45;
    if (isNegative) byte = bytes[++at];
    if (!(byte >= 48 && byte <= 57)) return undefined;
    start = at;
    fraction = 0;
    digits = byte - 48;
    byte = bytes[++at];
    if (digits === 0 && byte >= 48 && byte <= 57) return undefined;
    for (; byte >= 48 && byte <= 57; byte = bytes[++at]) digits = digits * 10 + (byte - 48);
    if (byte === 46) {
      fraction = ++at;
      start++;
      byte = bytes[at];
      if (!(byte >= 48 && byte <= 57)) return undefined;
      for (; byte >= 48 && byte <= 57; byte = bytes[++at]) digits = digits * 10 + (byte - 48);
      fraction = at - fraction;
    }
    if (at - start > 15 || byte === 101 || byte === 69) return undefined;
    if (isNegative) digits = -digits;
    value${index} = fraction === 0 ? digits : digits / powersOfTen[fraction];
  }`;
