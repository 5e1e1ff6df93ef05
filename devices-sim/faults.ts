// What goes wrong on purpose: a share of the messages is spoilt so that a gateway has something to reject.

import type { Telemetry } from "./telemetry.ts";
import type { Random } from "./random.ts";

export type FaultKind = "malformed-json" | "wrong-type" | "missing-seq" | "empty" | "not-an-object";

/** How each kind spoils a reading: returns the payload to send in its place. */
const spoilers: Readonly<Record<FaultKind, (telemetry: Telemetry) => string>> = {
  "malformed-json": (telemetry) => JSON.stringify(telemetry).slice(0, -20),
  "wrong-type": ({ metrics, ...rest }) => {
    const [name = "value", value = 0] = Object.entries(metrics)[0] ?? [];
    return JSON.stringify({ ...rest, metrics: { ...metrics, [name]: String(value) } });
  },
  "missing-seq": ({ ts, metrics }) => JSON.stringify({ ts, metrics }),
  empty: () => "",
  "not-an-object": ({ metrics }) => JSON.stringify(Object.values(metrics)),
};

/** Why a gateway whose schema is that of the profile rejects each kind, in the words of Sluice. */
export const rejectionOf: Readonly<Record<FaultKind, "undecodable" | "invalid">> = {
  "malformed-json": "undecodable",
  "wrong-type": "invalid",
  "missing-seq": "invalid",
  empty: "undecodable",
  "not-an-object": "invalid",
};

export const faultKinds = Object.keys(spoilers) as readonly FaultKind[];

/** The payload of a message spoilt in this way. */
export const spoil = (kind: FaultKind, telemetry: Telemetry): string => spoilers[kind](telemetry);

/** Asked once per message: is it to be spoilt, and how? `share` is in [0, 1]; every kind is as likely as the others. */
export function createFaults(share: number, random: Random): () => FaultKind | undefined {
  return () => (random() < share ? faultKinds[Math.floor(random() * faultKinds.length)] : undefined);
}
