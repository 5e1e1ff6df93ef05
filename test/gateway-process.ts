// The gateway as a process of its own: how tests and the torture runner start it, read its log and end it.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { env as environment, execPath } from "node:process";
import { createInterface } from "node:readline";

const repository = join(import.meta.dirname, "..");

/** One line of the gateway's log. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly msg?: string };

export interface GatewayProcess {
  readonly pid: number;
  readonly mqttPort: number;
  readonly httpPort: number;
  readonly dataDir: string;
  readonly log: readonly LogLine[];
  /** Resolves with the first line, also one that was written already, for which `matches` is true. */
  waitForLog(matches: (line: LogLine) => boolean): Promise<LogLine>;
  fetch(path: string): Promise<{ readonly status: number; readonly text: string }>;
  /** Sends the signal and resolves with the exit code, or the signal's name when it ended the process. */
  end(signal: NodeJS.Signals): Promise<number | string>;
  readonly ended: Promise<number | string>;
}

export interface StartOptions {
  readonly dataDir: string;
  /** Text of a configuration file; without it the default one runs. */
  readonly config?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly mqttPort?: number;
}

/** A gateway that may not run yet. */
export interface LaunchedGateway {
  /** Rejects with its output when it ends before it runs. */
  readonly running: Promise<GatewayProcess>;
  readonly end: GatewayProcess["end"];
}

/** Starts the gateway and waits until it runs. */
export async function startGateway(options: StartOptions): Promise<GatewayProcess> {
  return (await launchGateway(options)).running;
}

export async function launchGateway({ dataDir, config, env, mqttPort = 0 }: StartOptions): Promise<LaunchedGateway> {
  const args = [join(repository, "bin/sluice.js"), "start"];
  if (config !== undefined) {
    const file = `${dataDir}.config.ts`;
    await writeFile(file, config);
    args.push(file);
  }
  const child = spawn(execPath, args, {
    cwd: repository,
    env: {
      ...environment,
      SLUICE_MQTT_PORT: String(mqttPort),
      SLUICE_HTTP_PORT: "0",
      SLUICE_DATA_DIR: dataDir,
      SLUICE_LOG_LEVEL: "debug",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = once(child, "exit").then(([code, signal]) => (code ?? signal) as number | string);
  const end = (signal: NodeJS.Signals): Promise<number | string> => {
    child.kill(signal);
    return ended;
  };
  const running = watchGateway(child, { dataDir, ended, end });
  running.catch(() => {}); // whoever ends it while it starts may not look
  return { running, end };
}

async function watchGateway(
  child: ChildProcess,
  { dataDir, ended, end }: Pick<GatewayProcess, "dataDir" | "ended" | "end">,
): Promise<GatewayProcess> {
  const log: LogLine[] = [];
  const waiting = new Set<() => void>();
  let stderr = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  if (child.stdout === null) throw new TypeError("the gateway's output is a pipe");
  createInterface({ input: child.stdout }).on("line", (line) => {
    log.push(line.startsWith("{") ? (JSON.parse(line) as LogLine) : { msg: line });
    for (const check of waiting) check();
  });
  const waitForLog = (matches: (line: LogLine) => boolean): Promise<LogLine> =>
    new Promise((resolve, reject) => {
      let seen = 0;
      const check = (): void => {
        const found = log.slice(seen).find(matches);
        seen = log.length;
        if (found === undefined) return;
        waiting.delete(check);
        resolve(found);
      };
      waiting.add(check);
      check();
      void ended.then((code) => {
        reject(
          new Error(`the gateway ended (${code}) before the line came\n${stderr}\n${JSON.stringify(log.slice(-5))}`),
        );
      });
    });
  await waitForLog(({ msg }) => msg === "sluice is running");
  const portOf = (prefix: string): number => {
    const line = log.find(({ msg }) => msg?.startsWith(prefix) === true);
    return Number(line?.["port"]);
  };
  const httpPort = portOf("HTTP on");
  return {
    pid: child.pid ?? 0,
    mqttPort: portOf("MQTT on"),
    httpPort,
    dataDir,
    log,
    waitForLog,
    ended,
    async fetch(path) {
      const response = await fetch(`http://127.0.0.1:${httpPort}${path}`);
      return { status: response.status, text: await response.text() };
    },
    end,
  };
}
