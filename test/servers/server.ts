// A real server that a test starts, stops, freezes and starts again on the same port, with its data in a folder of its own.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { env, kill } from "node:process";
import { setTimeout } from "node:timers/promises";

export interface Server extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** Its data; deleted with the server. */
  readonly dir: string;
  /** Resolves when it answers. On the same port, with the data that it had. */
  start(): Promise<void>;
  /** Resolves when it has ended: SIGTERM for an orderly end, SIGKILL for a crash. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  /** SIGSTOP, and it has come: it takes connections and bytes, and answers nothing. */
  freeze(): void;
  /** SIGCONT. */
  thaw(): void;
}

export interface ServerProgram {
  /** The program; a path, or a name on the PATH. */
  readonly command: string;
  readonly args: (place: { readonly dir: string; readonly port: number }) => readonly string[];
  /** Once, before the first start. */
  readonly prepare?: (place: { readonly dir: string; readonly port: number }) => Promise<void>;
  /** Resolves when it answers and rejects when it does not yet; by default a connection is enough. */
  readonly probe?: (place: { readonly dir: string; readonly port: number }) => Promise<void>;
  readonly user?: { readonly uid: number; readonly gid: number };
}

const host = "127.0.0.1";
const startsWithinMs = 30_000;
const stopsWithinMs = 5_000;

/** False on a laptop without it, which skips; in CI it is a failure of the test that needs it. */
export const isInstalled = (command: string): boolean =>
  env["CI"] !== undefined || spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;

/** Starts it; the caller disposes it. */
export async function startServer(program: ServerProgram): Promise<Server> {
  const dir = await mkdtemp(join(tmpdir(), "sluice-server-"));
  const place = { dir, port: await findPort() };
  await program.prepare?.(place);
  let child: ChildProcess | undefined;
  let output = "";

  async function start(): Promise<void> {
    output = "";
    const started = spawn(program.command, program.args(place), {
      cwd: dir,
      stdio: ["ignore", "pipe", "pipe"],
      ...program.user,
    });
    child = started;
    for (const stream of [started.stdout, started.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        output = (output + text).slice(-4_000);
      });
    }
    let failed: Error | undefined;
    started.on("error", (error) => {
      failed = error;
    });
    const probe = program.probe ?? (({ port }) => probePort(port));
    const deadline = performance.now() + startsWithinMs;
    for (;;) {
      const answered = await probe(place).then(
        () => true,
        () => false,
      );
      if (answered) return;
      if (failed !== undefined || started.exitCode !== null || performance.now() > deadline) {
        await stop("SIGKILL");
        throw new Error(`${program.command} does not answer on port ${place.port}: ${failed?.message ?? output}`);
      }
      await setTimeout(20);
    }
  }

  async function stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const ending = child;
    child = undefined;
    if (ending?.pid === undefined || ending.exitCode !== null || ending.signalCode !== null) return;
    const ended = once(ending, "exit");
    if (signal === "SIGKILL") signalAll(ending, signal);
    else ending.kill(signal);
    signalAll(ending, "SIGCONT");
    await ended;
  }

  await start();
  return {
    host,
    ...place,
    start,
    stop,
    freeze() {
      const stopped = signalAll(child, "SIGSTOP");
      const deadline = performance.now() + stopsWithinMs;
      while (!stopped.every(isStopped) && performance.now() < deadline);
    },
    thaw: () => void signalAll(child, "SIGCONT"),
    async [Symbol.asyncDispose]() {
      await stop("SIGKILL");
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** To the process and those that it has started, such as one for each connection; all of them are returned. */
function signalAll(child: ChildProcess | undefined, signal: NodeJS.Signals): readonly number[] {
  if (child?.pid === undefined) return [];
  const descendants = [...listDescendants(child.pid)];
  child.kill(signal);
  for (const pid of descendants) {
    try {
      kill(pid, signal);
    } catch {
      // It has ended meanwhile.
    }
  }
  return [child.pid, ...descendants];
}

/** Each of its threads is stopped, or has ended: a signal takes its time on a busy machine. */
function isStopped(pid: number): boolean {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    return threads.every((thread) => /\) [TXZ] /.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, "latin1")));
  } catch {
    // A thread or all of it has just ended, or the system tells nothing.
    return !existsSync(`/proc/${pid}/task`);
  }
}

function* listDescendants(pid: number): Generator<number> {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean);
    for (const child of children.map(Number)) {
      yield child;
      yield* listDescendants(child);
    }
  } catch {
    // It has ended, or the system tells nothing: then it is the process alone.
  }
}

/**
 * A free port outside the range from which the system takes the ports of clients: a client that knocks at a port of that
 * range again and again, while nobody listens there, is one day given the same port and connected to itself.
 */
export async function findPort(): Promise<number> {
  for (;;) {
    const server = createServer().listen(10_000 + Math.floor(Math.random() * 20_000), host);
    try {
      await once(server, "listening");
    } catch {
      continue;
    }
    const address = server.address();
    server.close();
    await once(server, "close");
    if (typeof address === "object" && address !== null) return address.port;
  }
}

async function probePort(port: number): Promise<void> {
  const socket = connect(port, host);
  try {
    await once(socket, "connect");
  } finally {
    socket.destroy();
  }
}
