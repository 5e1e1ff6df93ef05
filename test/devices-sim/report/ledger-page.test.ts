// The page of `sluice-sim verify --html`: of a run that is over, from its ledger alone.

import { join } from "node:path";
import { expect } from "vitest";
import type { LedgerLine } from "../../../devices-sim/ledger/format.ts";
import { toLedgerPage } from "../../../devices-sim/report/ledger-page.ts";
import { readRecordedRun, type RecordedRun } from "../../../devices-sim/report/recorded-run.ts";
import type { Verification } from "../../../devices-sim/verify/verify.ts";
import { test } from "../../fixtures.ts";
import { ledgerOf, message, sentLine } from "../ledger/fixtures.ts";

const kept: Verification = { sinks: [], rejections: [], damagedLines: 0, killed: false, kept: true };

const device: LedgerLine = ["device", 0, "sim-1", "devices/sim-1/telemetry"];

/** What is read from a ledger whose lines have times in milliseconds since its start. */
async function recordedOf(
  dir: string,
  lines: (at: (sinceStartMs: number) => number) => readonly LedgerLine[],
  options: Parameters<typeof ledgerOf>[2] = {},
): Promise<RecordedRun> {
  const startMs = Date.now() + 1000;
  await ledgerOf(dir, [device, ...lines((sinceStartMs) => startMs + sinceStartMs)], options);
  return await readRecordedRun(dir);
}

/** The charts' captions. */
const captions = (page: string): readonly string[] =>
  [...page.matchAll(/<figcaption>([^<]*)/g)].map(([, caption = ""]) => caption.trim());

test("it has what the ledger knows: rates, percentiles, what was in flight and faults, but no connections", async ({
  dir,
}) => {
  const recorded = await recordedOf(dir, (at) => [
    sentLine(0, 0, message(1, at(100))),
    ["ack", 0, 0, at(104)],
    sentLine(0, 1, message(2, at(1200)), { spoilt: ["empty", "undecodable"] }),
    ["again", 0, 1, at(1300), 0],
    ["ack", 0, 1, at(1450), 0x99, "undecodable"],
    ["fault", 0, "offline", at(1500)],
    sentLine(0, 2, message(3, at(2900))),
    sentLine(0, 3, message(4, at(3000)), { spoilt: ["oversize", "too-large"] }),
  ]);
  expect(recorded.counts).toEqual({
    devices: 1,
    sent: 4,
    spoilt: 2,
    sentAgain: 1,
    acknowledged: 1,
    refused: 1,
    unanswered: 1,
  });
  expect(recorded.pubackMs).toEqual({ p50: 4, p90: 250, p99: 250, max: 250 });
  const page = await toLedgerPage("ledger", recorded, kept);
  expect(captions(page)).toEqual(["Rates", "Time to PUBACK", "In flight", "Faults on purpose"]);
  expect(page).toContain("Every promise was kept.");
  expect(page).toContain("<td>ledger</td>");
  expect(page).not.toMatch(/NaN|Infinity|undefined|null s/);
});

test("a point is a second, and what is left at the end belongs to the last one when it is less than half", async ({
  dir,
}) => {
  const recorded = await recordedOf(dir, (at) => [
    sentLine(0, 0, message(1, at(0))),
    ["ack", 0, 0, at(1)],
    sentLine(0, 1, message(2, at(1500))),
    sentLine(0, 2, message(3, at(2900))),
  ]);
  const points = recorded.timeline.points.map(({ ms, sent, inFlight }) => [Math.round(ms / 1000), sent, inFlight]);
  const total = points.reduce((sum, [, sent = 0]) => sum + sent, 0);
  expect(total).toBe(3);
  expect(points.at(-1)?.[2]).toBe(2);
  expect(recorded.timeline.points.every(({ ms }) => ms >= 500)).toBe(true);
});

test("a run of days has at most 3,600 points", async ({ dir }) => {
  const days = 3 * 86_400_000;
  const recorded = await recordedOf(dir, (at) => [
    sentLine(0, 0, message(1, at(0))),
    sentLine(0, 1, message(2, at(days))),
  ]);
  const { points, stepMs } = recorded.timeline;
  expect(points.length).toBeLessThanOrEqual(3600);
  expect(stepMs).toBe(128_000);
  expect(points.reduce((sum, { sent }) => sum + sent, 0)).toBe(2);
});

test("at QoS 0, and of a ledger without a message, there is no chart that has no data", async ({ dir }) => {
  const quick = await recordedOf(
    join(dir, "quick"),
    (at) => [sentLine(0, 0, message(1, at(100)), { qos: 0 }), sentLine(0, 1, message(2, at(2000)), { qos: 0 })],
    { args: ["--qos", "0"] },
  );
  expect(captions(await toLedgerPage("ledger", quick, kept))).toEqual(["Rates"]);
  const silent = await recordedOf(join(dir, "silent"), () => []);
  const page = await toLedgerPage("ledger", silent, kept);
  expect(captions(page)).toEqual([]);
  expect(page).not.toMatch(/NaN|Infinity|undefined/);
});

test("without an acknowledgement there is no chart of their times", async ({ dir }) => {
  const recorded = await recordedOf(dir, (at) => [sentLine(0, 0, message(1, at(100)))]);
  expect(captions(await toLedgerPage("ledger", recorded, kept))).toEqual(["Rates", "In flight"]);
});

test("at QoS 2 a message is acknowledged with its PUBCOMP", async ({ dir }) => {
  const recorded = await recordedOf(
    dir,
    (at) => [
      sentLine(0, 0, message(1, at(100)), { qos: 2 }),
      ["ack", 0, 0, at(110)],
      ["done", 0, 0, at(130)],
      sentLine(0, 1, message(2, at(200)), { qos: 2 }),
      ["ack", 0, 1, at(220)],
    ],
    { args: ["--qos", "2"] },
  );
  expect(recorded.counts).toMatchObject({ acknowledged: 1, unanswered: 1 });
  expect(recorded.pubackMs).toMatchObject({ max: 30 });
  expect(captions(await toLedgerPage("ledger", recorded, kept))).toContain("Time to PUBCOMP");
});

test("a simulator that was killed, and phases without an end, are told as such", async ({ dir }) => {
  const recorded = await recordedOf(dir, (at) => [sentLine(0, 0, message(1, at(100)))], {
    killed: true,
    args: ["--fault", "empty:0.5", "--invalid", "0"],
  });
  const page = await toLedgerPage("ledger", recorded, { ...kept, killed: true });
  expect(page).toContain("never: the simulator was killed");
  expect(page).toContain("The simulator was killed");
  expect(page).toContain("<td>empty 50 %</td>");
});

test("nothing is loaded from elsewhere, no password is in it, and what a sink says is text", async ({ dir }) => {
  const hostile = `</script><img src=x onerror="alert('1')">`;
  const recorded = await recordedOf(
    dir,
    (at) => [["fault", 0, hostile, at(100)], sentLine(0, 0, message(1, at(200)))],
    {
      args: ["--username", "u", "--password", "open sesame"],
    },
  );
  const page = await toLedgerPage(hostile, recorded, kept);
  expect(page).not.toContain("<img");
  expect(page.match(/<\/script>/g)).toHaveLength(2);
  const tame = await toLedgerPage("ledger", { ...recorded, timeline: { ...recorded.timeline, points: [] } }, kept);
  expect(tame).not.toMatch(/\b(?:src|href|xlink:href|action)=|url\(|@import|https?:|sesame/);
});
