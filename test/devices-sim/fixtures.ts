import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { Aedes } from "aedes";
import { parseOptions, type SimOptions } from "../../devices-sim/options.ts";

const launcher = fileURLToPath(new URL("../../bin/sluice-sim.js", import.meta.url));

/** The simulator as a process of its own. */
export function spawnSim(...args: readonly string[]) {
  const child = spawn(process.execPath, [launcher, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const result = Promise.all([text(child.stdout), text(child.stderr), once(child, "exit")]).then(
    ([stdout, stderr, [code]]) => ({ stdout, stderr, code: code as number | null }),
  );
  return { child, result };
}

/** The options of a command line, for a broker on this port. */
export function options(port: number, ...args: readonly string[]): SimOptions {
  const parsed = parseOptions(["--url", `mqtt://127.0.0.1:${port}`, ...args]);
  if (parsed.kind !== "run") throw new Error(parsed.text);
  return parsed.sim;
}

export interface Arrival {
  readonly clientId: string;
  readonly topic: string;
  readonly payload: string;
}

export interface TestBroker extends AsyncDisposable {
  readonly port: number;
  readonly aedes: Aedes;
  /** Every PUBLISH of a client, in order of arrival. */
  readonly arrivals: readonly Arrival[];
  /** Cuts all connections; clients may come back. */
  cut(): void;
}

/** An Aedes broker in this process. */
export async function openBroker(): Promise<TestBroker> {
  const aedes = await Aedes.createBroker();
  const arrivals: Arrival[] = [];
  aedes.on("publish", (packet, client) => {
    if (client) arrivals.push({ clientId: client.id, topic: packet.topic, payload: packet.payload.toString() });
  });
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    aedes.handle(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    aedes,
    arrivals,
    cut: () => {
      for (const socket of sockets) socket.destroy();
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await new Promise<void>((resolve) => {
        aedes.close(() => resolve());
      });
    },
  };
}

/** A loopback port that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
