// What the errors of connections mean for the person who runs the fleet.

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

/** The error as a sentence, with a hint where one helps. */
export function toFailureText(error: Error & { readonly code?: unknown }): string {
  // A refusal of all of a host's addresses is an AggregateError without a message of its own.
  const text = error instanceof AggregateError ? error.errors.map(String).join("; ") : error.message;
  const hint = hints.find(([code]) => typeof error.code === "string" && code.test(error.code))?.[1];
  return hint === undefined ? text : `${text} (${hint})`;
}

/** Whether certificates do not fit: trying again does not change that. */
export const isCertificateFailure = ({ code }: { readonly code?: unknown }): boolean =>
  typeof code === "string" && (distrust.test(code) || turnedDown.test(code));
