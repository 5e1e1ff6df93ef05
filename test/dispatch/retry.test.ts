import { describe, expect, test } from "vitest";
import { createBackoff } from "../../src/dispatch/retry.ts";

const never = new AbortController().signal;

describe("backoff", () => {
  test("pauses a random part of a ceiling that doubles up to the maximum", async () => {
    const timeouts: number[] = [];
    const original = globalThis.setTimeout;
    const pausesOf = async (random: number): Promise<readonly number[]> => {
      timeouts.length = 0;
      const backoff = createBackoff({ minimumMs: 50, maximumMs: 300, random: () => random });
      // Only the length of the pause is replaced.
      globalThis.setTimeout = ((run: () => void, ms: number) => {
        timeouts.push(ms);
        return original(run, 0);
      }) as typeof setTimeout;
      try {
        for (let attempt = 0; attempt < 5; attempt += 1) await backoff.pause(never);
      } finally {
        globalThis.setTimeout = original;
      }
      return [...timeouts];
    };
    expect(await pausesOf(1)).toEqual([50, 100, 200, 300, 300]);
    expect(await pausesOf(0.5)).toEqual([25, 50, 100, 150, 150]);
    expect(await pausesOf(0)).toEqual([0, 0, 0, 0, 0]);
  });

  test("begins again after a success", async () => {
    const backoff = createBackoff({ minimumMs: 1, random: () => 0 });
    await backoff.pause(never);
    await backoff.pause(never);
    expect(backoff.attempts).toBe(2);
    backoff.reset();
    expect(backoff.attempts).toBe(0);
  });

  test("ends a pause at once when it is aborted, before or while it lasts", async () => {
    const backoff = createBackoff({ minimumMs: 1_000_000, maximumMs: 1_000_000, random: () => 1 });
    const controller = new AbortController();
    const pause = backoff.pause(controller.signal);
    controller.abort();
    await pause;
    await backoff.pause(controller.signal);
    expect(backoff.attempts).toBe(2);
  });
});
