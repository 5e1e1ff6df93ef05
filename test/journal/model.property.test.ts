// The journal against a model: any sequence of commits, failing disks, trims, kills and power cuts. The model is two
// numbers: what was trimmed and what was acknowledged. Whatever happens, all between them is read, in order, once; nothing
// that is not durable is; and no start calls anything lost.

import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { unreachable } from "../../src/errors.ts";
import { toOffset } from "../../src/reading.ts";
import { payloads, sequences } from "./fixtures.ts";
import { openPowerDisk, type PowerDisk } from "./platter.ts";
import { openStore, type StoreHarness } from "./store-harness.ts";

type Fault = Parameters<PowerDisk["fail"]>[0][number];

type Step =
  /** Up to two faults in a commit are worked around; with more, the process ends. */
  | { readonly kind: "commit"; readonly records: number; readonly faults: readonly Fault[] }
  | { readonly kind: "prepare" | "close" | "kill" }
  | { readonly kind: "cut"; readonly chances: readonly boolean[] }
  | { readonly kind: "trim"; readonly percent: number };

const anyFault = fc.constantFrom<Fault>("write", "short", "sync", "create", "truncate");
/** The frames stay in the page cache, clean and never written: the next start must not take them for durable. */
const phantom: readonly Fault[] = ["sync", "truncate", "create", "create", "create"];
const anyCut = fc.record({
  kind: fc.constant("cut" as const),
  chances: fc.array(fc.boolean(), { minLength: 1, maxLength: 40 }),
});
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("commit" as const),
      records: fc.integer({ min: 1, max: 60 }),
      faults: fc.oneof(
        { weight: 3, arbitrary: fc.constant([]) },
        { weight: 2, arbitrary: fc.array(anyFault, { maxLength: 5 }) },
        { weight: 1, arbitrary: fc.constant(phantom) },
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom("prepare" as const, "close" as const, "kill" as const) }) },
  { weight: 2, arbitrary: anyCut },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("trim" as const),
      percent: fc.integer({ min: 0, max: 100 }),
    }),
  },
);

interface Model {
  /** Everything from here to `acknowledged` must be there. */
  trimmed: number;
  /** The highest that was asked for: what could not go then may go later. */
  unneeded: number;
  acknowledged: number;
  /** Of a commit that failed: may be there or not. */
  attempted: number;
}

function run(dir: string, steps: readonly Step[]): void {
  const disk = openPowerDisk(dir);
  const model: Model = { trimmed: 0, unneeded: 0, acknowledged: 0, attempted: 0 };
  const open = (): StoreHarness => {
    const harness = openStore(dir, disk, 4096, { wrap: (head) => disk.watch(head) });
    const { report, next } = harness.recovered;
    expect([report.lost, report.notes, report.aside]).toEqual([[], [], []]);
    expect(next).toBeGreaterThanOrEqual(model.acknowledged);
    expect(next).toBeLessThanOrEqual(model.acknowledged + model.attempted);
    model.acknowledged = next;
    model.attempted = 0;
    return harness;
  };
  let harness = open();
  check(harness, model);
  for (const step of [...steps, { kind: "kill" } as const]) {
    const isOver = take(harness, step, model, disk);
    if (!isOver) check(harness, model);
    else {
      harness = open();
      check(harness, model);
    }
  }
  harness.store.close();
}

/** True: the process has ended. */
function take({ store, commit, trim }: StoreHarness, step: Step, model: Model, disk: PowerDisk): boolean {
  switch (step.kind) {
    case "commit":
      disk.fail(step.faults);
      try {
        commit(step.records);
        model.acknowledged += step.records;
        return false;
      } catch {
        model.attempted = step.records;
        disk.kill();
        return true;
      } finally {
        disk.fail([]);
      }
    case "trim": {
      const below = Math.floor(model.trimmed + (step.percent / 100) * (model.acknowledged - model.trimmed));
      trim(toOffset(below));
      model.unneeded = Math.max(model.unneeded, below);
      model.trimmed = store.figures.firstOffset;
      expect(model.trimmed).toBeLessThanOrEqual(model.unneeded);
      return false;
    }
    case "prepare":
      store.prepare();
      return false;
    case "close":
      store.close();
      return true;
    case "kill":
      disk.kill();
      return true;
    case "cut": {
      let turn = 0;
      disk.cutPower(() => step.chances[turn++ % step.chances.length] === true);
      return true;
    }
    default:
      return unreachable(step);
  }
}

function check({ table, readAll }: StoreHarness, model: Model): void {
  const { entries, lost } = readAll();
  expect([table.durable, table.firstOffset]).toEqual([model.acknowledged, expect.any(Number)]);
  expect(table.firstOffset).toBeLessThanOrEqual(model.trimmed);
  expect(payloads(entries)).toEqual(sequences(table.firstOffset, model.acknowledged));
  expect(lost).toEqual([]);
}

test("the journal agrees with the model, whatever the disk, the kernel and the power do", { timeout: 300_000 }, () => {
  const dir = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "sluice-model-"));
  using _removing = { [Symbol.dispose]: () => rmSync(dir, { recursive: true }) };
  const property = fc.property(fc.array(anyStep, { minLength: 1, maxLength: 30 }), (steps) => {
    const each = join(dir, "each");
    mkdirSync(each);
    using _removingEach = { [Symbol.dispose]: () => rmSync(each, { recursive: true }) };
    run(each, steps);
  });
  expect(() => fc.assert(property, { numRuns: 300 })).not.toThrow();
});
