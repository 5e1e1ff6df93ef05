// What a running gateway tells of itself, for tests that wait for it.

import { setTimeout as delay } from "node:timers/promises";
import type { GatewayProcess, LogLine } from "../gateway-process.ts";

const errorLevel = 50;
const pollMs = 10;
const patienceMs = 60_000;

/** Waits for something that can only be looked at; says what it was when it does not come. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const patience = AbortSignal.timeout(patienceMs);
  while (!(await condition())) {
    if (patience.aborted) throw new Error(`waited in vain: ${what}`);
    await delay(pollMs);
  }
}

const isError = ({ level }: LogLine): boolean => Number(level) >= errorLevel;

export const errorsOf = ({ log }: GatewayProcess): readonly LogLine[] => log.filter(isError);

/** What the journal has told a person: one line each time that it stopped taking messages. */
export const troublesOf = (gateway: GatewayProcess): readonly unknown[] =>
  errorsOf(gateway)
    .map(({ state }) => state)
    .filter((state) => state !== undefined);

export const isReady = async (gateway: GatewayProcess): Promise<boolean> =>
  (await gateway.fetch("/readyz")).status === 200;

/** The sum over all labels. */
export async function readMetric(gateway: GatewayProcess, name: string): Promise<number> {
  const { text } = await gateway.fetch("/metrics");
  const samples = [...text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, "gm"))];
  if (samples.length === 0) throw new Error(`there is no metric ${name}`);
  return samples.reduce((sum, [, value]) => sum + Number(value), 0);
}

/** Resolves when every sink has everything. */
export async function caughtUp(gateway: GatewayProcess): Promise<void> {
  while ((await readMetric(gateway, "gateway_sink_lag_records")) > 0) await delay(pollMs);
}
