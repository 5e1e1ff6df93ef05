// What the errors of connections mean for the person who runs the fleet.

import { hex } from "../tally.ts";

/** Names of OpenSSL and Node for a broker's certificate that is not to be trusted. */
const distrust =
  /^(?:CERT_|CRL_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_CA$|INVALID_PURPOSE$|PATH_LENGTH_EXCEEDED$|HOSTNAME_MISMATCH$|ERR_TLS_CERT_ALTNAME_INVALID$)/;

/** Alerts with which a broker turns a device's certificate down, or the lack of one (RFC 8446 section 6.2). */
const turnedDown =
  /^ERR_SSL_.*_ALERT_(?:CERTIFICATE_\w+|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)$/;

const hints: readonly (readonly [code: RegExp, hint: string])[] = [
  [distrust, "name the authority with --ca, or the name in the certificate with --servername"],
  [turnedDown, "the broker wants another certificate of the device: --cert and --key"],
  [/^ERR_SSL_(?:WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG)$/, "this port does not speak TLS: mqtt:// or ws://?"],
  [/^EADDRNOTAVAIL$/, "no port of the source address is free, or it is not an address of this machine: --source"],
  [/^EMFILE$/, "this process may not open more connections: raise the limit with `ulimit -n`"],
];

/** CONNACK codes that trying again does not change: 3.1.1 [MQTT-3.2.2.3], MQTT 5 §3.2.2.2. */
const refusals: ReadonlySet<number> = new Set([4, 5, 0x86, 0x87]);

/** `credentials`: the device's. `certificate`: the broker's or the device's. */
export type Refused = "credentials" | "certificate";

export interface Failure {
  /** By which errors are counted. */
  readonly kind: string;
  /** A sentence, with a hint where one helps. */
  readonly text: string;
  /** What was refused for good: trying again does not change it. */
  readonly refused: Refused | undefined;
}

export function toFailure(error: Error & { readonly code?: unknown }): Failure {
  const { code } = error;
  if (typeof code === "number") {
    const refused = refusals.has(code) ? "credentials" : undefined;
    return { kind: `connack ${hex(code)}`, text: `${error.message} (${hex(code)})`, refused };
  }
  // A refusal of all of a host's addresses is an AggregateError without a message of its own.
  const text = error instanceof AggregateError ? error.errors.map(String).join("; ") : error.message;
  if (typeof code !== "string") return { kind: error.message, text, refused: undefined };
  const hint = hints.find(([pattern]) => pattern.test(code))?.[1];
  return {
    kind: code,
    text: hint === undefined ? text : `${text} (${hint})`,
    refused: distrust.test(code) || turnedDown.test(code) ? "certificate" : undefined,
  };
}
