// The connection of the nats sink: made once, to the first of its servers that takes it; what breaks it ends what waits for it.

import { AsyncLocalStorage } from "node:async_hooks";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import type { Authenticator, NatsConnection, NodeConnectionOptions } from "@nats-io/transport-node";
import { toError } from "../errors.ts";
import { toReason } from "./connection-error.ts";
import { SinkError } from "./sink.ts";
import { readTls, tlsSettings, toTlsHint } from "./tls.ts";
import type { TlsOptions, TlsSettings } from "./tls.ts";

export interface NatsConnectionSettings {
  readonly servers: readonly string[];
  readonly token?: string | undefined;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** Paths of files. */
  readonly nkey?: string | undefined;
  readonly credentials?: string | undefined;
  readonly tls?: TlsSettings | undefined;
  readonly inboxPrefix: string;
}

export interface NatsLink extends AsyncDisposable {
  readonly connection: NatsConnection;
  /** The server that it leads to, as the settings name it. */
  readonly place: string;
  /** Rejects when the connection breaks or the signal aborts, with a sentence for the operator; aborting closes it. */
  during<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

type NodeTlsOptions = NonNullable<NodeConnectionOptions["tls"]>;

const CONNECTS_WITHIN_MS = 5_000;

/** Rejects with a sentence for each server, in the order of the settings, when none takes this client in time. */
export async function connectNats(settings: NatsConnectionSettings, name: string): Promise<NatsLink> {
  const { connect } = await import("@nats-io/transport-node");
  const authenticator = await readAuthenticator(settings);
  const failures: Error[] = [];
  for (const place of settings.servers) {
    const tls = await readTlsOf(place, settings.tls);
    const options: NodeConnectionOptions = {
      servers: [place],
      name: `sluice-${name}`,
      ...(authenticator !== undefined && { authenticator }),
      ...(tls !== undefined && { tls: toLibraryTls(tls, place) }),
      inboxPrefix: settings.inboxPrefix,
      timeout: CONNECTS_WITHIN_MS,
      reconnect: false,
      ignoreClusterUpdates: true,
      noAsyncTraces: true,
    };
    try {
      return createLink(await closingWhatFails(() => connect(options)), place, settings);
    } catch (cause) {
      failures.push(explain(place, settings, cause));
    }
  }
  throw toOne(failures);
}

/** tls:// wants TLS, and so does the setting; a server that wants it of nats:// is given it by the library. */
async function readTlsOf(place: string, tls: TlsSettings | undefined): Promise<TlsOptions | undefined> {
  if (tls === undefined && !place.startsWith("tls:")) return undefined;
  return await readTls(tls ?? tlsSettings.parse({}));
}

/** Its types know texts only. It asks the certificate for the name localhost when the host is an address and not given. */
const toLibraryTls = (tls: TlsOptions, place: string): NodeTlsOptions =>
  ({ ...tls, host: new URL(place).hostname.replaceAll(/[[\]]/g, "") }) as object;

async function readAuthenticator(settings: NatsConnectionSettings): Promise<Authenticator | undefined> {
  const { token, username, password, nkey, credentials } = settings;
  const nats = await import("@nats-io/transport-node");
  if (credentials !== undefined) {
    const made = nats.credsAuthenticator(await readSecret("credentials", credentials));
    return check(made, `credentials is no file of credentials as nsc writes them: ${credentials}.`);
  }
  if (nkey !== undefined) {
    const seed = (await readSecret("nkey", nkey)).toString().trim();
    return check(nats.nkeyAuthenticator(Buffer.from(seed)), `nkey is no file with the seed of an NKey alone: ${nkey}.`);
  }
  if (token !== undefined) return nats.tokenAuthenticator(token);
  return username === undefined ? undefined : nats.usernamePasswordAuthenticator(username, password);
}

async function readSecret(setting: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new SinkError("misconfigured", `${setting} cannot be read: ${toError(cause).message}.`, { cause });
  }
}

/** Signs something, so that a file which is none is told as such, whatever the servers do. */
function check(authenticator: Authenticator, problem: string): Authenticator {
  try {
    authenticator("nonce");
  } catch {
    // Without the cause: it may have the secret in it.
    throw new SinkError("misconfigured", problem);
  }
  return authenticator;
}

