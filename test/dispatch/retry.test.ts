import { describe, expect, test } from "vitest";
import { createBackoff, toFailure } from "../../src/dispatch/retry.ts";

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

  test("waits about the longest time for what only a person can mend, and as long as a server asks for", async () => {
    const original = globalThis.setTimeout;
    const pauseOf = async (
      random: number,
      failure: { kind?: "misconfigured"; retryAfterMs?: number },
    ): Promise<number> => {
      const backoff = createBackoff({ minimumMs: 50, maximumMs: 300, random: () => random });
      let pauseMs = Number.NaN;
      globalThis.setTimeout = ((run: () => void, ms: number) => {
        pauseMs = ms;
        return original(run, 0);
      }) as typeof setTimeout;
      try {
        await backoff.pause(never, failure);
      } finally {
        globalThis.setTimeout = original;
      }
      return pauseMs;
    };
    expect(await pauseOf(0, { kind: "misconfigured" })).toBe(150);
    expect(await pauseOf(1, { kind: "misconfigured" })).toBe(300);
    expect(await pauseOf(1, { retryAfterMs: 20_000 })).toBe(20_000);
    expect(await pauseOf(1, { retryAfterMs: 1 })).toBe(50);
    expect(await pauseOf(1, { retryAfterMs: 1e12 })).toBe(3_600_000);
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

test("a failure is read by its form, and everything else is transient", () => {
  expect(toFailure(Object.assign(new Error("no table"), { kind: "misconfigured" }))).toMatchObject({
    kind: "misconfigured",
    message: "no table",
  });
  expect(toFailure(Object.assign(new Error("busy"), { retryAfterMs: 5 }))).toMatchObject({
    kind: "transient",
    retryAfterMs: 5,
  });
  expect(toFailure(Object.assign(new Error("busy"), { retryAfterMs: "5" })).retryAfterMs).toBeUndefined();
  expect(toFailure("text")).toMatchObject({ kind: "transient", message: "text" });
  expect(toFailure(undefined)).toMatchObject({ kind: "transient" });
});
