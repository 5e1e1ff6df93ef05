// An HTTP server that remembers which readings it was sent. It runs in this process, and to be killed is to lose its port and all
// connections; what it has taken it keeps.

import { once } from "node:events";
import { createServer, type IncomingMessage, type Server as HttpServer, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import { findPort, type Server } from "../servers/server.ts";

export interface ReadingServer extends AsyncDisposable, Pick<Server, "port" | "start" | "stop" | "freeze" | "thaw"> {
  /** By offset: how often it was taken. */
  readonly taken: ReadonlyMap<number, number>;
}

/** It takes lines of JSON without compression. */
export async function startReadingServer(): Promise<ReadingServer> {
  const port = await findPort();
  const taken = new Map<number, number>();
  let server: HttpServer | undefined;
  let thawed: PromiseWithResolvers<void> | undefined;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request);
    await thawed?.promise;
    if (request.socket.destroyed) return;
    for (const line of body.split("\n").filter(Boolean)) {
      const { offset } = JSON.parse(line) as { readonly offset: number };
      taken.set(offset, (taken.get(offset) ?? 0) + 1);
    }
    response.writeHead(204).end();
  }
  async function start(): Promise<void> {
    server = createServer((request, response) => {
      answer(request, response).catch(() => request.socket.destroy());
    });
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
  }
  async function stop(): Promise<void> {
    const ending = server;
    server = undefined;
    thaw();
    if (ending === undefined) return;
    const closed = once(ending, "close");
    ending.close();
    ending.closeAllConnections();
    await closed;
  }
  function thaw(): void {
    thawed?.resolve();
    thawed = undefined;
  }
  await start();
  return {
    port,
    taken,
    start,
    stop,
    freeze() {
      thawed ??= Promise.withResolvers();
    },
    thaw,
    [Symbol.asyncDispose]: stop,
  };
}
