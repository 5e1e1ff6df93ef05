// Who the devices are: numbered ones whose user name and password follow a template, or those of a CSV file.
//
//   device,username,password        the header; `device` is needed, the columns come in any order
//   pump-1,plant-a,"s,e""cret"      quotes as in RFC 4180, but no line break within them

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { InvalidArgumentError } from "commander";

/** One device, as it says who it is. */
export interface Identity {
  /** MQTT client identifier, and what `{device}` stands for. */
  readonly device: string;
  readonly username?: string;
  readonly password?: string;
}

export interface IdentityOptions {
  readonly idPrefix: string;
  /** Templates: `{device}` stands for the device's id. */
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** The absolute path of the CSV file that says who the devices are. */
  readonly credentials: string | undefined;
}

export interface CredentialsFile {
  readonly path: string;
  readonly identities: readonly Identity[];
}

/** The identity of device number `index`. Throws when the file of credentials is wrong. */
export function createIdentities(options: IdentityOptions): (index: number) => Identity {
  const { idPrefix, username, password } = options;
  const listed = options.credentials === undefined ? undefined : readIdentities(options.credentials);
  return (index) => {
    const { device, ...own } = listed?.[index] ?? { device: `${idPrefix}${String(index + 1).padStart(6, "0")}` };
    return {
      device,
      ...(username !== undefined && { username: username.replaceAll("{device}", device) }),
      ...(password !== undefined && { password: password.replaceAll("{device}", device) }),
      ...own,
    };
  };
}

/** The value of `--credentials`. */
export function credentials(text: string): CredentialsFile {
  const path = resolve(text);
  try {
    return { path, identities: readIdentities(path) };
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
  }
}

const COLUMNS = ["device", "username", "password"] as const;
const HEADER = `expected a header with the columns ${COLUMNS.join(", ")}`;

/** Throws with the line's number when the file is wrong. A field that is empty counts as not given. */
function readIdentities(path: string): readonly Identity[] {
  const lines = readFileSync(path, "utf8")
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/);
  const columns = toFields(lines[0] ?? "") ?? [];
  if (!columns.includes("device")) throw new Error(`line 1: ${HEADER}; device is missing.`);
  const unknown = columns.find((name) => !COLUMNS.some((known) => known === name));
  if (unknown !== undefined) throw new Error(`line 1: ${HEADER}; '${unknown}' is none of them.`);
  const lineOf = new Map<string, number>();
  const identities: Identity[] = [];
  for (const [at, line] of lines.entries()) {
    if (at === 0 || line === "") continue;
    const identity = toIdentity(columns, line);
    const earlier = typeof identity === "string" ? undefined : lineOf.get(identity.device);
    if (typeof identity === "string") throw new Error(`line ${at + 1}: ${identity}`);
    if (earlier !== undefined)
      throw new Error(`line ${at + 1}: device '${identity.device}' is that of line ${earlier}.`);
    lineOf.set(identity.device, at + 1);
    identities.push(identity);
  }
  if (identities.length === 0) throw new Error(`${path} has no device below its header.`);
  return identities;
}

/** A text says what is wrong, without what may be secret. */
function toIdentity(columns: readonly string[], line: string): Identity | string {
  const fields = toFields(line);
  if (fields === undefined) return 'a quoted field does not end: a quote in a field is written "".';
  if (fields.length !== columns.length) return `expected ${columns.length} fields, found ${fields.length}.`;
  const given = Object.fromEntries(columns.flatMap((name, at) => (fields[at] === "" ? [] : [[name, fields[at]]])));
  const { device = "" } = given as Partial<Identity>;
  if (device === "") return "the device has no id.";
  if (/[+#\0]/.test(device))
    return `device '${device}': an id that becomes part of a topic has no + and # [MQTT-3.3.2-2].`;
  return given as unknown as Identity;
}

/** Undefined when a quoted field does not end. */
function toFields(line: string): readonly string[] | undefined {
  const fields: string[] = [];
  const field = /(?:"((?:[^"]|"")*)"|([^",]*))(,|$)/y;
  for (;;) {
    const found = field.exec(line);
    if (found === null) return undefined;
    fields.push(found[1]?.replaceAll('""', '"') ?? found[2] ?? "");
    if (found[3] === "") return fields;
  }
}
