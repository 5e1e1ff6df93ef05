// MQTT over plain TCP: its settings and its opening.

import { createServer, Socket } from "node:net";
import { z } from "zod";
import { toListenError } from "../errors.ts";
import { type Accept, forwardData, type Incoming, type Listener } from "./listener.ts";

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
  // All sockets are read into this, one after the other: a chunk is used up before the next one is read.
  const memory = Buffer.allocUnsafeSlow(READ_BYTES);
  const server = createServer({ noDelay: true, pauseOnConnect: true }, (accepted) => {
    const { socket, incoming } = shareReads(accepted, memory);
    const { remoteAddress = "unknown", remotePort = 0 } = socket;
    accept(socket, { remoteAddress, remotePort, incoming });
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

/** What one read of a socket takes at most. */
const READ_BYTES = 65_536;

interface Source {
  readonly socket: Socket;
  readonly incoming: Incoming;
}

/** What Node does not declare: a server's socket and what the system knows of it. */
interface SocketInside {
  _handle: object | null;
}

/**
 * The same connection as a socket that reads into `memory` (`onread`), which Node offers for outgoing connections only. For each
 * read that leaves out an allocation of 64 KiB, an ArrayBuffer and the stream's own queue: about 4 µs, a fifth of what a
 * message costs that comes alone (`npm run bench -- sparse`). Where Node's inside is another one, the socket stays as it is.
 */
function shareReads(accepted: Socket, memory: Buffer): Source {
  const inside = accepted as unknown as SocketInside;
  const handle = inside._handle;
  if (handle === null || !("useUserBuffer" in handle)) return { socket: accepted, incoming: forwardData(accepted) };
  inside._handle = null; // what is left of it is garbage
  const incoming: Incoming = { onBytes: () => {} };
  const options = {
    handle,
    pauseOnCreate: true,
    onread: {
      buffer: memory,
      callback: (bytes: number) => {
        incoming.onBytes(memory.subarray(0, bytes));
        return true;
      },
    },
  };
  return { socket: new Socket(options as object), incoming };
}
