// Mosquitto from Debian with one listener, and the log on stderr.

import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { startServer, type Server } from "./server.ts";

const run = promisify(execFile);

export interface MosquittoOptions {
  /** More lines of its configuration, such as "max_packet_size 1000". Relative paths are in its folder. */
  readonly lines?: readonly string[];
  /** Files in its folder, by their names. */
  readonly files?: Readonly<Record<string, string>>;
  /** Passwords by user name; nobody else may connect then. */
  readonly users?: Readonly<Record<string, string>>;
}

export const startMosquitto = ({ lines = [], files = {}, users }: MosquittoOptions = {}): Promise<Server> =>
  startServer({
    command: "mosquitto",
    args: () => ["-c", "mosquitto.conf"],
    async prepare({ dir, port }) {
      for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
      const who = users === undefined ? ["allow_anonymous true"] : ["password_file passwords"];
      await writeFile(join(dir, "passwords"), "");
      for (const [user, password] of Object.entries(users ?? {})) {
        await run("mosquitto_passwd", ["-b", join(dir, "passwords"), user, password]);
      }
      const all = [
        `listener ${port} 127.0.0.1`,
        "user root",
        "log_dest stderr",
        "set_tcp_nodelay true",
        ...who,
        ...lines,
      ];
      await writeFile(join(dir, "mosquitto.conf"), `${all.join("\n")}\n`);
    },
  });
