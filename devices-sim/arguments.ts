// What the values of options look like. Bad input is an InvalidArgumentError, which commander tells with the option's name.

import { resolve } from "node:path";
import { InvalidArgumentError } from "commander";
import { profileNames } from "./profiles/built-in.ts";

const schemes: ReadonlySet<string> = new Set(["mqtt:", "mqtts:", "ws:", "wss:"]);

export function url(text: string): URL {
  const parsed = URL.parse(text);
  const isWebSocket = parsed?.protocol.startsWith("ws") === true;
  if (
    parsed === null ||
    !schemes.has(parsed.protocol) ||
    parsed.hostname === "" ||
    `${parsed.username}${parsed.password}${parsed.hash}` !== "" ||
    (!isWebSocket && !/^\/?$/.test(`${parsed.pathname}${parsed.search}`))
  ) {
    throw new InvalidArgumentError(
      "expected mqtt://host:port, mqtts://host:port, ws://host:port/path or wss://host:port/path (user name and password have options of their own).",
    );
  }
  return parsed;
}

export const integer =
  (low: number, high = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= low && value <= high) return value;
    throw new InvalidArgumentError(
      `expected a whole number ${high === Number.MAX_SAFE_INTEGER ? `of at least ${low}` : `from ${low} to ${high}`}.`,
    );
  };

export const number =
  (low: number, high: number) =>
  (text: string): number => {
    const value = /^\d*\.?\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= low && value <= high) return value;
    throw new InvalidArgumentError(`expected a number from ${low} to ${high}.`);
  };

/** `500ms`, `10s`, `1.5m`, `1h` in milliseconds; at most what a timer can wait, 24 days. */
export function duration(text: string): number {
  const [, amount, unit] = /^(\d*\.?\d+)(ms|s|m|h)$/.exec(text) ?? [];
  const valueMs = Math.round(Number(amount) * ({ ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[unit ?? ""] ?? Number.NaN));
  if (valueMs <= 2 ** 31 - 1) return valueMs;
  throw new InvalidArgumentError("expected a time with its unit like 500ms, 10s, 2m or 1h.");
}

/** The name of a profile, or the absolute path of a file. */
export function profile(text: string): string {
  if (profileNames.some((name) => name === text)) return text;
  if (/\.[cm]?[jt]s$/.test(text)) return resolve(text);
  throw new InvalidArgumentError(`expected ${profileNames.join(", ")} or the path of a TypeScript file.`);
}

export function topic(text: string): string {
  if (text !== "" && !/[+#\0]/.test(text)) return text;
  throw new InvalidArgumentError(
    "expected a topic without + and # [MQTT-3.3.2-2]; {device} stands for the device's id.",
  );
}

/** A time of day in ISO 8601 with its zone, in Unix milliseconds. */
export function instant(text: string): number {
  const timeMs = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)$/.test(text)
    ? Date.parse(text)
    : Number.NaN;
  if (timeMs >= 0) return timeMs;
  throw new InvalidArgumentError("expected a time with its zone like 2026-01-01T00:00:00Z.");
}
