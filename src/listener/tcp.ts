// MQTT over plain TCP: its settings and its opening.

import { createServer } from "node:net";
import { z } from "zod";
import { toListenError } from "../errors.ts";
import type { Accept, Listener } from "./listener.ts";

/** What a TCP listener in a configuration file may be. */
export const tcpSettings = z.strictObject({
  host: z
    .string()
    .min(1)
    .optional()
    .describe(
      "Address to listen on; by default all addresses with `credentials`. Without them never more than loopback.",
    ),
  port: z.int().min(0).max(65_535).default(1883).describe("Port to listen on; 0 lets the system choose one."),
});

/** A listener in a configuration, not yet validated. */
export interface ListenerDefinition {
  readonly kind: "listener";
  readonly type: "tcp";
  readonly given: unknown;
}

/** MQTT over plain TCP. Does not throw and opens nothing; the loader reports what is wrong. */
export function tcp(given: z.input<typeof tcpSettings> = {}): ListenerDefinition {
  return Object.freeze({ kind: "listener", type: "tcp", given });
}

export interface TcpOptions {
  readonly host: string;
  readonly port: number;
}

/** Connections that the system holds while the event loop is busy: a reconnect storm must not see refusals. */
const BACKLOG = 4096;

/** Opens the port. Rejects with a SluiceError that names host and port. */
export async function openTcp({ host, port }: TcpOptions, accept: Accept): Promise<Listener> {
  const server = createServer({ noDelay: true }, (socket) => {
    accept(socket, { remoteAddress: socket.remoteAddress ?? "unknown", remotePort: socket.remotePort ?? 0 });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => reject(toListenError(`mqtt ${host}:${port}`, cause)));
    server.listen({ host, port, backlog: BACKLOG }, resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("a TCP server has an address with a port");
  return {
    host: address.address,
    port: address.port,
    [Symbol.asyncDispose]() {
      // Resolves at once: accepted connections belong to the broker.
      server.close();
      return Promise.resolve();
    },
  };
}
