import { join } from "node:path";
import { expect } from "vitest";
import { readLedger } from "../../../devices-sim/ledger/reader.ts";
import { beginRun } from "../../../devices-sim/ledger/run.ts";
import { test } from "../../fixtures.ts";
import { options } from "../fixtures.ts";
import { acknowledged, ledgerOf, message, sentLine } from "./fixtures.ts";

test("a killed simulator leaves a last line that is cut short: everything before it counts", async ({ dir }) => {
  const { lines, sent } = acknowledged(3);
  const { messages, completeUntil, damaged, run } = await ledgerOf(join(dir, "ledger"), lines, {
    tail: '["sent",0,3,17959',
    killed: true,
  });
  expect({ count: messages.count, damaged, endedAt: run.endedAt }).toEqual({
    count: 3,
    damaged: 0,
    endedAt: undefined,
  });
  expect(completeUntil).toBe((sent[2]?.at ?? 0) + 1);
  expect(messages.answerOf(2)).toBe("accepted");
});

test("lines that were damaged are counted, and what follows them keeps its place", async ({ dir }) => {
  const lines = [
    "\0\0\0\0",
    sentLine(0, 1, message(2)),
    '["ack",0,0,1',
    '["ack",0,0,1]',
    '["ack",0,1,1,153,"invalid"]',
  ];
  const { messages, damaged, completeUntil } = await ledgerOf(join(dir, "ledger"), [
    ["device", 0, "sim-1", "t"],
    ...lines,
  ]);
  expect({ count: messages.count, damaged, completeUntil }).toEqual({ count: 1, damaged: 3, completeUntil: Infinity });
  expect([messages.answerOf(0), messages.toldOf(0)]).toEqual(["refused", "invalid"]);
});

test("messages that say the same are found one after the other, in the order of their sending", async ({ dir }) => {
  const bare = { seq: 1, payload: "21.5", at: 1 };
  const other = { seq: 2, payload: "22", at: 2 };
  const { messages, devices } = await ledgerOf(join(dir, "ledger"), [
    ["device", 0, "a", "t"],
    ["device", 1, "b", "t"],
    sentLine(0, 0, bare),
    sentLine(1, 0, bare),
    sentLine(0, 1, other),
    sentLine(0, 2, bare),
  ]);
  expect(devices).toEqual(["a", "b"]);
  const [, , , , , , , print] = sentLine(0, 0, bare);
  expect([messages.find(0, print), messages.nextTwin(0), messages.nextTwin(3)]).toEqual([0, 3, undefined]);
  expect([messages.find(1, print), messages.nextTwin(1), messages.find(2, print)]).toEqual([1, undefined, undefined]);
});

test("70,000 messages outgrow the first columns and keep what they say", async ({ dir }) => {
  const { lines } = acknowledged(70_000);
  const { messages } = await ledgerOf(join(dir, "ledger"), lines);
  const numbers = [0, 65_535, 65_536, 69_999];
  expect(numbers.map((index) => messages.seqOf(index))).toEqual([1, 65_536, 65_537, 70_000]);
  for (const index of numbers) expect(messages.find(0, printOf(lines, index))).toBe(index);
});

/** The fingerprint in the ledger of the message with this index. */
const printOf = (lines: readonly (readonly unknown[])[], index: number): number => lines[1 + 2 * index]?.[7] as number;

test("a folder without a ledger, and one that has another run, are told", async ({ dir }) => {
  await expect(readLedger(dir)).rejects.toThrow(`${dir} has no ledger of a run`);
  await beginRun(dir, options(1883));
  await expect(beginRun(dir, options(1883))).rejects.toThrow("has the ledger of another run");
});

test("run.json has no password", async ({ dir }) => {
  await beginRun(dir, options(1883, "--username", "u", "--password", "secret"));
  expect(JSON.stringify((await readLedger(dir)).run)).not.toContain("secret");
});
