// P1, P2, P7: any call with which the journal touches its disk may be refused, once or for a while. Nothing is acknowledged
// that is not on the disk, a person is told once, and it goes on by itself when the disk is well again.

import { constants } from "node:os";
import type { MqttClient } from "mqtt";
import { expect } from "vitest";
import { errors } from "../../src/errors.ts";
import { type GatewayProcess, test } from "../fixtures.ts";
import { errorsOf, readMetric, troublesOf, until } from "./observe.ts";
import { readRows } from "./rows.ts";
import { openShim, type Rule, type Shim } from "./shim.ts";
import { needs } from "./tools.ts";

const { ENOSPC, EIO, EROFS, EDQUOT, EMFILE, EACCES } = constants.errno;
const SHORT = 0;

interface Case {
  readonly name: string;
  readonly rules: readonly Rule[];
}

/** Each once (a fresh segment takes the commit) and until the disk is well again. */
const refusals: readonly Case[] = [
  { name: "ENOSPC on write", rules: [["write", "segment", ENOSPC]] },
  { name: "EIO on write", rules: [["write", "segment", EIO]] },
  { name: "EROFS on write", rules: [["write", "segment", EROFS]] },
  { name: "EDQUOT on write", rules: [["write", "segment", EDQUOT]] },
  { name: "a short write", rules: [["write", "segment", SHORT]] },
  { name: "EIO on fdatasync", rules: [["sync", "segment", EIO]] },
  { name: "ENOSPC on fdatasync", rules: [["sync", "segment", ENOSPC]] },
  { name: "EDQUOT on fdatasync", rules: [["sync", "segment", EDQUOT]] },
  { name: "EIO on the fsync of the folder", rules: [["sync", "folder", EIO]] },
  { name: "ENOSPC on open", rules: [["open", "segment", ENOSPC]] },
  { name: "EMFILE on open", rules: [["open", "segment", EMFILE]] },
  { name: "EROFS on open", rules: [["open", "segment", EROFS]] },
  { name: "EACCES on open", rules: [["open", "segment", EACCES]] },
  {
    name: "EIO on fdatasync, then on ftruncate and unlink",
    rules: [
      ["sync", "segment", EIO],
      ["truncate", "segment", EIO],
      ["unlink", "segment", EIO],
    ],
  },
];

/** These hold nobody up. */
const harmless: readonly Case[] = [
  { name: "EIO on unlink", rules: [["unlink", "segment", EIO]] },
  { name: "EIO on write of the head", rules: [["write", "head", EIO]] },
  { name: "ENOSPC on write of a cursor", rules: [["write", "cursor", ENOSPC]] },
  { name: "EIO on fdatasync of a cursor", rules: [["sync", "cursor", EIO]] },
];

/** Of a burst: more than a segment, so that the journal needs a new one. */
const burst = 6;
const pad = "x".repeat(200_000);

/** A gateway behind a shim and a device that sends it large readings. */
interface Bench {
  readonly gateway: GatewayProcess;
  readonly shim: Shim;
  readonly sender: Sender;
}

interface Sender {
  readonly acknowledged: readonly number[];
  readonly sent: () => number;
  /** Sends readings without waiting; resolves when all of them are acknowledged. */
  burst(): Promise<void>;
}

function createSender(client: MqttClient): Sender {
  const acknowledged: number[] = [];
  let sent = 0;
  const publish = async (): Promise<void> => {
    sent += 1;
    const seq = sent;
    await client.publishAsync("devices/d1/telemetry", JSON.stringify({ ts: seq, seq, pad }), { qos: 1 });
    acknowledged.push(seq);
  };
  return {
    acknowledged,
    sent: () => sent,
    burst: async () => void (await Promise.all(Array.from({ length: burst }, publish))),
  };
}

