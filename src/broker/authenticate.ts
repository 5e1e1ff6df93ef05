// Who a client is: the mosquitto password file (mosquitto_passwd), one `user:$7$iterations$salt$hash` line per user,
// the hash being PBKDF2-SHA512 over the password, salt and hash in base64.

import { pbkdf2, randomBytes, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { SluiceError, toError } from "../errors.ts";

const derive = promisify(pbkdf2);

interface Credentials {
  readonly clientId: string;
  readonly username: string | undefined;
  readonly password: Uint8Array | undefined;
}

/** `deviceId` is the identity that the client may publish under; undefined: any (no credentials are configured). */
type Authentication =
  | { readonly kind: "known"; readonly deviceId: string | undefined }
  | { readonly kind: "refused"; readonly reason: string };

export type Authenticate = (credentials: Credentials) => Promise<Authentication>;

interface PasswordHash {
  readonly iterations: number;
  readonly salt: Buffer;
  readonly hash: Buffer;
}

/** Without credentials configured everybody is known; the listener stays on loopback then. */
export const acceptEverybody: Authenticate = () => Promise.resolve({ kind: "known", deviceId: undefined });

/** Throws a SluiceError that names file and line. */
export async function openPasswordFile(file: string): Promise<Authenticate> {
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    throw new SluiceError("SLUICE_PASSWORD_FILE", toError(cause).message, { cause });
  });
  const users = parsePasswordFile(text, file);
  // An unknown user costs as much time as a wrong password, so that names cannot be found out.
  const nobody: PasswordHash = { iterations: 101, salt: randomBytes(12), hash: randomBytes(64) };
  return async ({ username, password }) => {
    if (username === undefined || password === undefined) {
      return { kind: "refused", reason: "user name and password are required" };
    }
    const known = users.get(username);
    const { iterations, salt, hash } = known ?? nobody;
    const derived = await derive(password, salt, iterations, hash.length, "sha512");
    return known !== undefined && timingSafeEqual(derived, hash)
      ? { kind: "known", deviceId: username }
      : { kind: "refused", reason: "unknown user name or wrong password" };
  };
}

function parsePasswordFile(text: string, file: string): ReadonlyMap<string, PasswordHash> {
  const users = new Map<string, PasswordHash>();
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.trimEnd();
    if (line === "" || line.startsWith("#")) continue;
    const place = `${file}:${index + 1}`;
    const match = /^([^:]+):\$7\$(\d{1,8})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)$/.exec(line);
    if (match === null) {
      throw new SluiceError("SLUICE_PASSWORD_FILE", `${place}: expected user:$7$iterations$salt$hash`);
    }
    const [, user = "", iterations = "", salt = "", hash = ""] = match;
    const entry = {
      iterations: Number(iterations),
      salt: Buffer.from(salt, "base64"),
      hash: Buffer.from(hash, "base64"),
    };
    if (entry.iterations < 1 || entry.hash.length !== 64) {
      throw new SluiceError("SLUICE_PASSWORD_FILE", `${place}: the hash of ${user} is not PBKDF2-SHA512`);
    }
    users.set(user, entry);
  }
  return users;
}
