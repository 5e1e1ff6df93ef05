// The ledger of real devices: what was on the wire is in it, also when connections break.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { openFleet } from "../../../devices-sim/fleet.ts";
import { fingerprintOfPayload } from "../../../devices-sim/ledger/fingerprint.ts";
import type { LedgerLine } from "../../../devices-sim/ledger/format.ts";
import { readLedger, type Ledger } from "../../../devices-sim/ledger/reader.ts";
import { beginRun } from "../../../devices-sim/ledger/run.ts";
import { test } from "../../fixtures.ts";
import { openBroker, options, type TestBroker } from "../fixtures.ts";

interface Written {
  readonly ledger: Ledger;
  /** The lines of all threads. */
  readonly lines: readonly LedgerLine[];
}

const base = [
  "--devices",
  "6",
  "--rate",
  "50",
  "--ramp",
  "50ms",
  "--count",
  "30",
  "--reconnect",
  "50ms",
  "--seed",
  "3",
];

async function runFleet(dir: string, broker: TestBroker, ...args: readonly string[]): Promise<Written> {
  const sim = options(broker.port, ...base, "--threads", "2", "--ledger", dir, ...args);
  const endRun = await beginRun(dir, sim);
  await using fleet = openFleet(sim);
  expect(await fleet.ended).toMatchObject({ kind: "finished", summary: { unacknowledged: 0 } });
  await endRun();
  const texts = await Promise.all([0, 1].map((thread) => readFile(join(dir, `worker-${thread}.ndjson`), "utf8")));
  const lines = texts.flatMap((text) => text.trimEnd().split("\n")).map((line) => JSON.parse(line) as LedgerLine);
  return { ledger: await readLedger(dir), lines };
}

const count = (lines: readonly LedgerLine[], kind: LedgerLine[0]): number =>
  lines.filter(([first]) => first === kind).length;

test.for([
  { qos: "0", acks: 0, dones: 0 },
  { qos: "1", acks: 180, dones: 0 },
  { qos: "2", acks: 180, dones: 180 },
])(
  "at QoS $qos every message is there as it arrived, with its acknowledgements",
  async ({ qos, acks, dones }, { dir }) => {
    await using broker = await openBroker();
    const { ledger, lines } = await runFleet(dir, broker, "--qos", qos, "--invalid", "0.2");
    const kinds = (["device", "sent", "again", "ack", "done"] as const).map((kind) => count(lines, kind));
    expect(kinds).toEqual([6, 180, 0, acks, dones]);
    const { messages, deviceNumbers } = ledger;
    for (const { clientId, payload } of broker.arrivals) {
      const device = deviceNumbers.get(clientId) ?? -1;
      const message = messages.find(device, fingerprintOfPayload(payload)) ?? -1;
      const isTorn = messages.faultOf(message) === "malformed-json" || messages.faultOf(message) === "empty";
      expect(messages.reasonOf(message)).toBe(messages.isGood(message) ? "" : isTorn ? "undecodable" : "invalid");
    }
    expect(broker.arrivals).toHaveLength(180);
  },
);

test.for(["1", "2"])("at QoS %s what is sent again after a reconnect is written down", async (qos, { dir }) => {
  await using broker = await openBroker();
  let cuts = 0;
  broker.aedes.authorizePublish = (_client, _packet, done) => {
    // The first messages are cut off without an answer.
    if (broker.arrivals.length >= 20 * (cuts + 1) && cuts < 3) {
      cuts += 1;
      broker.cut();
    } else done(null);
  };
  const { ledger, lines } = await runFleet(dir, broker, "--qos", qos, "--invalid", "0");
  expect(cuts).toBe(3);
  expect([count(lines, "sent"), count(lines, "ack")]).toEqual([180, 180]);
  expect(count(lines, "again")).toBeGreaterThanOrEqual(3);
  const { messages, deviceNumbers } = ledger;
  const arrived = new Map<number, number>();
  for (const { clientId, payload } of broker.arrivals) {
    const message = messages.find(deviceNumbers.get(clientId) ?? -1, fingerprintOfPayload(payload)) ?? -1;
    arrived.set(message, (arrived.get(message) ?? 0) + 1);
  }
  expect(arrived.size).toBe(180);
  for (const [message, times] of arrived) expect(times).toBeLessThanOrEqual(messages.copiesOf(message));
});

test("what MQTT 5 tells is written down: the code and the reason of each refusal", async ({ dir }) => {
  await using broker = await openBroker();
  broker.aedes.authorizePublish = (_client, packet, done) => {
    done(packet.payload.toString() === "" ? Object.assign(new Error("no"), { reasonCode: 0x87 }) : null);
  };
  const { lines } = await runFleet(dir, broker, "--protocol", "5", "--invalid", "0.5");
  const acks = lines.filter((line) => line[0] === "ack");
  expect(new Set(acks.map(([, , , , code = 0]) => code))).toEqual(new Set([0, 0x87]));
});

test("a folder that cannot be written ends the run with the reason", async ({ dir }) => {
  await using broker = await openBroker();
  const gone = join(dir, "gone");
  await using fleet = openFleet(options(broker.port, ...base, "--ledger", gone));
  expect(await fleet.ended).toMatchObject({ kind: "crashed", detail: expect.stringContaining("ENOENT") });
});
