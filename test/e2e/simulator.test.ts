// P5 with the simulator as the witness: what it sent, the gateway's counters and the database tell the same.

import { execPath } from "node:process";
import { join } from "node:path";
import { expect } from "vitest";
import { type GatewayProcess, test } from "../fixtures.ts";
import { readRows } from "./rows.ts";
import { run } from "./tools.ts";

const launcher = join(import.meta.dirname, "../../bin/sluice-sim.js");

/** What is used here of the simulator's `--json`. */
interface Summary {
  readonly sent: number;
  readonly acknowledged: number;
  readonly invalidSent: number;
}

test("50 devices, one message in ten invalid: accepted, rejected and stored are what was sent valid and invalid", async ({
  start,
}) => {
  const gateway = await start();
  const url = `mqtt://127.0.0.1:${gateway.mqttPort}`;
  const fleet = ["--devices", "50", "--rate", "5", "--ramp", "500ms", "--duration", "3s", "--invalid", "0.1"];
  const simulator = run(execPath, [launcher, "--url", url, "--seed", "1", "--json", "--quiet", ...fleet]);
  const { code, stdout, stderr } = await simulator.finished;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const { sent, acknowledged, invalidSent } = JSON.parse(stdout) as Summary;
  expect(invalidSent).toBeGreaterThan(0);
  expect(acknowledged).toBe(sent);

  const valid = sent - invalidSent;
  expect(await messages(gateway)).toEqual({ received: sent, accepted: valid, rejected: invalidSent, refused: 0 });
  // With the sink at the journal's end no row comes later.
  await expect.poll(() => lagRecords(gateway), { timeout: 120_000 }).toBe(0);
  expect(await readRows(gateway, valid)).toHaveLength(valid);
});

/** Records that the sink has not taken yet. */
async function lagRecords(gateway: GatewayProcess): Promise<number> {
  const { text } = await gateway.fetch("/metrics");
  return Number(/^gateway_sink_lag_records\{sink="sqlite"\} (\d+)$/m.exec(text)?.[1]);
}

/** The sum of each outcome's counters. */
async function messages(gateway: GatewayProcess): Promise<Readonly<Record<string, number>>> {
  const { text } = await gateway.fetch("/metrics");
  const sum = (kind: string): number =>
    [...text.matchAll(new RegExp(`^gateway_messages_${kind}_total\\{.*\\} (\\d+)$`, "gm"))].reduce(
      (total, [, count]) => total + Number(count),
      0,
    );
  return Object.fromEntries(["received", "accepted", "rejected", "refused"].map((kind) => [kind, sum(kind)]));
}
