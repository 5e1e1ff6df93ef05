// The connection of the mqtt sink: made once, never again; what breaks it ends what waits for it.

import type { IClientOptions, MqttClient } from "mqtt";
import { toError } from "../errors.ts";
import { toReason } from "./connection-error.ts";
import { SinkError } from "./sink.ts";
import type { SinkContext } from "./sink.ts";
import { toTlsHint } from "./tls.ts";
import type { TlsOptions } from "./tls.ts";

export interface MqttConnectionSettings {
  readonly url: string;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly clientId?: string | undefined;
  readonly qos: 0 | 1 | 2;
  readonly retain: boolean;
  readonly protocolVersion: 4 | 5;
}

export interface MqttConnection extends AsyncDisposable {
  readonly client: MqttClient;
  /** What the broker has said that it takes. */
  readonly limits: { readonly receiveMaximum: number; readonly packetBytes: number };
  /** Rejects when the connection breaks or the signal aborts. After a rejection of any kind the connection is gone. */
  during<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

interface ConnectOptions {
  /** For a url with TLS. */
  readonly tls: TlsOptions | undefined;
  readonly context: SinkContext;
  readonly signal?: AbortSignal | undefined;
}

const CONNECTS_WITHIN_MS = 10_000;
/** For the last bytes, when the connection is closed. */
const CLOSES_WITHIN_MS = 1_000;

/** Rejects with a sentence that names the broker when it cannot be reached in time, or does not take this client. */
export async function connectMqtt(
  settings: MqttConnectionSettings,
  { tls, context, signal }: ConnectOptions,
): Promise<MqttConnection> {
  const { connect } = await import("mqtt");
  const { protocol, host, pathname } = new URL(settings.url);
  // Without its query, which may hold a token.
  const place = `${protocol}//${host}${pathname}`;
  const client = connect(toClientOptions(settings, tls, context));
  const during = watch(client, place);
  const connected = Promise.withResolvers<void>();
  client.once("connect", () => connected.resolve());
  const late = AbortSignal.timeout(CONNECTS_WITHIN_MS);
  await during(signal === undefined ? late : AbortSignal.any([signal, late]), async () => {
    await connected.promise;
    const missing = findMissing(settings, client.serverProperties ?? {});
    if (missing !== undefined) throw new SinkError("misconfigured", `${place}: ${missing}`);
  });
  const { receiveMaximum = 65_535, maximumPacketSize = Infinity } = client.serverProperties ?? {};
  return {
    client,
    limits: { receiveMaximum, packetBytes: maximumPacketSize },
    during,
    [Symbol.asyncDispose]: () => close(client),
  };
}

function toClientOptions(
  { url, username, password, clientId, protocolVersion }: MqttConnectionSettings,
  tls: TlsOptions | undefined,
  { gateway, name }: SinkContext,
): IClientOptions {
  const { protocol, hostname, port, pathname, search } = new URL(url);
  const host = hostname.replaceAll(/[[\]]/g, "");
  const isWebSocket = protocol.startsWith("ws");
  return {
    protocol: protocol.slice(0, -1) as "mqtt" | "mqtts" | "ws" | "wss",
    // A URL is made of it again for WebSocket.
    host: isWebSocket ? hostname : host,
    ...(port !== "" && { port: Number(port) }),
    ...(isWebSocket && { path: `${pathname}${search}` }),
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    ...(tls as IClientOptions | undefined),
    clientId: clientId ?? `sluice-${name}-${gateway.slice(0, 8)}`,
    protocolVersion,
    clean: true,
    reconnectPeriod: 0,
    resubscribe: false,
    queueQoSZero: false,
    connectTimeout: CONNECTS_WITHIN_MS,
    timerVariant: "native",
  };
}

/** Of a CONNACK of MQTT 5, section 3.2.2.3. */
function findMissing(
  { qos, retain }: MqttConnectionSettings,
  { maximumQoS = 2, retainAvailable = true }: NonNullable<MqttClient["serverProperties"]>,
): string | undefined {
  if (qos > maximumQoS) return `The broker takes QoS ${maximumQoS} at most: set qos to it.`;
  return retain && !retainAvailable ? "The broker keeps no retained messages: set retain to false." : undefined;
}

function watch(client: MqttClient, place: string): MqttConnection["during"] {
  let broken: Error | undefined;
  let tell: ((error: Error) => void) | undefined;

  function abandon(error: Error): void {
    if (broken !== undefined) return;
    broken = error;
    tell?.(error);
    client.end(true);
  }
  client.on("error", (error) => abandon(explainReason(place, error)));
  client.on("disconnect", ({ reasonCode = 0 }) => {
    const code = `0x${reasonCode.toString(16)}`;
    abandon(
      explainReason(
        place,
        Object.assign(new Error(`it ended the connection, reason code ${code}`), { code: reasonCode }),
      ),
    );
  });
  client.on("close", () => abandon(new Error(`${place}: the connection was closed by the other side.`)));

  return async (signal, work) => {
    if (broken !== undefined) throw broken;
    const failed = Promise.withResolvers<never>();
    tell = failed.reject;
    const onAbort = (): void => abandon(toEnd(place, signal));
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([work(), failed.promise]);
    } catch (cause) {
      abandon(explainReason(place, cause));
      throw broken;
    } finally {
      signal.removeEventListener("abort", onAbort);
      tell = undefined;
    }
  };
}

