import { flapping, lastWill, offline, reconnectStorm, reset } from "./absence.ts";
import { badCertificate } from "./bad-certificate.ts";
import { clockDrift, clockSkew } from "./clock.ts";
import { dupResend, duplicate, outOfOrder } from "./delivery.ts";
import type { Fault, FaultPlan } from "./fault.ts";
import { halfOpen, hostilePackets, slowReader, takeover } from "./intruders.ts";
import {
  empty,
  hostileBytes,
  impossibleTime,
  malformedJson,
  missingSeq,
  notAnObject,
  outOfRange,
  oversize,
  wrongTopic,
  wrongType,
} from "./payload.ts";

export const faults = {
  "malformed-json": malformedJson,
  "wrong-type": wrongType,
  "missing-seq": missingSeq,
  empty,
  "not-an-object": notAnObject,
  "out-of-range": outOfRange,
  "impossible-time": impossibleTime,
  "hostile-bytes": hostileBytes,
  oversize,
  "wrong-topic": wrongTopic,
  duplicate,
  "dup-resend": dupResend,
  "out-of-order": outOfOrder,
  "clock-skew": clockSkew,
  "clock-drift": clockDrift,
  offline,
  "half-open": halfOpen,
  reset,
  flapping,
  "reconnect-storm": reconnectStorm,
  takeover,
  "last-will": lastWill,
  "slow-reader": slowReader,
  "hostile-packets": hostilePackets,
  "bad-certificate": badCertificate,
} satisfies Record<string, Fault>;

export type FaultName = keyof typeof faults;

export const faultNames = Object.keys(faults) as readonly FaultName[];

/** What `--invalid` spoils messages with, each as often as the others. */
const invalidNames: readonly FaultName[] = ["malformed-json", "wrong-type", "missing-seq", "empty", "not-an-object"];

export const toInvalidPlans = (share: number): readonly FaultPlan<FaultName>[] =>
  share === 0 ? [] : invalidNames.map((name) => ({ name, share: share / invalidNames.length }));

/** Its share when none is given: one message in a hundred, one device in ten, and of a storm all. */
export function usualShare(name: FaultName): number {
  const fault: Fault = faults[name];
  if (fault.kind === "payload" || fault.kind === "delivery") return 0.01;
  return fault.kind === "connection" && fault.together === true ? 1 : 0.1;
}

/** What cannot be said of when a fault comes and how long it lasts: a sentence that says so. */
export function findWrongTimes({ name, everyMs, forMs }: FaultPlan<FaultName>): string | undefined {
  const fault: Fault = faults[name];
  if (fault.kind !== "connection") {
    const isPlain = everyMs === undefined && forMs === undefined;
    return isPlain ? undefined : `every and for are for faults of connections, not for ${name}`;
  }
  if (everyMs === 0 || forMs === 0) return "every and for are more than 0";
  return fault.forMs === 0 && forMs !== undefined ? `${name} is over at once: it has no for` : undefined;
}

/** Shares of messages that add up to more than all of them: a sentence that says so. */
export function findExcess(plans: readonly FaultPlan<FaultName>[]): string | undefined {
  const ofMessages = plans.filter(({ name }) => faults[name].kind === "payload" || faults[name].kind === "delivery");
  const sum = ofMessages.reduce((total, { share }) => total + share, 0);
  if (sum <= 1 + 1e-9) return undefined;
  return `the shares of ${ofMessages.map(({ name }) => name).join(", ")} add up to ${sum}, and each message has one fault at most`;
}
