// Texts with a place for what a reading says of itself, such as `telemetry:{stream}`: topics, keys.

import { z } from "zod";
import type { Reading } from "../reading.ts";

const places = {
  "{stream}": ({ stream }) => stream,
  "{device}": ({ deviceId }) => deviceId,
  "{topic}": ({ topic }) => topic,
} satisfies Readonly<Record<string, (reading: Reading) => string>>;

export type Place = keyof typeof places;

const isPlace = (found: string): found is Place => Object.hasOwn(places, found);

const anyPlace = /\{[^{}]*\}/g;

/** A setting that may have these places, each as often as one likes. */
export const templateOf = (allowed: readonly Place[]): z.ZodString =>
  z
    .string()
    .min(1)
    .max(1024)
    .refine((text) => [...text.matchAll(anyPlace)].every(([found]) => allowed.some((place) => place === found)), {
      message: `may have ${allowed.join(" and ")}, and no other names in braces`,
    });

/** Fills the places of a template; `write` says how a value is written there. */
export function createTemplate(
  template: string,
  write: (value: string, place: Place) => string = (value) => value,
): (reading: Reading) => string {
  return (reading) =>
    template.replaceAll(anyPlace, (found) => (isPlace(found) ? write(places[found](reading), found) : found));
}
