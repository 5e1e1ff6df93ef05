// An HTTP server in this process: it keeps what it is sent, and answers as a test tells it, or not at all.

import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingHttpHeaders, IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { ServerOptions } from "node:https";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { gunzipSync } from "node:zlib";

export interface ReceivedRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  /** Decompressed. */
  readonly body: string;
  /** Each connection has another number. */
  readonly connection: number;
}

/** What a test does with a request instead of taking it; `body` is read by `read` only. */
export type Answer = (response: ServerResponse, request: IncomingMessage) => void;

export interface Receiver extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  /** All requests that were read to their end and answered, in order. */
  readonly requests: readonly ReceivedRequest[];
  /** Bodies of the requests that were taken, each Idempotency-Key once. */
  readonly taken: ReadonlyMap<string, string>;
  /** Each is for one request, in order; then requests are taken again and answered with 204. */
  answer(...answers: readonly Answer[]): void;
  /** For every request from now on; undefined: they are taken again. */
  answerAll(answer: Answer | undefined): void;
  /** Closes kept connections that have no request. */
  closeIdle(): void;
  /** Resolves with the next request that has come, before it is answered. */
  next(): Promise<void>;
}

/** An answer of this status after the whole request was read. */
export const status =
  (code: number, body = "", headers: Readonly<Record<string, string>> = {}): Answer =>
  (response) =>
    void response.writeHead(code, headers).end(body);

/** Starts one, over TLS when it is given certificates. */
export async function startReceiver(tls?: ServerOptions): Promise<Receiver> {
  const requests: ReceivedRequest[] = [];
  const taken = new Map<string, string>();
  const answers: Answer[] = [];
  const connections = new WeakMap<object, number>();
  let connected = 0;
  let standing: Answer | undefined;
  let arrived = Promise.withResolvers<void>();

  const listener: RequestListener = (request, response) => {
    void receive(request, response).catch(() => {});
  };
  async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const answer = answers.shift() ?? standing;
    const early = answer !== undefined && answer.length > 1;
    const raw = early ? Buffer.alloc(0) : await buffer(request);
    const body = (request.headers["content-encoding"] === "gzip" && !early ? gunzipSync(raw) : raw).toString();
    const { method = "", url: path = "", headers, socket } = request;
    requests.push({ method, path, headers, body, connection: connections.get(socket) ?? 0 });
    arrived.resolve();
    arrived = Promise.withResolvers();
    if (answer !== undefined) return answer(response, request);
    const key = headers["idempotency-key"];
    taken.set(typeof key === "string" ? key : String(taken.size), body);
    response.writeHead(204).end();
  }

  const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  server.keepAliveTimeout = 0;
  server.on(tls === undefined ? "connection" : "secureConnection", (socket: object) => {
    connected += 1;
    connections.set(socket, connected);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    port,
    url: `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}`,
    requests,
    taken,
    answer: (...given) => void answers.push(...given),
    answerAll(answer) {
      standing = answer;
    },
    closeIdle: () => server.closeIdleConnections(),
    next: () => arrived.promise,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
