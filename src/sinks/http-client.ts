// A client for sinks that write over HTTP: one connection that is kept open, a bounded answer, and sentences that name the
// server when there is none. Over node:http and not fetch, which would decode what a server says, and buffer it, unasked.

import { Agent as HttpAgent, request as httpRequest, validateHeaderName, validateHeaderValue } from "node:http";
import type { ClientRequest, IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { z } from "zod";
import { toError } from "../errors.ts";
import { toReason } from "./connection-error.ts";
import { SinkError } from "./sink.ts";
import { readTls, tlsSettings, toTlsHint } from "./tls.ts";

/** Without user and password, which have settings of their own; what a query has is never told. */
export const urlSetting = z
  .url({ protocol: /^https?$/, error: "must be http:// or https:// with a host" })
  .refine((text) => URL.parse(text)?.username === "" && URL.parse(text)?.password === "", {
    message: "must be without user and password: give them as username and password",
  });

/** What the client says of each body itself, and what would break the connection. */
const ownHeaders = new Set([
  "connection",
  "content-encoding",
  "content-length",
  "expect",
  "host",
  "idempotency-key",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** Keys of a sink's settings, beside its url. */
export const clientSettings = {
  token: z
    .string()
    .regex(/^[\x21-\x7e]+$/, "must be visible ASCII characters")
    .optional()
    .describe("A bearer token for the Authorization header; none when left out."),
  username: z
    .string()
    .regex(/^[^:]+$/, "must be without a colon")
    .optional()
    .describe("The user of basic authentication; none when left out."),
  password: z.string().min(1).optional().describe("The password of the user."),
  headers: z
    .record(z.string(), z.string())
    .refine((headers) => Object.entries(headers).every(isHeader), {
      message: "has a name or a value that HTTP does not allow, or a name that this sink writes itself",
    })
    .default({})
    .describe("Further headers by name. What they say is never told."),
  tls: tlsSettings.optional().describe("For https://: certificates."),
  gzip: z.boolean().default(true).describe("true: bodies are compressed."),
};

type ClientSettings = z.output<z.ZodObject<typeof clientSettings>> & { readonly url: string };

function isHeader([name, value]: readonly [string, string]): boolean {
  try {
    validateHeaderName(name);
    validateHeaderValue(name, value);
  } catch {
    return false;
  }
  return !ownHeaders.has(name.toLowerCase());
}

/** For `refine`: at most one way to say who it is, and all of it. */
export const hasOneIdentity = ({ token, username, password, headers }: Partial<ClientSettings>): boolean =>
  (username === undefined) === (password === undefined) &&
  Object.keys(headers ?? {}).filter((name) => name.toLowerCase() === "authorization").length +
    Number(token !== undefined) +
    Number(username !== undefined) <=
    1;

export const oneIdentity = "expected token, or username and password together, or a header Authorization";

interface HttpRequest {
  readonly method: "POST" | "PUT";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Not yet compressed. */
  readonly body: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly statusText: string;
  readonly headers: IncomingMessage["headers"];
  /** The first 64 KiB, without the client's own secrets. */
  readonly body: string;
}

export interface HttpClient extends AsyncDisposable {
  /** The server as messages name it: no query, no secret. */
  readonly place: string;
  /**
   * Resolves with whatever it answers. Rejects with a SinkError or the signal's reason when there is no whole answer; then
   * the connection is gone. A kept connection that the server was just closing is replaced by a new one, once. A server
   * that has taken no compressed body yet, and refuses one with 400 or 415, is given it once more as it is: it would
   * otherwise refuse all readings for what is no fault of theirs.
   */
  send(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer>;
}

export interface HttpClientOptions extends ClientSettings {
  /** What stands before the token. */
  readonly scheme?: "Bearer" | "Token";
}

/** Reads the certificates; connects with the first request. */
export async function openHttpClient(options: HttpClientOptions): Promise<HttpClient> {
  const { origin, pathname, protocol } = new URL(options.url);
  const place = `${origin}${pathname}`;
  const keep = { keepAlive: true, maxSockets: 1 };
  const agent =
    protocol === "https:"
      ? new HttpsAgent({ ...keep, ...(await readTls(options.tls ?? tlsSettings.parse({}))) })
      : new HttpAgent(keep);
  const closing = new AbortController();
  const send = createSend(options, { place, agent });
  /** The server has taken a compressed body. */
  let isProven = false;
  return {
    place,
    async send(request, given) {
      const signal = AbortSignal.any([given, closing.signal]);
      signal.throwIfAborted();
      const answer = await send(request, options.gzip, signal);
      isProven ||= options.gzip && isTaken(answer);
      if (!options.gzip || isProven || (answer.status !== 400 && answer.status !== 415)) return answer;
      const plain = await send(request, false, signal);
      if (!isTaken(plain)) return plain;
      const hint = "It takes the same body when it is not compressed: set gzip to false.";
      throw new SinkError("misconfigured", `${place}: ${answer.status} ${answer.statusText}. ${hint}`);
    },
    [Symbol.asyncDispose]() {
      closing.abort(new SinkError("transient", `${place}: the connection has been closed.`));
      agent.destroy();
      return Promise.resolve();
    },
  };
}

type Send = (request: HttpRequest, compressed: boolean, signal: AbortSignal) => Promise<HttpAnswer>;

function createSend(
  options: HttpClientOptions,
  { place, agent }: { readonly place: string; readonly agent: HttpAgent },
): Send {
  const authorization = toAuthorization(options);
  const own = { ...options.headers, ...(authorization !== undefined && { authorization }) };
  const hide = createVeil([options.token, options.password, ...Object.values(own)]);
  return async ({ body, ...request }, compressed, signal) => {
    const bytes = compressed ? await compress(body) : Buffer.from(body);
    signal.throwIfAborted();
    const headers = {
      "user-agent": "sluice",
      ...request.headers,
      ...own,
      "content-length": bytes.length,
      ...(compressed && { "content-encoding": "gzip" }),
    };
    try {
      const answer = await exchange({ ...request, headers, agent, signal }, bytes);
      return { ...answer, body: hide(answer.body) };
    } catch (cause) {
      throw signal.aborted ? toError(signal.reason) : explain(place, cause);
    }
  };
}

const isTaken = ({ status }: HttpAnswer): boolean => status >= 200 && status < 300;

/** The fastest level: telemetry in JSON becomes about a tenth with any. */
const compress = (body: string): Promise<Buffer> => promisify(gzip)(body, { level: 1 });

function toAuthorization({ token, scheme = "Bearer", username, password }: HttpClientOptions): string | undefined {
  if (token !== undefined) return `${scheme} ${token}`;
  if (username === undefined) return undefined;
  return `Basic ${Buffer.from(`${username}:${password ?? ""}`).toString("base64")}`;
}

/** A server may repeat what it was given in what it says, and that comes into the log. */
function createVeil(secrets: readonly (string | undefined)[]): (text: string) => string {
  const parts = secrets.flatMap((secret = "") => [secret, secret.slice(secret.indexOf(" ") + 1)]);
  const worth = parts.filter((part) => part.length >= 4).toSorted((a, b) => b.length - a.length);
  return (text) => worth.reduce((veiled, part) => veiled.replaceAll(part, "…"), text);
}

interface Exchange {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string | number>>;
  readonly agent: HttpAgent;
  readonly signal: AbortSignal;
}

async function exchange(options: Exchange, bytes: Buffer): Promise<HttpAnswer> {
  const first = start(options, bytes);
  try {
    return await first.answer;
  } catch (cause) {
    // RFC 9112, section 9.3.1: a kept connection may be closed just when it is used again.
    const { code } = toError(cause) as NodeJS.ErrnoException;
    if (!first.request.reusedSocket || (code !== "ECONNRESET" && code !== "EPIPE")) throw cause;
    return await start(options, bytes).answer;
  }
}

function start(
  { url, ...options }: Exchange,
  bytes: Buffer,
): { readonly request: ClientRequest; readonly answer: Promise<HttpAnswer> } {
  const request = (url.protocol === "https:" ? httpsRequest : httpRequest)(url, options);
  const answer = new Promise<HttpAnswer>((resolve, reject) => {
    request.on("response", (response) => void receive(response).then(resolve, reject));
    request.on("error", reject);
  });
  request.end(bytes);
  return { request, answer };
}

const ANSWER_BYTES = 64 * 1024;

/** An answer that goes on and on is cut, and its connection with it: what it says of the request is in its status. */
async function receive(response: IncomingMessage): Promise<HttpAnswer> {
  const { statusCode: status = 0, statusMessage: statusText = "", headers } = response;
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES) break;
  }
  return { status, statusText, headers, body: Buffer.concat(chunks).toString("utf8", 0, ANSWER_BYTES) };
}

/** Of Node's parser, which has other codes for an answer that is cut. */
const notHttp = /^HPE_INVALID_(?:CONSTANT|VERSION)$/;

function explain(place: string, cause: unknown): SinkError {
  const message = `${place}: ${toReason(cause)}.`;
  const { code } = toError(cause) as NodeJS.ErrnoException;
  const hint = toTlsHint(cause) ?? (notHttp.test(code ?? "") ? "It does not speak HTTP there." : undefined);
  if (hint !== undefined) return new SinkError("misconfigured", `${message} ${hint}`, { cause });
  return new SinkError("transient", message, { cause });
}