const config = `
import { defineGateway, defineStream, json, sqlite, tcp, z } from "sluice";
const schema = z.looseObject({ seq: z.int() });
export default defineGateway({
  listeners: [tcp()], sinks: [sqlite()], journal: { maxBytes: 64 * 2 ** 20, segmentBytes: 2 ** 20 },
  streams: [defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema })],
});`;

test("calls that the disk refuses: nothing is acknowledged meanwhile, a person is told once, it goes on by itself, nothing is lost", async ({
  start,
  connect,
  dir,
  skip,
}) => {
  needs(skip, "gcc");
  const shim = await openShim(dir);
  const gateway = await start({ config, env: shim.env });
  const sender = createSender(await connect(gateway, { clientId: "d1" }));
  const bench = { gateway, shim, sender };
  await sender.burst();
  for (const refusal of refusals) await refuse(refusal, 1, bench);
  for (const refusal of refusals) await refuseForAWhile(refusal, bench);
  for (const refusal of harmless) await refuse(refusal, -1, bench);
  expect(shim.again(), "writes and syncs of a file whose sync had failed").toBe(0);
  await killWhileRefusing(bench);

  const again = await start({ config, env: shim.env });
  const rows = await readRows(again, sender.acknowledged.length);
  const stored = rows.map(({ data }) => (JSON.parse(data) as { seq: number }).seq);
  expect(stored, "once and in order").toEqual([...new Set(stored)].sort((a, b) => a - b));
  const present = new Set(stored);
  expect(
    sender.acknowledged.filter((seq) => !present.has(seq)),
    "lost",
  ).toEqual([]);
  expect(errorsOf(again)).toEqual([]);
});

/** Nobody notices: there is a way around it. */
async function refuse({ name, rules }: Case, times: number, { gateway, shim, sender }: Bench): Promise<void> {
  const before = troublesOf(gateway).length;
  await shim.order(rules, times);
  await until(`${name}, ${times} times`, async () => {
    await sender.burst();
    return shim.refused() >= Math.abs(times);
  });
  expect(await gateway.fetch("/readyz"), name).toMatchObject({ status: 200 });
  expect(troublesOf(gateway), name).toHaveLength(before);
}

async function refuseForAWhile({ name, rules }: Case, { gateway, shim, sender }: Bench): Promise<void> {
  const before = troublesOf(gateway).length;
  const sending: Promise<void>[] = [];
  await shim.order(rules, -1);
  await until(`${name}: not ready`, async () => {
    // The rest of a segment may take a burst or two.
    if (sender.acknowledged.length === sender.sent()) sending.push(sender.burst());
    return (await gateway.fetch("/readyz")).status === 503;
  });
  const state = async (): Promise<unknown> => ({
    acknowledged: sender.acknowledged.length,
    received: await readMetric(gateway, "gateway_messages_received_total"),
  });
  const atFailure = await state();
  sending.push(sender.burst());
  const refused = shim.refused();
  await until(`${name}: is tried again`, () => shim.refused() >= refused + 2);
  expect(await state(), name).toEqual(atFailure);
  expect((await gateway.fetch("/readyz")).text, name).toContain(errors.SLUICE_JOURNAL_WRITE.sentence);
  expect(troublesOf(gateway).slice(before), name).toEqual(["failed"]);
  const line = errorsOf(gateway).findLast(({ state: entered }) => entered === "failed");
  expect(line?.msg, name).toContain(errors.SLUICE_JOURNAL_WRITE.hint);
  await shim.order([], 0);
  await Promise.all(sending);
  expect(await gateway.fetch("/readyz"), name).toMatchObject({ status: 200 });
  expect(troublesOf(gateway), name).toHaveLength(before + 1);
}

async function killWhileRefusing({ gateway, shim, sender }: Bench): Promise<void> {
  await shim.order(
    refusals.flatMap(({ rules }) => rules),
    -1,
  );
  sender.burst().catch(() => {}); // never answered
  await until("not ready", async () => (await gateway.fetch("/readyz")).status === 503);
  await gateway.end("SIGKILL");
  await shim.order([], 0);
}
