// The last keys of a stream with `dedupe`: two generations of a map. When the younger one is full it becomes the older,
// and what was the older is forgotten, so that at least `window` keys are known and at most twice as many.

import { hash } from "node:crypto";
import type { Offset } from "../reading.ts";

/** Of a digest, in bytes, and in characters of a string that has one for each byte. */
export const digestBytes = 32;

/** Maps keep the order in which their entries came. An older generation is never changed, a younger only grows. */
export interface Generation {
  readonly offsets: ReadonlyMap<string, Offset>;
  /** How many of the entries belong to it: later ones came after it was asked for. */
  readonly size: number;
}

export class KeyWindow {
  readonly #window: number;
  #old = new Map<string, Offset>();
  #young = new Map<string, Offset>();

  constructor(window: number) {
    this.#window = window;
  }

  /** The offset of the record with this key; undefined: it is not remembered. */
  find(digest: string): Offset | undefined {
    return this.#young.get(digest) ?? this.#old.get(digest);
  }

  remember(digest: string, offset: Offset): void {
    if (this.#young.size >= this.#window) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(digest, offset);
  }

  /** What is remembered now, the older first. Stays as it is when more is remembered later. */
  generations(): readonly Generation[] {
    return [this.#old, this.#young].map((offsets) => ({ offsets, size: offsets.size }));
  }
}

/**
 * A key of a device, made as long as any other: keys come from devices, and what is remembered of them must not depend on
 * how long they are. SHA-256, because a device must not be able to make two keys that are one. One character per byte.
 */
export const toDigest = (deviceId: string, key: string): string => hash("sha256", `${deviceId}\0${key}`, "binary");
