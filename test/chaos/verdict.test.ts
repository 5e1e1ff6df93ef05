// A run that finds something says so: each kind of finding by itself makes a run fail.

import { expect, test } from "vitest";
import { countFound, type Findings, findBroken, toTables } from "./verdict.ts";

const sink = {
  sink: "sqlite:telemetry.db",
  acknowledged: 10,
  found: 10,
  lost: 0,
  duplicated: 0,
  reordered: 0,
  corrupted: 0,
  spoiltStored: 0,
  resent: 2,
  redelivered: 1,
  unacknowledged: 1,
  foreign: 0,
  examples: [],
};
const rejection = {
  source: "rejects:rejects.db",
  spoilt: 3,
  rejected: 3,
  wrongReason: 0,
  notRejected: 0,
  forgotten: 0,
  goodRejected: 0,
  examples: [],
};
const counted = { sink: "redis", expected: 10, found: 10, missing: 0, unknown: 0, again: 0, isOnce: true };
const figures = { sink: "mqtt", lag: 0, parked: 0, expired: 0, unexplained: 0 };
const verification = { sinks: [sink], rejections: [rejection], damagedLines: 0, killed: false, kept: true };
const sound: Findings = {
  devicesCode: 0,
  storms: { played: 1, cut: 10 },
  verification,
  counted: [counted],
  uncounted: ["kafka"],
  figures: [figures],
};

test("a run without a finding breaks nothing, nor does what may come again", () => {
  expect(findBroken(sound)).toEqual([]);
  expect(findBroken({ ...sound, counted: [{ ...counted, again: 5, isOnce: false }] })).toEqual([]);
});

test.for<readonly [what: string, findings: Partial<Findings>]>([
  ["good messages were not acknowledged", { devicesCode: 1 }],
  ["no connection was cut", { storms: { played: 1, cut: 0 } }],
  ["sqlite:telemetry.db has not", { verification: { ...verification, sinks: [{ ...sink, lost: 1 }] } }],
  ["sqlite:telemetry.db has not", { verification: { ...verification, sinks: [{ ...sink, error: "no such file" }] } }],
  ["rejects:rejects.db", { verification: { ...verification, rejections: [{ ...rejection, notRejected: 1 }] } }],
  ["lines of the ledger", { verification: { ...verification, damagedLines: 1 } }],
  ["the ledger has no end", { verification: { ...verification, killed: true } }],
  ["redis lacks 1 ", { counted: [{ ...counted, missing: 1 }] }],
  ["redis has 1 readings that nobody else has", { counted: [{ ...counted, unknown: 1 }] }],
  ["redis has 1 readings more than once", { counted: [{ ...counted, again: 1 }] }],
  ["mqtt is 1 records behind", { figures: [{ ...figures, lag: 1 }] }],
  ["mqtt has refused 1 ", { figures: [{ ...figures, parked: 1 }] }],
  ["no longer when mqtt", { figures: [{ ...figures, expired: 1 }] }],
  ["1 records of mqtt were neither", { figures: [{ ...figures, unexplained: 1 }] }],
])("one finding is enough: %s", ([what, findings]) => {
  expect(findBroken({ ...sound, ...findings })).toEqual([expect.stringContaining(what)]);
});

test("what a sink has is held against what it must have", () => {
  const offsets = new Map([
    [1, 1],
    [2, 3],
    [9, 1],
  ]);
  const result = countFound("http", new Set([1, 2, 3]), { offsets, isOnce: false });
  expect(result).toEqual({ sink: "http", expected: 3, found: 3, missing: 1, unknown: 1, again: 2, isOnce: false });
  const tables = toTables({ counted: [result], uncounted: ["mqtt"], figures: [figures] });
  expect(tables).toMatch(/^http +3 +3 +1 +1 +2, as "at least once" allows$/m);
  expect(tables).toMatch(/^mqtt: not compared/m);
  expect(tables).toMatch(/^mqtt +0 +0 +0 +0$/m);
});
