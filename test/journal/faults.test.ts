// P1, P2, P7 against a disk that refuses: every call of the writer × every errno that one meets × once and for a time.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect } from "vitest";
import { recover } from "../../src/journal/recovery.ts";
import { toOffset } from "../../src/reading.ts";
import { createFaultyDisk, type FaultyDisk, type Operation } from "./faulty-disk.ts";
import { sequences, test } from "./fixtures.ts";
import { openStore, type StoreHarness } from "./store-harness.ts";

const operations: readonly (Operation | "short write")[] = [
  "create",
  "write",
  "short write",
  "sync",
  "syncDir",
  "truncate",
  "unlink",
];
const errnos = ["ENOSPC", "EIO", "EROFS", "EDQUOT", "EACCES"] as const;
const modes = { once: 1, "until it is well": Infinity } as const;
/** Two commits fill a segment, so that each life below opens some and deletes some. */
const segmentBytes = 4096;
const perCommit = 30;

function breakDisk(faulty: FaultyDisk, operation: Operation | "short write", times: number, errno: string): void {
  if (operation === "short write") faulty.shortBy = 1;
  else faulty.failNext(operation, times, errno);
}

/** One turn of the writer's loop; false: the disk has refused the commit, which stays to be given again. */
function turn({ commit, store, trim }: StoreHarness, count: number): boolean {
  try {
    commit(count);
    store.prepare();
    return true;
  } catch {
    return false;
  } finally {
    trim(toOffset(Math.max(0, store.durable - 100)));
  }
}

/** What the folder tells the next start is what was durable, or more: never less. */
function expectRecovered(dir: string, durable: number): void {
  const { next, report } = recover(dir);
  expect([next, report.lost]).toEqual([durable, []]);
}

describe("a disk that refuses", () => {
  for (const operation of operations) {
    for (const [mode, times] of Object.entries(modes)) {
      if (operation === "short write" && times === 1) continue;
      test.for(errnos)(`${operation}, ${mode}: %s`, (errno, { dir }) => {
        const faulty = createFaultyDisk();
        const harness = openStore(dir, faulty.disk, segmentBytes);
        const { store, table } = harness;
        for (let part = 0; part < 3; part += 1) expect(turn(harness, perCommit)).toBe(true);

        breakDisk(faulty, operation, times, errno);
        for (let part = 0; part < 6; part += 1) {
          const before = store.durable;
          const taken = turn(harness, perCommit);
          expect(store.durable > before).toBe(taken);
          expect(table.durable).toBe(store.durable);
          const { firstOffset } = store.figures;
          expect(harness.read()).toEqual(sequences(firstOffset, store.durable));
        }
        expectRecovered(dir, store.durable);

        faulty.heal();
        expect(turn(harness, 1)).toBe(true);
        expect(turn(harness, perCommit)).toBe(true);
        const { firstOffset } = store.figures;
        expect([store.durable, harness.read()]).toEqual([10 * perCommit + 1, sequences(firstOffset, store.durable)]);
        expect(faulty.syncedAgain).toEqual([]);
        // What could not be deleted while the disk refused is gone now.
        expect(readdirSync(dir).filter((name) => name.endsWith(".seg"))).toHaveLength(store.figures.segments);
        store.close();
        expectRecovered(dir, store.durable);
      });
    }
  }

  test("in any order of faults, commits and restarts loses nothing that was durable", ({ dir }) => {
    const fault = fc.tuple(fc.constantFrom(...operations), fc.constantFrom(1, 2, 5, Infinity));
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ kind: fc.constant("commit" as const), count: fc.integer({ min: 1, max: 40 }) }),
      },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant("break" as const), fault }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("heal" as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("restart" as const) }) },
    );
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 40 }), (steps) => {
        const each = mkdtempSync(join(dir, "each-"));
        const faulty = createFaultyDisk();
        let harness = openStore(each, faulty.disk, segmentBytes);
        for (const one of steps) {
          const before = harness.store.durable;
          if (one.kind === "commit") turn(harness, one.count);
          else if (one.kind === "break") breakDisk(faulty, one.fault[0], one.fault[1], "EIO");
          else if (one.kind === "heal") faulty.heal();
          else {
            faulty.heal();
            harness.store.close();
            harness = openStore(each, faulty.disk, segmentBytes);
          }
          expect(harness.store.durable).toBeGreaterThanOrEqual(before);
          expect(harness.read()).toEqual(sequences(harness.store.figures.firstOffset, harness.store.durable));
        }
        faulty.heal();
        expect(turn(harness, 1)).toBe(true);
        expect(faulty.syncedAgain).toEqual([]);
        harness.store.close();
        expectRecovered(each, harness.store.durable);
        rmSync(each, { recursive: true });
      }),
      { numRuns: 100 },
    );
  });
});
