// The ledger of a run with faults: it tells apart what may be there twice, what must not be there, and what must.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { openFleet } from "../../../devices-sim/fleet.ts";
import { fingerprintOfPayload } from "../../../devices-sim/ledger/fingerprint.ts";
import type { LedgerLine } from "../../../devices-sim/ledger/format.ts";
import { readLedger, type Ledger } from "../../../devices-sim/ledger/reader.ts";
import { beginRun } from "../../../devices-sim/ledger/run.ts";
import type { Row } from "../../../devices-sim/verify/row.ts";
import { SinkCheck, type SinkVerdict } from "../../../devices-sim/verify/sink-check.ts";
import { test } from "../../fixtures.ts";
import { openBroker, options, type TestBroker } from "../fixtures.ts";

interface Told {
  readonly ledger: Ledger;
  readonly lines: readonly LedgerLine[];
}

const base = [
  "--devices",
  "4",
  "--threads",
  "1",
  "--rate",
  "50",
  "--ramp",
  "20ms",
  "--reconnect",
  "50ms",
  "--seed",
  "3",
];

async function run(dir: string, broker: TestBroker, ...args: readonly string[]): Promise<Told> {
  const sim = options(broker.port, ...base, "--ledger", dir, ...args);
  const endRun = await beginRun(dir, sim);
  await using fleet = openFleet(sim);
  expect(await fleet.ended).toMatchObject({ kind: "finished", summary: { unacknowledged: 0 } });
  await endRun();
  const text = await readFile(join(dir, "worker-0.ndjson"), "utf8");
  const lines = text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as LedgerLine);
  return { ledger: await readLedger(dir), lines };
}

/** What a gateway without deduplication has: every good message each time that it comes, under its device's topic. */
function judge(ledger: Ledger, { arrivals }: TestBroker): SinkVerdict {
  const check = new SinkCheck(ledger, () => true);
  const rows = arrivals.flatMap(({ clientId: device, payload, topic }, offset): Row[] => {
    const number = ledger.deviceNumbers.get(device);
    const message = number === undefined ? undefined : ledger.messages.find(number, fingerprintOfPayload(payload));
    if (message === undefined || !ledger.messages.isGood(message) || !topic.endsWith("/telemetry")) return [];
    const data = JSON.parse(payload) as unknown;
    return [{ lane: "gateway", offset, device, receivedAt: ledger.messages.sentAtOf(message), data }];
  });
  check.take(rows);
  return check.verdict("sink");
}

const sound = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0, spoiltStored: 0, unacknowledged: 0 };

const flagsOf = (...faults: readonly string[]): readonly string[] => faults.flatMap((fault) => ["--fault", fault]);

test.for(["1", "2"])(
  "QoS %s: what is sent twice, late or again may be there again, and is in order",
  async (qos, { dir }) => {
    await using broker = await openBroker();
    const flags = flagsOf("duplicate:0.2", "out-of-order:0.2", "dup-resend:0.05", "clock-skew:1", "empty:0.1");
    const { ledger, lines } = await run(dir, broker, "--count", "60", "--qos", qos, ...flags);
    const verdict = judge(ledger, broker);
    expect(verdict).toMatchObject(sound);
    expect(verdict.resent).toBeGreaterThan(30);
    expect(verdict.found).toBe(verdict.acknowledged);
    const faultsOf = new Set(lines.map((line) => (line[0] === "sent" ? `${line[8] ?? ""} ${line[9] ?? ""}` : "")));
    expect([...faultsOf].sort()).toEqual(
      ["", " ", "dup-resend ", "duplicate ", "empty undecodable", "out-of-order "].sort(),
    );
    expect(lines.filter(([kind]) => kind === "fault").map((line) => line[2])).toEqual(Array(4).fill("clock-skew"));
  },
);

test("connections that break in every way lose nothing, and every time is written down", async ({ dir }) => {
  await using broker = await openBroker();
  const flags = flagsOf("offline:1:300ms:300ms", "half-open:1:300ms:200ms", "reset:1:300ms", "flapping:1:500ms:500ms");
  const { ledger, lines } = await run(dir, broker, "--duration", "3s", ...flags);
  const verdict = judge(ledger, broker);
  expect(verdict).toMatchObject(sound);
  expect(verdict.found).toBeGreaterThan(200);
  const happened = new Set(lines.flatMap((line) => (line[0] === "fault" ? [line[2]] : [])));
  expect([...happened].sort()).toEqual(["flapping", "half-open", "offline", "reset"]);
});

test("a misspelt topic is in the ledger with the message", async ({ dir }) => {
  await using broker = await openBroker();
  const { lines } = await run(dir, broker, "--count", "5", ...flagsOf("wrong-topic:1"));
  const sent = lines.filter((line) => line[0] === "sent");
  expect(sent).toHaveLength(20);
  for (const line of sent)
    expect(line.slice(8)).toEqual(["wrong-topic", "ignored", expect.stringMatching(/telemetr$/)]);
});
