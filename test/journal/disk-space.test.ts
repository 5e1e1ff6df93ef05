import { afterEach, expect, test, vi } from "vitest";
import { nodeDisk, type Disk } from "../../src/journal/disk.ts";
import { createDiskSpace } from "../../src/journal/disk-space.ts";

const mib = 2 ** 20;

afterEach(() => {
  vi.useRealTimers();
});

/** A disk whose free space the test says, and a clock that it moves. */
function createSpace(totalBytes: number, reserveBytes?: number): (freeBytes: number) => readonly [boolean, number] {
  vi.useFakeTimers({ toFake: ["performance"] });
  let free = 0;
  const disk: Disk = { ...nodeDisk, space: () => ({ freeBytes: free, totalBytes }) };
  const read = createDiskSpace("", disk, reserveBytes);
  return (freeBytes) => {
    vi.advanceTimersByTime(250);
    free = freeBytes;
    const { isLow, lackingBytes } = read();
    return [isLow, lackingBytes];
  };
}

test("a disk is low below the reserve, and well again a quarter above it", () => {
  const read = createSpace(1000 * mib, 10 * mib);
  expect(read(10 * mib)).toEqual([false, 0]);
  expect(read(10 * mib - 1)).toEqual([true, 2.5 * mib + 1]);
  expect(read(12 * mib)).toEqual([true, 0.5 * mib]);
  expect(read(12.5 * mib)).toEqual([false, 0]);
  expect(read(11 * mib)).toEqual([false, 0]);
});

test("the standard reserve is 64 MiB, or a twentieth of a small disk", () => {
  const large = createSpace(100_000 * mib);
  expect([large(64 * mib)[0], large(63 * mib)[0]]).toEqual([false, true]);
  const small = createSpace(20 * mib);
  expect([small(1 * mib)[0], small(0.9 * mib)[0]]).toEqual([false, true]);
});

test("a disk that cannot tell is not low, and none is without a reserve", () => {
  const disk = { ...nodeDisk, space: () => nodeDisk.space("/no/such/place") };
  expect(createDiskSpace("", disk, 1)().isLow).toBe(false);
  expect(createSpace(20 * mib, 0)(0)).toEqual([false, 0]);
});

test("the disk is not asked for each commit", () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  let asked = 0;
  const space = (): ReturnType<Disk["space"]> => {
    asked += 1;
    return { freeBytes: 1, totalBytes: 1 };
  };
  const read = createDiskSpace("", { ...nodeDisk, space }, 0);
  for (let commit = 0; commit < 100; commit += 1) read();
  expect(asked).toBe(1);
});
