// Redis from Debian, without a configuration file; with an append-only file, so that a restart keeps what it had.

import { startServer, type Server } from "./server.ts";

export const startRedis = (): Promise<Server> =>
  startServer({
    command: "redis-server",
    args: ({ dir, port }) => ["--port", String(port), "--bind", "127.0.0.1", "--dir", dir, "--appendonly", "yes"],
  });
