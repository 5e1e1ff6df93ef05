import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createRandom } from "../../devices-sim/random.ts";
import { Schedule, type Task } from "../../devices-sim/schedule.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setImmediate", "clearImmediate", "performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

test("tasks run in the order of their times, whatever the order in which they were given", () => {
  const schedule = new Schedule();
  const random = createRandom(5);
  const startMs = schedule.now();
  const times = Array.from({ length: 500 }, () => startMs + Math.floor(random() * 10_000));
  const ran: number[] = [];
  for (const time of times) {
    schedule.at(time, (dueMs) => {
      ran.push(dueMs);
      return undefined;
    });
  }
  vi.advanceTimersByTime(10_001);
  expect(ran).toEqual(times.toSorted((a, b) => a - b));
  expect(schedule.size).toBe(0);
});

test("a task runs when it is due, not before", () => {
  const schedule = new Schedule();
  const task = vi.fn<Task>(() => undefined);
  schedule.at(schedule.now() + 100, task);
  vi.advanceTimersByTime(99);
  expect(task).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(task).toHaveBeenCalledTimes(1);
});

test("an earlier task is not kept waiting by a later one that was there first", () => {
  const schedule = new Schedule();
  const task = vi.fn<Task>(() => undefined);
  schedule.at(schedule.now() + 60_000, () => undefined);
  schedule.at(schedule.now() + 10, task);
  vi.advanceTimersByTime(10);
  expect(task).toHaveBeenCalledTimes(1);
});

test("a task that returns a time keeps its rate", () => {
  const schedule = new Schedule();
  let runs = 0;
  schedule.at(schedule.now() + 5, (dueMs) => {
    runs += 1;
    return dueMs + 100;
  });
  vi.advanceTimersByTime(10_000);
  expect(runs).toBe(100);
});

test("a long queue of due tasks does not run in one go: other work gets its turn", async () => {
  vi.useRealTimers();
  const schedule = new Schedule();
  const { promise: otherWork, resolve } = Promise.withResolvers<number>();
  let runs = 0;
  for (let i = 0; i < 100; i += 1) {
    schedule.at(schedule.now(), () => {
      if (runs === 0) setTimeout(() => resolve(runs), 0);
      runs += 1;
      const untilMs = performance.now() + 1;
      while (performance.now() < untilMs);
      return undefined;
    });
  }
  expect(await otherWork).toBeLessThan(100);
  schedule.close();
});

test("nothing runs after close, not even what a running task asks for", () => {
  const schedule = new Schedule();
  const later = vi.fn<Task>(() => undefined);
  const again = vi.fn<Task>((dueMs) => {
    schedule.close();
    schedule.at(dueMs + 1, later);
    return dueMs + 10;
  });
  schedule.at(schedule.now() + 1, again);
  vi.advanceTimersByTime(1000);
  expect(again).toHaveBeenCalledTimes(1);
  expect(later).not.toHaveBeenCalled();
  expect(schedule.size).toBe(0);
});
