// Redis from Debian, without a configuration file; with an append-only file that is synced before each answer, so that also a
// crash keeps everything: with the default of each second, an answer may be ahead of the file while a sync is under way.

import { once } from "node:events";
import { connect } from "node:net";
import type { Certificates } from "./certificates.ts";
import { startServer, type Server } from "./server.ts";

/** With `tls` it speaks nothing else, and wants a certificate of the client. */
export const startRedis = (tls?: Certificates): Promise<Server> =>
  startServer({
    command: "redis-server",
    args: ({ dir, port }) => {
      const kept = ["--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", ""];
      const files = ["--bind", "127.0.0.1", "--databases", "1000", ...kept];
      if (tls === undefined) return [...files, "--port", String(port)];
      const own = ["--tls-cert-file", tls.server.cert, "--tls-key-file", tls.server.key];
      return [...files, "--port", "0", "--tls-port", String(port), ...own, "--tls-ca-cert-file", tls.ca];
    },
    ...(tls === undefined && { probe: ({ port }) => ping(port) }),
  });

/** A server that still reads its files answers LOADING. */
async function ping(port: number): Promise<void> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    socket.write("PING\r\n");
    const [answer] = (await once(socket, "data")) as [Buffer];
    if (answer.toString().startsWith("-LOADING")) throw new Error(answer.toString());
  } finally {
    socket.destroy();
  }
}
