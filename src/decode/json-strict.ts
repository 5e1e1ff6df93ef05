// The exact reader of JSON text behind json.ts: it builds no value, it only finds the first thing that is wrong.

import type { Issue } from "../reading.ts";

/** Objects and arrays inside each other. Bounds the recursion here and in everything that walks the value later. */
export const maximumJsonDepth = 64;

/** The shape of a number, RFC 8259 section 6. */
const numberShape = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
/** A run of characters that stand for themselves in a string, RFC 8259 section 7. */
// oxlint-disable-next-line no-control-regex -- control characters are what the grammar excludes
const plainRun = /[^"\\\u0000-\u001f]*/y;
const escapeShape = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const blankRun = /[ \t\n\r]*/y;

/** Thrown and caught in this file only: the way out of the recursion. */
class Found extends Error {
  readonly issue: Issue;
  constructor(path: string, message: string) {
    super(message);
    this.issue = { path, message };
  }
}

/** The first issue of a JSON text, or undefined when JSON.parse reads it to the same value that any strict reader would. */
export function findJsonIssue(text: string): Issue | undefined {
  if (text.length === 0) return { path: "", message: "the payload is empty, a JSON value was expected" };
  if (text.startsWith("\uFEFF")) return { path: "", message: "the payload starts with a byte order mark" };
  try {
    new Reader(text).document();
    return undefined;
  } catch (cause) {
    if (cause instanceof Found) return cause.issue;
    throw cause;
  }
}

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): void {
    this.#value("", 0);
    if (this.#at < this.#text.length) this.#unexpected("nothing after the value");
  }

  /** Reads a value and the blanks around it. */
  #value(path: string, depth: number): void {
    this.#match(blankRun);
    const character = this.#text[this.#at];
    if (character === "{" || character === "[") {
      if (depth === maximumJsonDepth) {
        throw new Found("", `is nested deeper than ${maximumJsonDepth} at character ${this.#at}`);
      }
      this.#at++;
      if (character === "{") this.#members(path, depth + 1);
      else this.#items(path, depth + 1);
    } else if (character === '"') this.#string(path);
    else if (character === "t") this.#word("true");
    else if (character === "f") this.#word("false");
    else if (character === "n") this.#word("null");
    else this.#number(path);
    this.#match(blankRun);
  }

  #members(path: string, depth: number): void {
    this.#match(blankRun);
    if (this.#take("}")) return;
    const keys = new Set<string>();
    do {
      this.#match(blankRun);
      const start = this.#at;
      if (this.#text[start] !== '"') this.#unexpected("a key in double quotes");
      const key = this.#string(path);
      const place = memberPath(path, key);
      if (key === "__proto__") throw new Found(place, `the key __proto__ is not allowed (character ${start})`);
      if (keys.has(key)) throw new Found(place, `the key ${JSON.stringify(key)} is given twice (character ${start})`);
      keys.add(key);
      this.#match(blankRun);
      if (!this.#take(":")) this.#unexpected("a colon after the key");
      this.#value(place, depth);
    } while (this.#take(","));
    if (!this.#take("}")) this.#unexpected("a comma or }");
  }

  #items(path: string, depth: number): void {
    this.#match(blankRun);
    if (this.#take("]")) return;
    let index = 0;
    do this.#value(`${path}[${index++}]`, depth);
    while (this.#take(","));
    if (!this.#take("]")) this.#unexpected("a comma or ]");
  }

  #string(path: string): string {
    const start = this.#at++;
    for (;;) {
      this.#match(plainRun);
      const character = this.#text[this.#at];
      if (character === '"') break;
      if (character === "\\") {
        if (this.#match(escapeShape) === 0) this.#unexpected("an escape that JSON knows");
      } else this.#unexpected("the end of a string");
    }
    this.#at++;
    const value = JSON.parse(this.#text.slice(start, this.#at)) as string;
    if (!value.isWellFormed()) {
      throw new Found(path, `the string at character ${start} has an unpaired surrogate, which is no character`);
    }
    return value;
  }

  #number(path: string): void {
    const start = this.#at;
    if (this.#match(numberShape) === 0) this.#unexpected("a value");
    const digits = this.#text.slice(start, this.#at);
    if (!Number.isFinite(Number(digits))) {
      throw new Found(path, `the number at character ${start} is too large for a double`);
    }
  }

  #word(word: string): void {
    if (!this.#text.startsWith(word, this.#at)) this.#unexpected("a value");
    this.#at += word.length;
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  /** Advances over what `shape` (sticky) matches here; returns how many characters. */
  #match(shape: RegExp): number {
    shape.lastIndex = this.#at;
    if (!shape.test(this.#text)) return 0;
    const length = shape.lastIndex - this.#at;
    this.#at = shape.lastIndex;
    return length;
  }

  #unexpected(expected: string): never {
    const found =
      this.#at >= this.#text.length
        ? `ends at character ${this.#at}`
        : `has ${JSON.stringify(String.fromCodePoint(this.#text.codePointAt(this.#at) ?? 0))} at character ${this.#at}`;
    throw new Found("", `is not JSON: ${found}, where ${expected} was expected`);
  }
}

/** The place of a member as an issue names it: `metrics.temp`, `metrics["a b"]`. */
function memberPath(path: string, key: string): string {
  if (/[^\w$]/.test(key) || key === "") return `${path}[${JSON.stringify(key)}]`;
  return path === "" ? key : `${path}.${key}`;
}
