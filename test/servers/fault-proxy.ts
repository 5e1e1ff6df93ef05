// A proxy between a sink and its server that hangs, resets, slows down, cuts answers short or is not there, as a test says.

import { once } from "node:events";
import { createServer, Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { unreachable } from "../../src/errors.ts";
import { findPort } from "./server.ts";

/**
 * none: bytes pass. hang: connections and bytes are taken, and nothing passes in either direction. reset: connections are
 * reset, also each new one. slow: so many bytes a second pass in each direction of a connection. cut: a connection is reset
 * behind so many bytes of its requests or of its answers, counted from now on. refused: nobody listens.
 */
export type Fault =
  | { readonly kind: "none" | "hang" | "reset" | "refused" }
  | { readonly kind: "slow"; readonly bytesPerSecond: number }
  | { readonly kind: "cut"; readonly requestBytes?: number; readonly answerBytes?: number };

export interface FaultProxy extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** Connections of clients that are open now. */
  readonly connections: number;
  /** All that there ever were. */
  readonly accepted: number;
  /**
   * Holds for the connections that are open and for new ones, until the next call. A connection that a hang has taken bytes
   * from cannot go on: it is reset then.
   */
  set(fault: Fault): Promise<void>;
  /** Resolves when a client has sent something, whether it passes or not. */
  nextRequest(): Promise<void>;
  /** Resolves when no client is connected. */
  idle(): Promise<void>;
}

interface Link {
  readonly client: Socket;
  readonly server: Socket;
  /** Since the fault was set. */
  passed: { request: number; answer: number };
  hasLost: boolean;
}

const host = "127.0.0.1";
/** Of slow: how often bytes pass. */
const TICK_MS = 20;

/** Listens on a port of its own; the server need not run. */
export async function openFaultProxy(target: { readonly host: string; readonly port: number }): Promise<FaultProxy> {
  const links = new Set<Link>();
  let fault: Fault = { kind: "none" };
  let accepted = 0;
  let nextRequest = Promise.withResolvers<void>();
  let idle = Promise.withResolvers<void>();
  const listener = createServer({ allowHalfOpen: true, noDelay: true }, accept);

  function accept(client: Socket): void {
    accepted += 1;
    const server = new Socket({ allowHalfOpen: true });
    const link: Link = { client, server, passed: { request: 0, answer: 0 }, hasLost: false };
    links.add(link);
    client.on("close", () => {
      links.delete(link);
      if (links.size === 0) idle.resolve();
    });
    if (fault.kind === "reset") return breakLink(link);
    server.setNoDelay(true).connect(target.port, target.host);
    for (const socket of [client, server]) socket.on("error", () => breakLink(link));
    void pump(link, client, server);
    void pump(link, server, client);
  }

  /** One direction of a connection, in order; it reads no further while bytes wait. */
  async function pump(link: Link, from: Socket, to: Socket): Promise<void> {
    try {
      for await (const chunk of from) {
        const passed = pass(link, chunk as Buffer, to);
        if (from === link.client) tellRequest();
        await passed;
      }
      if (link.hasLost || fault.kind === "hang") breakLink(link);
      else to.end();
    } catch {
      breakLink(link);
    }
  }

  function tellRequest(): void {
    nextRequest.resolve();
    nextRequest = Promise.withResolvers();
  }

  async function pass(link: Link, chunk: Buffer, to: Socket): Promise<void> {
    for (let at = 0; at < chunk.length;) {
      const rest = chunk.subarray(at);
      const now = fault;
      switch (now.kind) {
        case "none":
          return write(to, rest);
        case "hang":
          link.hasLost = true;
          return;
        case "slow": {
          await delay(TICK_MS);
          const piece = rest.subarray(0, Math.max(1, Math.floor((now.bytesPerSecond * TICK_MS) / 1_000)));
          at += piece.length;
          await write(to, piece);
          break;
        }
        case "cut": {
          const direction = to === link.client ? "answer" : "request";
          const most = now[`${direction}Bytes`] ?? Number.POSITIVE_INFINITY;
          const piece = rest.subarray(0, most - link.passed[direction]);
          link.passed[direction] += piece.length;
          await write(to, piece);
          if (piece.length === rest.length) return;
          return breakLink(link);
        }
        case "reset":
        case "refused":
          return breakLink(link);
        default:
          return unreachable(now);
      }
    }
  }

  const isBreaking = (): boolean => fault.kind === "reset" || fault.kind === "refused";

  async function set(next: Fault): Promise<void> {
    fault = next;
    for (const link of links) {
      link.passed = { request: 0, answer: 0 };
      if (isBreaking() || (link.hasLost && next.kind !== "hang")) breakLink(link);
    }
    if (next.kind === "refused") await close();
    else if (!listener.listening) await listen();
  }

  // Not one of those that the system gives to clients: a client that knocks while nobody listens would find itself.
  const port = await findPort();

  async function listen(): Promise<void> {
    listener.listen(port, host);
    await once(listener, "listening");
  }

  async function close(): Promise<void> {
    if (!listener.listening) return;
    for (const link of links) breakLink(link);
    listener.close();
    await once(listener, "close");
  }

  await listen();
  return {
    host,
    port,
    get connections() {
      return links.size;
    },
    get accepted() {
      return accepted;
    },
    set,
    nextRequest: () => nextRequest.promise,
    async idle() {
      idle = Promise.withResolvers();
      if (links.size > 0) await idle.promise;
    },
    [Symbol.asyncDispose]: close,
  };
}

/** The client sees a reset, not an end. */
function breakLink({ client, server }: Link): void {
  client.resetAndDestroy();
  server.destroy();
}

/** Resolves when the system has taken them. */
function write(to: Socket, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    to.write(bytes, (error) => (error === null || error === undefined ? resolve() : reject(error)));
  });
}
