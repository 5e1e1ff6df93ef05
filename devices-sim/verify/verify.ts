// Compares the ledger of a run with each sink, one after the other, and waits for those that are behind.

import { setTimeout as delay } from "node:timers/promises";
import { readLedger, type Ledger } from "../ledger/reader.ts";
import { readSeen } from "../ledger/watch.ts";
import { openRejects, RejectionCheck, type RejectionVerdict } from "./rejections.ts";
import { SinkCheck, type SinkVerdict } from "./sink-check.ts";
import { IncomparableError } from "./row.ts";
import { isSink, openSource, type SinkTarget } from "./source.ts";
import type { Target } from "./target.ts";

/** What became of a run. The names are the contract of `--json`. */
export interface Verification {
  readonly sinks: readonly SinkVerdict[];
  readonly rejections: readonly RejectionVerdict[];
  /** Lines of the ledger that cannot be read. */
  readonly damagedLines: number;
  /** The run has no end in the ledger: the simulator was killed. */
  readonly killed: boolean;
  /** Every promise was kept. */
  readonly kept: boolean;
}

export interface VerifyRequest {
  /** The ledger's folder. */
  readonly dir: string;
  readonly targets: readonly Target[];
  /** What brings nothing new for so long has brought everything. */
  readonly waitMs: number;
  /** Told before each target. */
  readonly onTarget?: (name: string) => void;
}

const POLL_MS = 250;

/**
 * Rejects with an IncomparableError that names the target when one has what can never be compared. What is not there yet, or cannot
 * be read, may be another matter after a run.
 */
export async function checkTargets(targets: readonly Target[]): Promise<void> {
  for (const target of targets.filter(isSink)) {
    await using source = openSource(target);
    await source.check?.().catch((cause: unknown) => {
      if (cause instanceof IncomparableError) throw named(target, cause);
    });
  }
}

const named = ({ name }: SinkTarget, cause: IncomparableError): IncomparableError =>
  new IncomparableError(`${name}: ${cause.message}`, { cause });

/**
 * Rejects when there is no ledger, and with an IncomparableError as above. A sink that cannot be read is a broken promise with a
 * reason.
 */
export async function verify({ dir, targets, waitMs, onTarget }: VerifyRequest): Promise<Verification> {
  const ledger = await readLedger(dir);
  const sinks: SinkVerdict[] = [];
  const rejections: RejectionVerdict[] = [...answersOf(ledger), ...(await seenIn(dir, ledger))];
  for (const target of targets) {
    onTarget?.(target.name);
    if (isSink(target)) sinks.push(await verifySink(ledger, target, waitMs));
    else rejections.push(await verifyRejects(ledger, target, waitMs));
  }
  const isKept = !sinks.some(isSinkBroken) && !rejections.some(isRejectionBroken) && ledger.damaged === 0;
  return {
    sinks,
    rejections,
    damagedLines: ledger.damaged,
    killed: ledger.run.endedAt === undefined,
    kept: isKept,
  };
}

export const isSinkBroken = (verdict: SinkVerdict): boolean =>
  verdict.error !== undefined ||
  verdict.lost + verdict.duplicated + verdict.reordered + verdict.corrupted + verdict.spoiltStored > 0;

export const isRejectionBroken = ({
  error,
  notRejected,
  forgotten,
  wrongReason,
  goodRejected,
}: RejectionVerdict): boolean => error !== undefined || notRejected > forgotten || wrongReason + goodRejected > 0;

/** MQTT 5 tells a device why its message is not taken; 3.1.1 and QoS 0 have no words for it. */
function answersOf(ledger: Ledger): readonly RejectionVerdict[] {
  const { protocolVersion, qos } = ledger.run.options;
  if (protocolVersion !== 5 || qos === 0) return [];
  const check = new RejectionCheck(ledger);
  check.takeAnswers();
  return [check.verdict("MQTT 5 reason codes")];
}

/** What the simulator has seen when it listened. Subscribers are no sinks: what one does not read in time is dropped. */
async function seenIn(dir: string, ledger: Ledger): Promise<readonly RejectionVerdict[]> {
  if (!ledger.run.options.watchRejected) return [];
  const check = new RejectionCheck(ledger);
  for await (const [, device, receivedAt, print, reason] of readSeen(dir)) {
    check.take({ device, receivedAt, print, reason });
  }
  return [check.verdict("sluice/rejected/#")];
}

async function verifySink(ledger: Ledger, target: SinkTarget, waitMs: number): Promise<SinkVerdict> {
  await using source = openSource(target);
  const check = new SinkCheck(ledger, () => source.once);
  const error = await follow(check, waitMs, async () => {
    for await (const rows of source.read()) check.take(rows);
  }).catch((cause: unknown) => {
    throw cause instanceof IncomparableError ? named(target, cause) : cause;
  });
  return check.verdict(target.name, error);
}

async function verifyRejects(
  ledger: Ledger,
  { name, path }: Extract<Target, { readonly kind: "rejects" }>,
  waitMs: number,
): Promise<RejectionVerdict> {
  using inbox = openRejects(path);
  const check = new RejectionCheck(ledger);
  // oxlint-disable-next-line typescript/require-await -- a throw must be a rejection
  const error = await follow(check, waitMs, async () => {
    for (const rejected of inbox.read()) check.take(rejected);
  });
  return check.verdict(name, { forgotten: inbox.forgotten, error });
}

/**
 * Reads until all is there and nothing new comes, or nothing new has come for `waitMs`. Resolves to why it could not be read, if
 * so; rejects with an IncomparableError only.
 */
async function follow(
  check: { readonly isComplete: boolean; readonly taken: number },
  waitMs: number,
  read: () => Promise<void>,
): Promise<string | undefined> {
  let newsMs = performance.now();
  for (;;) {
    const before = check.taken;
    const error = await read().then(
      () => undefined,
      (cause: unknown) => {
        if (cause instanceof IncomparableError) throw cause;
        return messageOf(cause);
      },
    );
    if (check.taken !== before) newsMs = performance.now();
    else if (performance.now() - newsMs >= waitMs || (check.isComplete && error === undefined)) return error;
    await delay(POLL_MS);
  }
}

/** A refusal of all of a host's addresses is an AggregateError without a message of its own. */
function messageOf(cause: unknown): string {
  if (cause instanceof AggregateError) return cause.errors.map(messageOf).join("; ");
  return cause instanceof Error ? cause.message : String(cause);
}
