// HTTP for operators, on loopback: /livez, /readyz, /metrics. It has no authentication, so it is never opened elsewhere.

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { toError, toListenError } from "../errors.ts";
import { type HealthSources, readHealth } from "./health.ts";

export interface AdminOptions {
  readonly host: string;
  readonly port: number;
  readonly health: HealthSources;
  readonly metrics: { readonly contentType: string; render(): Promise<string> };
  /** For `/`: the current state as JSON. */
  readonly status: () => unknown;
}

export interface AdminServer extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/** Rejects with a SluiceError when the port cannot be opened. */
export async function openAdminServer(options: AdminOptions): Promise<AdminServer> {
  const server = createServer((request, response) => {
    answer(request, options).then(
      (result) => send(request, response, result),
      (cause: unknown) =>
        send(request, response, { status: 500, type: "text/plain", body: `${toError(cause).message}\n` }),
    );
  });
  server.requestTimeout = 10_000;
  server.headersTimeout = 5_000;
  server.maxConnections = 100;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      reject(toListenError(`http ${options.host}:${options.port}`, cause));
    });
    server.listen(options.port, options.host, resolve);
  });
  const { address, port } = server.address() as AddressInfo;
  return {
    host: address,
    port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}

async function answer(request: IncomingMessage, { health, metrics, status }: AdminOptions): Promise<Answer> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    return { status: 405, type: "text/plain", body: "only GET and HEAD\n" };
  }
  const [path = "/"] = (request.url ?? "/").split("?", 1);
  switch (path) {
    case "/livez":
    case "/readyz": {
      const { live, ready, reasons } = readHealth(health);
      const well = path === "/livez" ? live : ready;
      return { status: well ? 200 : 503, type: "text/plain", body: well ? "ok\n" : `${reasons.join("\n")}\n` };
    }
    case "/metrics":
      return { status: 200, type: metrics.contentType, body: await metrics.render() };
    case "/":
      return { status: 200, type: "application/json", body: `${JSON.stringify(status(), null, 2)}\n` };
    default:
      return { status: 404, type: "text/plain", body: "not found; there are /livez, /readyz, /metrics and /\n" };
  }
}

function send(request: IncomingMessage, response: ServerResponse, { status, type, body }: Answer): void {
  response.writeHead(status, {
    "content-type": type,
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  });
  response.end(request.method === "HEAD" ? undefined : body);
}
