// TLS towards a server: the setting that every sink takes in the same shape, its files, and what its failures mean.

import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { createSecureContext } from "node:tls";
import { z } from "zod";
import { toError } from "../errors.ts";
import { SinkError } from "./sink.ts";

const pemFile = (sentence: string): z.ZodOptional<z.ZodType<string, string>> =>
  z
    .string()
    .min(1)
    .transform((text) => resolve(text))
    .optional()
    .describe(sentence);

/** For a key `tls` of a sink, itself optional. A sink that is reopened reads the files again. */
export const tlsSettings = z
  .strictObject({
    ca: pemFile(
      "PEM file of the authorities that may have signed the server's certificate, instead of those that Node.js knows.",
    ),
    cert: pemFile("PEM file of the certificate that is shown to the server, with its intermediate certificates."),
    key: pemFile("PEM file of the private key of `cert`, without a passphrase."),
    rejectUnauthorized: z
      .boolean()
      .default(true)
      .describe(
        "false: any certificate of the server is taken, so that anybody in between can read and change everything.",
      ),
  })
  .refine(({ cert, key }) => (cert === undefined) === (key === undefined), "expected cert and key together");

export type TlsSettings = z.output<typeof tlsSettings>;

/** What `tls.connect`, `https.request` and the client libraries take. */
export interface TlsOptions {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
  readonly rejectUnauthorized: boolean;
}

/** Reads the files. Rejects with a misconfigured SinkError that names the file which is missing or no PEM. */
export async function readTls({ ca, cert, key, rejectUnauthorized }: TlsSettings): Promise<TlsOptions> {
  const options = {
    ...(ca !== undefined && { ca: await readPem("ca", ca) }),
    ...(cert !== undefined && { cert: await readPem("cert", cert) }),
    ...(key !== undefined && { key: await readPem("key", key) }),
  };
  try {
    createSecureContext(options);
  } catch (cause) {
    const files = [ca, cert, key].filter((path) => path !== undefined).join(", ");
    throw new SinkError("misconfigured", `TLS cannot be used with ${files}: ${toError(cause).message}.`, { cause });
  }
  return { ...options, rejectUnauthorized };
}

async function readPem(setting: string, path: string): Promise<Buffer> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw new SinkError("misconfigured", `tls.${setting} cannot be read: ${toError(cause).message}.`, { cause });
  }
  // OpenSSL takes a list of authorities without any for an empty one, and then nothing verifies.
  if (!bytes.includes("-----BEGIN ")) {
    throw new SinkError("misconfigured", `tls.${setting} is not a PEM file: ${path} has no line -----BEGIN …-----.`);
  }
  return bytes;
}

/** What the operator can do about an error of the server's certificate; by OpenSSL's and Node's codes. */
const certificateHints: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "The server's certificate has expired: renew it, and look at the clock of this machine.",
  CERT_NOT_YET_VALID: "The server's certificate is not valid yet: look at the clocks of both machines.",
  ERR_TLS_CERT_ALTNAME_INVALID: "The server's certificate is for another name: use the name that it has.",
};
const unknownAuthority =
  "The server's certificate is signed by an authority that is not known here: give it as tls.ca.";
const isOfCertificate =
  /^(?:CERT_|ERR_TLS_CERT|SELF_SIGNED_|DEPTH_ZERO_|UNABLE_TO_|INVALID_(?:CA|PURPOSE)|HOSTNAME_|PATH_LENGTH)/;

/**
 * A sentence for the operator when a connection failed for what only a person can mend about TLS: a certificate that is not
 * accepted by one of the two sides, or a server that speaks no TLS. undefined: it failed for something else.
 */
export function toTlsHint(cause: unknown): string | undefined {
  const { code, message } = toError(cause) as { readonly code?: unknown; readonly message: string };
  if (typeof code !== "string") return undefined;
  // A failed write has OpenSSL's reason in its message alone.
  if (code === "EPROTO") return toProtocolHint(message.toUpperCase().replaceAll(" ", "_"));
  if (code.startsWith("ERR_SSL_")) return toProtocolHint(code);
  return certificateHints[code] ?? (isOfCertificate.test(code) ? unknownAuthority : undefined);
}

/** A damaged or cut connection has such codes too, and may pass. */
function toProtocolHint(code: string): string | undefined {
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH|HTTP_REQUEST/.test(code)) return "The server speaks no TLS on this port.";
  if (/CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE/.test(code)) {
    return "The server wants a certificate that it knows: give tls.cert and tls.key.";
  }
  if (/ALERT_(?:\w*CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)/.test(code)) {
    return "The server refuses the certificate of tls.cert.";
  }
  return /PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/.test(code)
    ? "The two sides have no version of TLS in common."
    : undefined;
}