/** The library leaves its socket open when a server takes the connection and then says nothing. */
async function closingWhatFails<T>(connect: () => Promise<T>): Promise<T> {
  const own = new AsyncLocalStorage<true>();
  const sockets: Socket[] = [];
  const onSocket = (message: unknown): void => {
    if (own.getStore() === true) sockets.push((message as { readonly socket: Socket }).socket);
  };
  subscribe("net.client.socket", onSocket);
  try {
    return await own.run(true, connect);
  } catch (cause) {
    for (const socket of sockets) socket.destroy();
    throw cause;
  } finally {
    unsubscribe("net.client.socket", onSocket);
  }
}

function createLink(connection: NatsConnection, place: string, settings: NatsConnectionSettings): NatsLink {
  // Whatever waits for an answer rejects with it.
  const abandon = (): void => void connection.close();
  return {
    connection,
    place,
    async during(signal, work) {
      signal.addEventListener("abort", abandon, { once: true });
      try {
        return await work();
      } catch (cause) {
        if (signal.aborted) throw toEnd(place, signal);
        // An answer that does not come only says that the connection is gone; why, the connection knows.
        throw explain(place, settings, connection.isClosed() ? ((await connection.closed()) ?? cause) : cause);
      } finally {
        signal.removeEventListener("abort", abandon);
      }
    },
    [Symbol.asyncDispose]: () => connection.close(),
  };
}

function toEnd(place: string, { reason }: AbortSignal): Error {
  const error = toError(reason);
  return error.name === "TimeoutError" ? new Error(`${place}: it does not answer in time.`, { cause: reason }) : error;
}

function toOne(failures: readonly Error[]): Error {
  const [first, ...others] = failures;
  if (first !== undefined && others.length === 0) return first;
  const isHopeless = failures.every((error) => error instanceof SinkError && error.kind === "misconfigured");
  const message = failures.map((error) => error.message).join(" ");
  return new SinkError(isHopeless ? "misconfigured" : "transient", message, { cause: new AggregateError(failures) });
}

/** A sentence for the operator, of what the library or JetStream says; a SinkError has it already. */
function explain(place: string, settings: NatsConnectionSettings, cause: unknown): Error {
  if (cause instanceof SinkError) return cause;
  const origin = toOrigin(toError(cause));
  const message = `${place}: ${toReason(origin)}.`;
  const hint = toHint(origin, settings) ?? toTlsHint(origin);
  if (hint !== undefined) return new SinkError("misconfigured", `${message} ${hint}`, { cause });
  return new Error([message, toTransientHint(origin)].filter(Boolean).join(" "), { cause });
}

/** The library wraps what has happened once or twice; only of JetStream being off its own error says more. */
export const toOrigin = (error: Error): Error =>
  error.cause instanceof Error && error.name !== "JetStreamNotEnabled" ? toOrigin(error.cause) : error;

/** What only a person can mend. The classes of the library are told by their names, so that it is loaded when it is used. */
function toHint(error: Error, { inboxPrefix }: NatsConnectionSettings): string | undefined {
  const { operation, subject, status } = error as {
    readonly operation?: unknown;
    readonly subject?: unknown;
    readonly status?: unknown;
  };
  switch (error.name) {
    case "AuthorizationError":
      return /timeout/i.test(error.message)
        ? undefined
        : "It refuses these credentials: check token, username and password, nkey or credentials.";
    case "UserAuthenticationExpiredError":
      return "The credentials have expired: renew the file and give it as credentials.";
    case "PermissionViolationError":
      return operation === "publish"
        ? `The user must be allowed to publish to ${String(subject)}.`
        : `The user must be allowed to subscribe to ${inboxPrefix}.>: allow it, or set inboxPrefix.`;
    case "ConnectionError":
      return /support 'tls'/.test(error.message) ? "The server speaks no TLS on this port." : undefined;
    case "JetStreamNotEnabled":
      return "Enable it in the server's configuration, for the account of this user.";
    case "JetStreamApiError":
      return typeof status === "number" && status < 500
        ? "Change the stream, or the settings stream and create."
        : undefined;
    default:
      return undefined;
  }
}

/** Errors of JetStream that pass when an operator or a consumer makes room, and a request that nobody answers. */
function toTransientHint({ name, message }: Error): string | undefined {
  if (/maximum (?:messages|bytes)/.test(message)) {
    return "The stream is full and discards what is new: raise its limits, or let consumers take from it.";
  }
  if (/resources|storage/.test(message)) return "JetStream has no room left: look at its storage and its limits.";
  return name === "TimeoutError" ? "Is it overloaded or without a leader, or has the stream no_ack?" : undefined;
}
