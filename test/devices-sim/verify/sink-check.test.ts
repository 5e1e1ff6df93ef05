import { join } from "node:path";
import { expect } from "vitest";
import type { LedgerLine } from "../../../devices-sim/ledger/format.ts";
import type { Row } from "../../../devices-sim/verify/row.ts";
import { SinkCheck, type SinkVerdict } from "../../../devices-sim/verify/sink-check.ts";
import { test } from "../../fixtures.ts";
import { acknowledged, ledgerOf, message, rowOf, sentLine, type Sent } from "../ledger/fixtures.ts";

interface Checked extends SinkVerdict {
  readonly complete: boolean;
}

type Look = Parameters<typeof ledgerOf>[2] & { readonly once?: boolean };

/** Holds rows against a ledger. */
async function check(
  dir: string,
  lines: readonly LedgerLine[],
  rows: readonly Row[],
  { once = true, ...look }: Look = {},
): Promise<Checked> {
  const sinkCheck = new SinkCheck(await ledgerOf(join(dir, "ledger"), lines, look), () => once);
  sinkCheck.take(rows);
  return { ...sinkCheck.verdict("sink"), complete: sinkCheck.isComplete };
}

const nothing = {
  lost: 0,
  duplicated: 0,
  reordered: 0,
  corrupted: 0,
  spoiltStored: 0,
  resent: 0,
  redelivered: 0,
  unacknowledged: 0,
  foreign: 0,
  examples: [],
};

test("a sink that has everything once and in order is complete", async ({ dir }) => {
  const { sent, lines } = acknowledged(5);
  const verdict = await check(
    dir,
    lines,
    sent.map((one, index) => rowOf(one, 10 * index)),
  );
  expect(verdict).toEqual({ sink: "sink", acknowledged: 5, found: 5, ...nothing, complete: true });
});

test("a row that is missing is lost when its message was acknowledged, and only then", async ({ dir }) => {
  const { sent, lines } = acknowledged(5);
  const unanswered = sentLine(0, 5, message(6));
  const rows = sent.flatMap((one, index) => (index === 2 ? [] : [rowOf(one, index)]));
  const verdict = await check(dir, [...lines, unanswered], rows);
  expect(verdict).toMatchObject({ acknowledged: 5, found: 4, lost: 1, complete: false });
  expect(verdict.examples).toEqual([expect.stringMatching(/^sim-1: message 3, sent at .*Z, is lost$/)]);
});

test("a row whose acknowledgement never came is found, and breaks nothing", async ({ dir }) => {
  const { sent, lines } = acknowledged(1);
  const late = message(2);
  const verdict = await check(dir, [...lines, sentLine(0, 1, late)], [...sent, late].map(rowOf));
  expect(verdict).toMatchObject({ acknowledged: 1, found: 2, ...nothing, unacknowledged: 1, complete: true });
});

test("a second row is a duplicate, at another offset or at the same one", async ({ dir }) => {
  const { sent, lines } = acknowledged(2);
  const [first, second] = sent.map(rowOf) as [Row, Row];
  const verdict = await check(dir, lines, [first, second, { ...first, offset: 7 }, second]);
  expect(verdict).toMatchObject({ found: 2, duplicated: 2, reordered: 0, redelivered: 0 });
});

test("at least once: a row with the same offset may come again, one with another may not", async ({ dir }) => {
  const { sent, lines } = acknowledged(2);
  const [first, second] = sent.map(rowOf) as [Row, Row];
  const rows = [first, second, first, second, { ...second, offset: 9 }];
  expect(await check(dir, lines, rows, { once: false })).toMatchObject({ found: 2, redelivered: 2, duplicated: 1 });
});

test.for([
  { qos: 1, session: 0, resent: 1, duplicated: 1 },
  { qos: 1, session: 1, resent: 1, duplicated: 1 },
  { qos: 2, session: 0, resent: 1, duplicated: 1 },
  { qos: 2, session: 1, resent: 0, duplicated: 2 },
] as const)(
  "QoS $qos sent again (session present: $session): $resent of two more rows is the device's, $duplicated not",
  async ({ qos, session, resent, duplicated }, { dir }) => {
    const { sent, lines } = acknowledged(1, qos);
    const again: LedgerLine = ["again", 0, 0, Date.now(), session];
    const rows = sent.flatMap((one) => [1, 2, 3].map((offset) => rowOf(one, offset)));
    expect(await check(dir, [...lines, again], rows)).toMatchObject({ found: 1, resent, duplicated });
  },
);

