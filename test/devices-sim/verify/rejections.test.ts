import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect } from "vitest";
import { fingerprintOfPayload } from "../../../devices-sim/ledger/fingerprint.ts";
import type { LedgerLine } from "../../../devices-sim/ledger/format.ts";
import { openRejects, RejectionCheck } from "../../../devices-sim/verify/rejections.ts";
import { isRejectionBroken } from "../../../devices-sim/verify/verify.ts";
import { test } from "../../fixtures.ts";
import { ledgerOf, message, sentLine, type Sent } from "../ledger/fixtures.ts";

const empty = { ...message(1), payload: "" };
const torn = { ...message(1), payload: '{"ts":1' };
const wrong = { ...message(2), payload: '{"seq":"2"}' };
const good = message(3);

/** Two empty messages, a torn one and one that has a wrong type, all acknowledged; a good one. */
const lines: readonly LedgerLine[] = [
  ["device", 0, "sim-1", "t"],
  sentLine(0, 0, empty, { spoilt: ["empty", "undecodable"] }),
  sentLine(0, 1, empty, { spoilt: ["empty", "undecodable"] }),
  sentLine(0, 2, torn, { spoilt: ["malformed-json", "undecodable"] }),
  sentLine(0, 3, wrong, { spoilt: ["wrong-type", "invalid"] }),
  sentLine(0, 4, good),
  ...[0, 1, 2, 3, 4].map((index): LedgerLine => ["ack", 0, index, good.at]),
];

const rejected = ({ payload, at }: Sent, reason: string) => ({
  device: "sim-1",
  receivedAt: at,
  print: fingerprintOfPayload(payload),
  reason,
});

const right = [
  rejected(empty, "undecodable"),
  rejected(torn, "undecodable"),
  rejected(wrong, "invalid"),
  rejected(empty, "undecodable"),
];

test("every spoilt message rejected for its reason: nothing is wrong", async ({ dir }) => {
  const check = new RejectionCheck(await ledgerOf(dir, lines));
  for (const one of right) check.take(one);
  const verdict = check.verdict("rejects");
  expect(verdict).toMatchObject({
    spoilt: 4,
    rejected: 4,
    wrongReason: 0,
    notRejected: 0,
    goodRejected: 0,
    examples: [],
  });
  expect([check.isComplete, isRejectionBroken(verdict)]).toEqual([true, false]);
});

test("one that is missing, one with another reason and a good one are told", async ({ dir }) => {
  const check = new RejectionCheck(await ledgerOf(dir, lines));
  for (const one of [...right.slice(0, 2), rejected(wrong, "time"), rejected(good, "invalid")]) check.take(one);
  const verdict = check.verdict("rejects");
  expect(verdict).toMatchObject({ spoilt: 4, rejected: 2, wrongReason: 1, notRejected: 1, goodRejected: 1 });
  expect(verdict.examples).toEqual([
    expect.stringContaining("is empty, and was not rejected"),
    expect.stringContaining("is wrong-type, and was rejected as time, not as invalid"),
    expect.stringContaining("is a good one, and was rejected as invalid"),
  ]);
  expect(isRejectionBroken(verdict)).toBe(true);
});

test("those of other devices and earlier runs do not count", async ({ dir }) => {
  const check = new RejectionCheck(await ledgerOf(dir, lines));
  const [first] = right;
  if (first === undefined) throw new TypeError("there is one");
  check.take({ ...first, device: "sim-2" });
  check.take({ ...first, receivedAt: first.receivedAt - 600_000 });
  expect(check.taken).toBe(0);
});

test("what MQTT 5 told counts as well: an acknowledgement without an error is no rejection", async ({ dir }) => {
  const told: readonly LedgerLine[] = [
    ...lines.slice(0, 6),
    ["ack", 0, 0, good.at, 0x99, "undecodable"],
    ["ack", 0, 1, good.at],
    ["ack", 0, 3, good.at, 0x99, "undecodable"],
    ["ack", 0, 4, good.at, 0x99, "invalid"],
  ];
  const check = new RejectionCheck(await ledgerOf(dir, told));
  check.takeAnswers();
  expect(check.verdict("MQTT 5")).toMatchObject({
    spoilt: 3,
    rejected: 1,
    wrongReason: 1,
    notRejected: 1,
    goodRejected: 1,
  });
});

test("rejects.db is read as it grows, and what it let go is excused", async ({ dir }) => {
  const path = join(dir, "rejects.db");
  using inbox = openRejects(path);
  expect(() => [...inbox.read()]).toThrow("there is no such file");
  using db = new DatabaseSync(path);
  db.exec(`CREATE TABLE rejects (id INTEGER PRIMARY KEY, device TEXT, received_at INTEGER, reason TEXT, payload BLOB);
    CREATE TABLE rejects_cursor (gateway TEXT, dropped INTEGER); INSERT INTO rejects_cursor VALUES ('g', 2)`);
  const insert = db.prepare("INSERT INTO rejects (device, received_at, reason, payload) VALUES ('sim-1', ?, ?, ?)");
  insert.run(torn.at, "undecodable", Buffer.from(torn.payload));
  expect([...inbox.read()]).toEqual([rejected(torn, "undecodable")]);
  insert.run(wrong.at, "invalid", Buffer.from(wrong.payload));
  expect([...inbox.read()]).toEqual([rejected(wrong, "invalid")]);
  expect(inbox.forgotten).toBe(2);

  const check = new RejectionCheck(await ledgerOf(join(dir, "ledger"), lines));
  for (const one of [rejected(torn, "undecodable"), rejected(wrong, "invalid")]) check.take(one);
  expect([1, 2].map((forgotten) => isRejectionBroken(check.verdict("rejects", { forgotten })))).toEqual([true, false]);
});

test("a message to a topic of no stream is to be ignored: that nobody has it is right, a rejection is not", async ({
  dir,
}) => {
  const ledger = await ledgerOf(dir, [
    ["device", 0, "sim-1", "t"],
    sentLine(0, 0, good, { spoilt: ["wrong-topic", "ignored"] }),
    ["ack", 0, 0, good.at],
  ]);
  const check = new RejectionCheck(ledger);
  expect(check.verdict("rejects")).toMatchObject({ spoilt: 0, notRejected: 0 });
  check.take(rejected(good, "no-stream"));
  expect(check.verdict("rejects")).toMatchObject({ spoilt: 1, wrongReason: 1 });
});
