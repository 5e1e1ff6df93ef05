// The options of the command line about the broker, the way to it, and who the devices are.

import { resolve } from "node:path";
import { Option } from "commander";
import { url } from "../arguments.ts";
import { addresses, type AddressRange } from "./addresses.ts";
import { checkCertificates, type TlsOptions } from "./certificates.ts";
import type { BrokerOptions } from "./dialer.ts";
import { createIdentities, credentials, type CredentialsFile, type IdentityOptions } from "./identities.ts";

export interface ConnectionOptions extends BrokerOptions, IdentityOptions {
  readonly devices: number;
}

/** What commander makes of the options below. */
export interface RawConnection {
  readonly url: URL;
  readonly iOwnThisBroker?: true;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
  readonly insecure?: true;
  readonly source?: readonly AddressRange[];
  readonly idPrefix: string;
  readonly username?: string;
  readonly password?: string;
  readonly credentials?: CredentialsFile;
}

export const connectionOptions = (): readonly Option[] => [
  new Option("--url <url>", "broker to connect to: mqtt, mqtts, ws or wss")
    .argParser(url)
    .default(new URL("mqtt://127.0.0.1:1883"), "mqtt://127.0.0.1:1883"),
  new Option("--i-own-this-broker", "allow a broker that is not on this machine"),
  new Option("--ca <file>", "trust these authorities (PEM) in place of the system's").argParser(path),
  new Option("--cert <file>", "certificate of the devices (PEM); {device} is the device's id").argParser(path),
  new Option("--key <file>", "key of that certificate; {device} is the device's id").argParser(path),
  new Option("--servername <name>", "name that the broker's certificate is to have, if not the host of the URL"),
  new Option("--insecure", "do not check the certificate of a broker on this machine"),
  new Option(
    "--source <addresses>",
    "addresses of this machine that devices come from, in turn: a list, a range or a network",
  ).argParser(addresses),
  new Option("--id-prefix <text>", "device ids are this and a number from 000001").default("sim-"),
  new Option("--username <name>", "user name; {device} is the device's id"),
  new Option("--password <password>", "password; {device} is the device's id"),
  new Option("--credentials <file>", "CSV with the header device,username,password: these are the devices")
    .argParser(credentials)
    .conflicts("idPrefix"),
];

/** A text says what is wrong. `devices` is how many are asked for. */
export function toConnectionOptions(raw: RawConnection, devices: number | undefined): ConnectionOptions | string {
  const host = raw.url.hostname.replace(/^\[(.*)\]$/, "$1");
  const options: ConnectionOptions = {
    transport: raw.url.protocol.slice(0, -1) as BrokerOptions["transport"],
    host,
    port: raw.url.port === "" ? (defaultPorts[raw.url.protocol] ?? 1883) : Number(raw.url.port),
    path: `${raw.url.pathname}${raw.url.search}`,
    tls: toTlsOptions(raw),
    sources: raw.source ?? [],
    devices: devices ?? raw.credentials?.identities.length ?? 100,
    idPrefix: raw.idPrefix,
    username: raw.username,
    password: raw.password,
    credentials: raw.credentials?.path,
  };
  return problemOf(raw, options) ?? options;
}

/** 80 and 443 are those of URLs. */
const defaultPorts: Readonly<Record<string, number>> = { "mqtt:": 1883, "mqtts:": 8883, "ws:": 80, "wss:": 443 };

const toTlsOptions = ({
  url: { protocol },
  ca,
  cert,
  key,
  servername,
  insecure,
}: RawConnection): TlsOptions | undefined =>
  protocol === "mqtts:" || protocol === "wss:"
    ? { ca, cert, key, servername, isVerified: insecure !== true }
    : undefined;

function problemOf(raw: RawConnection, options: ConnectionOptions): string | undefined {
  const { host, tls, devices } = options;
  if (!isLoopback(host) && raw.iOwnThisBroker !== true) {
    return `option '--url': '${host}' is not this machine. A simulated fleet is a load test: add --i-own-this-broker if the broker is yours to load.`;
  }
  if (!isLoopback(host) && raw.insecure === true) {
    return `option '--insecure' is for a broker on this machine only: give what '${host}' is to be trusted by with --ca`;
  }
  const ofTls = (["ca", "cert", "key", "servername", "insecure"] as const).find((name) => raw[name] !== undefined);
  if (tls === undefined && ofTls !== undefined) return `option '--${ofTls}' needs '--url' with mqtts:// or wss://`;
  if ((raw.cert === undefined) !== (raw.key === undefined)) return "options '--cert' and '--key' need each other";
  const listed = raw.credentials?.identities ?? [];
  const nameless = listed.find(({ username, password }) => password !== undefined && username === undefined);
  if (raw.username === undefined && nameless !== undefined) {
    return `option '--credentials': device '${nameless.device}' has a password and no user name [MQTT-3.1.2-22]`;
  }
  if (
    raw.password !== undefined &&
    raw.username === undefined &&
    listed.every(({ username }) => username === undefined)
  ) {
    return "option '--password' needs '--username' [MQTT-3.1.2-22]";
  }
  if (raw.credentials !== undefined && devices > listed.length) {
    return `option '--devices': ${raw.credentials.path} has ${listed.length} devices, not ${devices}`;
  }
  return tls === undefined ? undefined : problemOfCertificates(tls, options);
}

/** A wrong file is told before anything begins. */
function problemOfCertificates(tls: TlsOptions, options: ConnectionOptions): string | undefined {
  const identityOf = createIdentities(options);
  const devices = Array.from({ length: options.devices }, (_, index) => identityOf(index).device);
  try {
    checkCertificates(tls, devices);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const path = (text: string): string => resolve(text);

/** `localhost`, 127.0.0.0/8 and ::1. */
const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
