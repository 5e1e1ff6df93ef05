// What a TLS connection needs: whom to trust, and who the device is.

import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureContext, type SecureContext } from "node:tls";

/** Paths are absolute; in `cert` and `key` `{device}` stands for the device's id. */
export interface TlsOptions {
  /** Authorities to trust in place of the system's. */
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  /** The name that the broker's certificate is to have, if not the host of the URL. */
  readonly servername: string | undefined;
  /** Whether the broker's certificate is checked. */
  readonly isVerified: boolean;
}

/**
 * The secure context of a device: one for all unless each has a certificate of its own, because one takes 35 kB and half a
 * millisecond; with a `ca` of 140 authorities a megabyte. Throws an Error that names the file which cannot be read or used.
 */
export function createSecureContexts(tls: TlsOptions): (device: string) => SecureContext {
  const open = (device: string): SecureContext => openContext(pathsOf(tls, device));
  if (hasOwnCertificates(tls)) return open;
  const shared = open("");
  return () => shared;
}

/**
 * Throws as above, and when a key is not that of its certificate. Of devices with certificates of their own it opens the
 * context of one: all of 10,000 would take seconds. To hold a key against its certificate takes a tenth of a millisecond.
 */
export function checkCertificates(tls: TlsOptions, devices: Iterable<string>): void {
  let isFirst = true;
  for (const device of hasOwnCertificates(tls) ? devices : [""]) {
    const paths = pathsOf(tls, device);
    checkKey(paths);
    if (isFirst) openContext(paths);
    isFirst = false;
  }
}

/** Whether each device has a certificate of its own. */
const hasOwnCertificates = ({ cert, key }: TlsOptions): boolean => `${cert} ${key}`.includes("{device}");

type Paths = Pick<TlsOptions, "ca" | "cert" | "key">;

const pathsOf = ({ ca, cert, key }: TlsOptions, device: string): Paths => ({
  ca,
  cert: cert?.replaceAll("{device}", device),
  key: key?.replaceAll("{device}", device),
});

function checkKey({ cert, key }: Paths): void {
  if (cert === undefined || key === undefined) return;
  const [certificateText, keyText] = [read(cert), read(key)];
  const certificate = usable([cert], () => new X509Certificate(certificateText));
  const privateKey = usable([key], () => createPrivateKey(keyText));
  if (!certificate.checkPrivateKey(privateKey)) {
    throw new Error(`cannot use ${cert} with ${key}: the key is not that of the certificate`);
  }
}

function openContext(paths: Paths): SecureContext {
  const files = Object.entries(paths).flatMap(([name, file]) => (file === undefined ? [] : [[name, read(file)]]));
  const used = Object.values(paths).filter((file) => file !== undefined);
  return usable(used, () => createSecureContext(Object.fromEntries(files) as Record<keyof Paths, Buffer>));
}

function usable<T>(files: readonly string[], open: () => T): T {
  try {
    return open();
  } catch (error) {
    throw new Error(`cannot use ${files.join(", ")}: ${reasonOf(error)}`, { cause: error });
  }
}

function read(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new Error(`cannot read ${file}: ${reasonOf(error)}`, { cause: error });
  }
}

/** The middle of `error:0480006C:PEM routines::no start line` and `ENOENT: no such file …, open '…'`. */
const reasonOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replace(/^error:[^:]*:/, "").replace(/, \w+ '.*'$/, "");
