import { describe, expect, test } from "vitest";
import { RateLimit } from "../../src/broker/rate-limit.ts";

const PUBLISH = 0x30;
const PINGREQ = 0xc0;

function open(messagesPerSecond: number, bytesPerSecond: number): { limit: RateLimit; exceeded: string[] } {
  const exceeded: string[] = [];
  const limit = new RateLimit({ messagesPerSecond, bytesPerSecond }, 0, (name) => exceeded.push(name));
  return { limit, exceeded };
}

describe("a rate limit", () => {
  test("lets a second's worth pass at once, and one packet more", () => {
    const { limit } = open(10, 0);
    for (let count = 0; count < 10; count += 1) {
      expect(limit.isExceeded(0)).toBe(false);
      limit.take(PUBLISH, 100);
    }
    expect(limit.isExceeded(0)).toBe(false);
    limit.take(PUBLISH, 100);
    expect(limit.isExceeded(0)).toBe(true);
    expect(limit.isExceeded(99)).toBe(true);
    expect(limit.isExceeded(101)).toBe(false);
  });

  test("holds the rate over a long time, however it is asked", () => {
    const { limit } = open(100, 0);
    let taken = 0;
    for (let nowMs = 0; nowMs < 60_000; nowMs += 50) {
      while (!limit.isExceeded(nowMs)) {
        limit.take(PUBLISH, 1);
        taken += 1;
      }
    }
    expect(taken).toBeGreaterThan(100 * 60);
    expect(taken).toBeLessThan(100 * 61 + 2);
  });

  test("does not save up more than a second's worth", () => {
    const { limit } = open(10, 0);
    expect(limit.isExceeded(3_600_000)).toBe(false);
    for (let count = 0; count < 11; count += 1) limit.take(PUBLISH, 1);
    expect(limit.isExceeded(3_600_000)).toBe(true);
  });

  test("counts only PUBLISH as messages, and the bytes of all packets", () => {
    const messages = open(1, 0);
    for (let count = 0; count < 100; count += 1) messages.limit.take(PINGREQ, 2);
    expect(messages.limit.isExceeded(0)).toBe(false);
    const bytes = open(0, 100);
    for (let count = 0; count < 51; count += 1) bytes.limit.take(PINGREQ, 2);
    expect(bytes.limit.isExceeded(0)).toBe(true);
    expect(bytes.exceeded).toEqual(["bytesPerSecond"]);
  });

  test("tells once when it is exceeded, however often it is asked, and again the next time", () => {
    const { limit, exceeded } = open(1, 0);
    for (let round = 1; round <= 2; round += 1) {
      for (let count = 0; count < 3; count += 1) limit.take(PUBLISH, 1);
      limit.isExceeded(round * 10_000);
      limit.take(PUBLISH, 1);
      limit.take(PUBLISH, 1);
      limit.isExceeded(round * 10_000);
      limit.isExceeded(round * 10_000 + 1);
      expect(exceeded).toHaveLength(round);
      expect(limit.isExceeded(round * 10_000 + 9_000)).toBe(false);
    }
  });
});
