import { setImmediate } from "node:timers/promises";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { createLanes } from "../../src/dispatch/lanes.ts";
import { createWindow } from "../../src/dispatch/window.ts";
import { toOffset } from "../../src/reading.ts";

const job = fc.record({
  lane: fc.constantFrom("a", "b", "c", "d"),
  /** Turns of the event loop that it takes. */
  turns: fc.nat(3),
  fails: fc.boolean(),
  waitBefore: fc.boolean(),
});

test("each lane keeps its order, one at a time, and no more run than there are places", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(job, { maxLength: 40 }), fc.integer({ min: 1, max: 4 }), async (jobs, places) => {
      const lanes = createLanes(places);
      const running = new Set<string>();
      const begun: number[] = [];
      let most = 0;
      const outcomes: Promise<unknown>[] = [];
      for (const [index, { lane, turns, fails, waitBefore }] of jobs.entries()) {
        if (waitBefore) await setImmediate();
        const work = async (): Promise<void> => {
          expect(running.has(lane)).toBe(false);
          running.add(lane);
          begun.push(index);
          most = Math.max(most, running.size);
          for (let turn = 0; turn < turns; turn += 1) await setImmediate();
          running.delete(lane);
          if (fails) throw new Error("no");
        };
        outcomes.push(
          lanes.run(lane, work).then(
            () => false,
            () => true,
          ),
        );
      }
      expect(await Promise.all(outcomes)).toEqual(jobs.map(({ fails }) => fails));
      expect(most).toBeLessThanOrEqual(places);
      expect(lanes.size).toBe(0);
      for (const name of ["a", "b", "c", "d"]) {
        const own = begun.filter((index) => jobs[index]?.lane === name);
        expect(own).toEqual(own.toSorted((a, b) => a - b));
      }
    }),
  );
});

test("the window moves behind the oldest that is not finished, and knows what is delivered ahead of it", () => {
  fc.assert(
    fc.property(fc.shuffledSubarray([0, 1, 2, 3, 4, 5, 6, 7], { minLength: 8 }), (order) => {
      const window = createWindow();
      const finish = order.map((_, index) => {
        const offset = toOffset(index);
        return window.add({ offset, to: toOffset(index + 1), bytes: 10, receivedAt: index });
      });
      const done = new Set<number>();
      let position = 0;
      let delivered = 0;
      for (const index of order) {
        finish[index]?.({ delivered: 1, parked: 0, passed: 0 });
        done.add(index);
        const advanced = window.advance();
        position = advanced?.to ?? position;
        delivered += advanced?.delivered ?? 0;
        let expected = 0;
        while (done.has(expected)) expected += 1;
        expect([position, delivered, window.size, window.bytes]).toEqual([
          expected,
          expected,
          8 - expected,
          80 - 10 * expected,
        ]);
        expect(window.deliveredAhead()).toEqual([...done].filter((one) => one > position).toSorted((a, b) => a - b));
        expect(window.oldestReceivedAt).toBe(expected === 8 ? undefined : expected);
      }
    }),
  );
});

test("an offset that is only passed, or parked, does not count as delivered ahead", () => {
  const window = createWindow();
  const item = { bytes: 0, receivedAt: undefined };
  window.add({ ...item, offset: toOffset(0), to: toOffset(1) });
  window.add({ ...item, offset: toOffset(1), to: toOffset(2) })({ delivered: 0, parked: 1, passed: 0 });
  // The end of what was read: 2 is the next that will be.
  window.add({ ...item, offset: toOffset(2), to: toOffset(2) })({ delivered: 0, parked: 0, passed: 1 });
  expect(window.deliveredAhead()).toEqual([]);
});
