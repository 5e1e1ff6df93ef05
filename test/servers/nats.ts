// nats-server from Debian with JetStream, and its store in the server's folder.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startServer, type Server } from "./server.ts";

export interface NatsOptions {
  /** More lines of its configuration, such as "max_payload: 1000". */
  readonly lines?: readonly string[];
  /** false: without JetStream. */
  readonly jetstream?: boolean;
}

export const startNats = ({ lines = [], jetstream = true }: NatsOptions = {}): Promise<Server> =>
  startServer({
    command: "nats-server",
    args: () => ["-c", "nats.conf"],
    async prepare({ dir, port }) {
      const own = [`listen: 127.0.0.1:${port}`, ...(jetstream ? [`jetstream { store_dir: "${dir}" }`] : [])];
      await writeFile(join(dir, "nats.conf"), `${[...own, ...lines].join("\n")}\n`);
    },
  });
