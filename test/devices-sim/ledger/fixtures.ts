// Ledgers that no device wrote, and the rows of a sink that has everything.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fingerprintOfPayload } from "../../../devices-sim/ledger/fingerprint.ts";
import { workerFile, type LedgerLine } from "../../../devices-sim/ledger/format.ts";
import { readLedger, type Ledger } from "../../../devices-sim/ledger/reader.ts";
import { beginRun } from "../../../devices-sim/ledger/run.ts";
import type { Row } from "../../../devices-sim/verify/row.ts";
import { options } from "../fixtures.ts";

export interface Sent {
  readonly seq: number;
  readonly payload: string;
  readonly at: number;
}

/** The message `seq` of a device, sent at `at`. */
export const message = (seq: number, at = Date.now()): Sent => ({
  seq,
  at,
  payload: JSON.stringify({ ts: at, seq, metrics: { temperature: 20 + seq / 8 } }),
});

interface Circumstances {
  readonly qos?: number;
  /** Kind of fault, and the reason to be rejected for. */
  readonly spoilt?: readonly [kind: string, reason: string];
}

export const sentLine = (
  device: number,
  index: number,
  { seq, payload, at }: Sent,
  { qos = 1, spoilt: [kind, reason] = ["", ""] }: Circumstances = {},
) => ["sent", device, index, at, qos, seq, payload.length, fingerprintOfPayload(payload), kind, reason] as const;

/** Writes the lines as one thread does, and reads them again. `tail` comes behind the last line feed. */
export async function ledgerOf(
  dir: string,
  lines: readonly (LedgerLine | string)[],
  { tail = "", killed = false, args = [] }: { tail?: string; killed?: boolean; args?: readonly string[] } = {},
): Promise<Ledger> {
  const endRun = await beginRun(dir, options(1883, ...args));
  const text = lines.map((line) => `${typeof line === "string" ? line : JSON.stringify(line)}\n`).join("");
  await writeFile(join(dir, workerFile(0)), text + tail);
  if (!killed) await endRun();
  return await readLedger(dir);
}

/** Messages 1 to `count` of one device, all acknowledged. */
export const acknowledged = (
  count: number,
  qos = 1,
): { readonly sent: readonly Sent[]; readonly lines: LedgerLine[] } => {
  const sent = Array.from({ length: count }, (_, at) => message(at + 1));
  const lines = sent.flatMap((one, index): LedgerLine[] => [
    sentLine(0, index, one, { qos }),
    ["ack", 0, index, one.at + 1],
  ]);
  return { sent, lines: [["device", 0, "sim-1", "devices/sim-1/telemetry"], ...lines] };
};

/** What a sink has of a message. */
export const rowOf = ({ payload, at }: Sent, offset: number): Row => ({
  lane: "gateway",
  offset,
  device: "sim-1",
  receivedAt: at,
  data: JSON.parse(payload) as unknown,
});