test("rows that changed places are out of order; a second row of an early message is not", async ({ dir }) => {
  const { sent, lines } = acknowledged(4);
  const [one, two, three, four] = sent.map(rowOf) as [Row, Row, Row, Row];
  const again: LedgerLine = ["again", 0, 0, Date.now(), 0];
  const verdict = await check(dir, [...lines, again], [one, three, two, { ...one, offset: 9 }, four]);
  expect(verdict).toMatchObject({ found: 4, reordered: 1, resent: 1, duplicated: 0 });
  expect(verdict.examples).toEqual([expect.stringContaining("message 2")]);
});

test("lanes have orders of their own", async ({ dir }) => {
  const { sent, lines } = acknowledged(2);
  const [one, two] = sent.map(rowOf) as [Row, Row];
  expect(await check(dir, lines, [two, { ...one, lane: "other" }])).toMatchObject({ found: 2, reordered: 0 });
});

test("data that was changed is corrupted, and not lost as well", async ({ dir }) => {
  const { sent, lines } = acknowledged(3);
  const [one, two, three] = sent.map(rowOf) as [Row, Row, Row];
  const data = { ...(two.data as object), metrics: { temperature: 99 } };
  const verdict = await check(dir, lines, [one, { ...two, data }, three]);
  expect(verdict).toMatchObject({ found: 2, corrupted: 1, lost: 0, complete: true });
  expect(verdict.examples).toEqual([expect.stringContaining(`is another one at offset 1: {"ts"`)]);
});

test("what was never sent is corrupted: beside the right one, without a number, or no JSON at all", async ({ dir }) => {
  const { sent, lines } = acknowledged(1);
  const [row] = sent.map(rowOf) as [Row];
  const others = [{ seq: 1 }, { value: 3 }, "{ torn", null].map((data) => ({ ...row, data }));
  expect(await check(dir, lines, [row, ...others])).toMatchObject({ found: 1, corrupted: 4, lost: 0 });
});

test("rows of other devices, of earlier and of later runs are passed over", async ({ dir }) => {
  const { sent, lines } = acknowledged(1);
  const [row] = sent.map(rowOf) as [Row];
  const far = 10 * 60_000;
  const rows: readonly Row[] = [
    { ...row, device: "sim-2" },
    { ...row, receivedAt: row.receivedAt - far },
    { ...row, data: { seq: 1 }, receivedAt: row.receivedAt - far },
    { ...row, data: { seq: 1 }, receivedAt: row.receivedAt + far },
    row,
  ];
  expect(await check(dir, lines, rows)).toMatchObject({ found: 1, ...nothing, foreign: 4 });
});

test("what a killed simulator had sent and not written down is not held against the sink", async ({ dir }) => {
  const { sent, lines } = acknowledged(1);
  const rows = [...sent, message(2)].map(rowOf);
  expect(await check(dir, lines, rows, { killed: true })).toMatchObject({ found: 1, corrupted: 0, foreign: 1 });
});

test("a spoilt message that is stored breaks a promise, and is none of the good ones", async ({ dir }) => {
  const bad = message(1);
  const lines: LedgerLine[] = [
    ["device", 0, "sim-1", "t"],
    sentLine(0, 0, bad, { spoilt: ["wrong-type", "invalid"] }),
    ["ack", 0, 0, bad.at],
  ];
  expect(await check(dir, lines, [rowOf(bad, 0)])).toMatchObject({ acknowledged: 0, found: 0, spoiltStored: 1 });
});

const bare = (seq: number): Sent => ({ seq, payload: "21.5", at: Date.now() });

const bareRows = (count: number): Row[] => Array.from({ length: count }, (_, offset) => rowOf(bare(1), offset));

test("messages that say the same are counted: one too few is lost, one too many a duplicate", async ({ dir }) => {
  const lines: LedgerLine[] = [
    ["device", 0, "sim-1", "t"],
    ...[0, 1, 2].flatMap((index): LedgerLine[] => [sentLine(0, index, bare(index)), ["ack", 0, index, Date.now()]]),
  ];
  expect(await check(join(dir, "a"), lines, bareRows(2))).toMatchObject({ found: 2, lost: 1, duplicated: 0 });
  expect(await check(join(dir, "b"), lines, bareRows(4))).toMatchObject({ found: 3, lost: 0, duplicated: 1 });
});

test("a row that a good message and one with a misspelt topic could have is that of the good one", async ({ dir }) => {
  const lines: LedgerLine[] = [
    ["device", 0, "sim-1", "t"],
    sentLine(0, 0, bare(1), { spoilt: ["wrong-topic", "ignored"] }),
    ["ack", 0, 0, Date.now()],
    sentLine(0, 1, bare(1)),
    ["ack", 0, 1, Date.now()],
  ];
  expect(await check(dir, lines, bareRows(1))).toMatchObject({ found: 1, lost: 0, spoiltStored: 0 });
});
