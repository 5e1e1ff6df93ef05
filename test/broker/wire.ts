// MQTT packets by hand, for tests that need bytes which no library would write.

import { Buffer } from "node:buffer";

export type Part = number | string | readonly number[] | Uint8Array;

/** Numbers are bytes, a string is its raw UTF-8. */
export const bytes = (...parts: readonly Part[]): Buffer =>
  Buffer.concat(
    parts.map((part) => {
      if (typeof part === "number") return Buffer.from([part]);
      return typeof part === "string" ? Buffer.from(part, "utf8") : Buffer.from(part);
    }),
  );

export const u16 = (value: number): readonly number[] => [value >>> 8, value & 0xff];
export const u32 = (value: number): readonly number[] => [...u16(value >>> 16), ...u16(value & 0xffff)];

/** A length in two bytes and what it counts: a UTF-8 Encoded String or Binary Data. */
export function counted(...parts: readonly Part[]): Buffer {
  const content = bytes(...parts);
  return bytes(u16(content.length), content);
}

export function variable(value: number): Buffer {
  const out: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    out.push(rest < 0x80 ? rest : (rest & 0x7f) | 0x80);
    if (rest < 0x80) return Buffer.from(out);
  }
}

/** Properties with their length in front. */
export function properties(...parts: readonly Part[]): Buffer {
  const content = bytes(...parts);
  return bytes(variable(content.length), content);
}

export function packet(firstByte: number, ...body: readonly Part[]): Buffer {
  const content = bytes(...body);
  return bytes(firstByte, variable(content.length), content);
}

/** The body's place, for checks that take it. */
export function bodyStartOf(whole: Uint8Array): number {
  let at = 1;
  while (((whole[at] ?? 0) & 0x80) !== 0) at++;
  return at + 1;
}

/** Bytes to put around a packet: a reader that goes beyond its end finds something plausible there. */
export const surroundings: readonly Buffer[] = [
  Buffer.alloc(300),
  bytes(...Array.from({ length: 20 }, () => bytes(0x26, counted("a"), counted("b")))),
  bytes(...Array.from({ length: 20 }, () => bytes(1, counted("a"), 0))),
];
