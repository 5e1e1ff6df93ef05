// What a TLS connection needs: whom to trust, and who the device is.

import { accessSync, constants, readFileSync } from "node:fs";
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
export function createSecureContexts({ ca, cert, key }: TlsOptions): (device: string) => SecureContext {
  const open = (device: string): SecureContext =>
    openContext({ ca, cert: cert?.replaceAll("{device}", device), key: key?.replaceAll("{device}", device) });
  if (hasOwnCertificates({ cert, key })) return open;
  const shared = open("");
  return () => shared;
}

/** Throws as above. Of devices with certificates of their own it opens one: all of 10,000 would take seconds. */
export function checkCertificates(tls: TlsOptions, devices: Iterable<string>): void {
  const secureContextOf = createSecureContexts(tls);
  if (!hasOwnCertificates(tls)) return;
  let isFirst = true;
  for (const device of devices) {
    if (isFirst) secureContextOf(device);
    isFirst = false;
    for (const file of [tls.cert, tls.key]) check(file?.replaceAll("{device}", device) ?? "");
  }
}

/** Whether each device has a certificate of its own. */
const hasOwnCertificates = ({ cert, key }: Pick<TlsOptions, "cert" | "key">): boolean =>
  `${cert} ${key}`.includes("{device}");

interface Paths {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

function openContext(paths: Paths): SecureContext {
  const files = Object.entries(paths).flatMap(([name, file]) => (file === undefined ? [] : [[name, read(file)]]));
  try {
    return createSecureContext(Object.fromEntries(files) as Record<keyof Paths, Buffer>);
  } catch (error) {
    const used = Object.values(paths).filter((file) => file !== undefined);
    throw new Error(`cannot use ${used.join(", ")}: ${reasonOf(error)}`, { cause: error });
  }
}

const read = (file: string): Buffer => named(file, () => readFileSync(file));

const check = (file: string): void => named(file, () => accessSync(file, constants.R_OK));

function named<T>(file: string, open: () => T): T {
  try {
    return open();
  } catch (error) {
    throw new Error(`cannot read ${file}: ${reasonOf(error)}`, { cause: error });
  }
}

/** The middle of `error:05800074:x509 certificate routines::key values mismatch` and `ENOENT: no such file …, open '…'`. */
const reasonOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replace(/^error:[^:]*:/, "").replace(/, \w+ '.*'$/, "");