function toEnd(place: string, { reason }: AbortSignal): Error {
  const error = toError(reason);
  if (error.name !== "TimeoutError") return error;
  return new Error(`${place}: it does not answer within ${CONNECTS_WITHIN_MS / 1_000} s.`, { cause: reason });
}

/** DISCONNECT goes out behind what was published with QoS 0; a broker that does not answer is not waited for. */
async function close(client: MqttClient): Promise<void> {
  if (!client.connected) return;
  const closed = Promise.withResolvers<void>();
  client.end(false, {}, () => closed.resolve());
  const timer = setTimeout(() => client.stream.destroy(), CLOSES_WITHIN_MS);
  await closed.promise;
  clearTimeout(timer);
}

/** What only a person can mend: reason codes of MQTT 5 (section 2.4), and return codes of a CONNACK of 3.1.1 (below 6). */
const hints: Readonly<Record<number, string>> = {
  1: "It does not speak this version of MQTT: set protocolVersion to the other.",
  2: "It does not take this client id: set clientId.",
  4: "It refuses these credentials: check username and password.",
  5: "It refuses this client: check username and password, and what it may do.",
  0x84: "It does not speak this version of MQTT: set protocolVersion to the other.",
  0x85: "It does not take this client id: set clientId.",
  0x86: "It refuses these credentials: check username and password.",
  0x87: "It refuses this client or one of its topics: check username and password, and what it may publish.",
  0x8a: "It has banned this client.",
  0x8c: "It wants another kind of authentication than a password.",
  0x9a: "It keeps no retained messages: set retain to false.",
  0x9b: "It does not take this QoS: set a lower qos.",
  0x9c: "It wants another server to be used: change the url.",
  0x9d: "It has moved: change the url.",
};

const transientHints: Readonly<Record<number, string>> = {
  0x8e: "Another client uses the same client id: give each its own.",
  0x93: "It takes fewer messages at a time than it has said.",
};

/** A sentence for the operator, of an error with an MQTT reason code or of the socket. */
function explainReason(place: string, cause: unknown): Error {
  if (cause instanceof SinkError) return cause;
  const { code } = toError(cause) as { readonly code?: unknown };
  const find = (table: typeof hints): string | undefined => (typeof code === "number" ? table[code] : undefined);
  const message = `${place}: ${toReason(cause)}.`;
  const hint = find(hints) ?? toTlsHint(cause);
  if (hint !== undefined) return new SinkError("misconfigured", `${message} ${hint}`, { cause });
  return new Error([message, find(transientHints)].filter(Boolean).join(" "), { cause });
}
