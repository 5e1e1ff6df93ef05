import { expect, test } from "vitest";
import { createFaults, faultKinds, spoil, type FaultKind } from "../../devices-sim/faults.ts";
import { createRandom } from "../../devices-sim/random.ts";

const telemetry = { ts: 1_780_000_000_000, seq: 7, metrics: { temperature: 21.5, humidity: 40 } };

test("the share of spoilt messages is what was asked for, every kind about as often", () => {
  const fault = createFaults(0.1, createRandom(42));
  const counts = new Map<FaultKind, number>();
  for (let i = 0; i < 50_000; i += 1) {
    const kind = fault();
    if (kind !== undefined) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  expect([...counts.keys()].sort()).toEqual([...faultKinds].sort());
  for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
});

test("a share of 0 spoils nothing and a share of 1 everything", () => {
  const never = createFaults(0, createRandom(1));
  const always = createFaults(1, createRandom(1));
  for (let i = 0; i < 1000; i += 1) {
    expect(never()).toBeUndefined();
    expect(always()).toBeDefined();
  }
});

test("each kind is wrong in its own way", () => {
  expect(() => JSON.parse(spoil("malformed-json", telemetry)) as unknown).toThrow(SyntaxError);
  expect(JSON.parse(spoil("wrong-type", telemetry))).toEqual({
    ...telemetry,
    metrics: { temperature: "21.5", humidity: 40 },
  });
  expect(JSON.parse(spoil("missing-seq", telemetry))).toEqual({ ts: telemetry.ts, metrics: telemetry.metrics });
  expect(spoil("empty", telemetry)).toBe("");
  expect(JSON.parse(spoil("not-an-object", telemetry))).toEqual([21.5, 40]);
});
