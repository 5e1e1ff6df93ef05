// What tests share: temporary folders and the gateway as a process of its own, both gone when the test ends.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { test as base } from "vitest";

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

/** Starts the gateway and waits until it runs. Rejects with its output when it ends before that. */
export async function startGateway({ dataDir, config, env, mqttPort = 0 }: StartOptions): Promise<GatewayProcess> {
  const args = [join(repository, "bin/sluice.js"), "start"];
  if (config !== undefined) {
    const file = `${dataDir}.config.ts`;
    await writeFile(file, config);
    args.push(file);
  }
  const child = spawn(process.execPath, args, {
    cwd: repository,
    env: {
      ...process.env,
      SLUICE_MQTT_PORT: String(mqttPort),
      SLUICE_HTTP_PORT: "0",
      SLUICE_DATA_DIR: dataDir,
      SLUICE_LOG_LEVEL: "debug",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  return watchGateway(child, dataDir);
}

async function watchGateway(child: ChildProcess, dataDir: string): Promise<GatewayProcess> {
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
  const ended = once(child, "exit").then(([code, signal]) => (code ?? signal) as number | string);
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
    end(signal) {
      child.kill(signal);
      return ended;
    },
  };
}

interface Fixtures {
  /** A folder that is removed after the test. */
  readonly dir: string;
  /** Starts gateways that are killed after the test if they still run. */
  readonly start: (options?: Partial<StartOptions>) => Promise<GatewayProcess>;
  /** Connects MQTT.js clients that are closed after the test. */
  readonly connect: (gateway: { readonly mqttPort: number }, options?: IClientOptions) => Promise<MqttClient>;
}

export const test = base
  .extend("dir", async ({}, { onCleanup }) => {
    const dir = await mkdtemp(join(tmpdir(), "sluice-test-"));
    onCleanup(() => rm(dir, { recursive: true, force: true }));
    return dir;
  })
  .extend("start", async ({ dir }, { onCleanup }): Promise<Fixtures["start"]> => {
    const running: GatewayProcess[] = [];
    onCleanup(async () => {
      for (const gateway of running) await gateway.end("SIGKILL");
    });
    return async (options) => {
      const gateway = await startGateway({ dataDir: join(dir, "data"), ...options });
      running.push(gateway);
      return gateway;
    };
  })
  .extend("connect", async ({}, { onCleanup }): Promise<Fixtures["connect"]> => {
    const clients: MqttClient[] = [];
    onCleanup(async () => {
      for (const client of clients) await client.endAsync(true);
    });
    return async ({ mqttPort }, options) => {
      const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${mqttPort}`, { reconnectPeriod: 0, ...options });
      clients.push(client);
      return client;
    };
  });

/** A valid message of the default stream `climate`. */
export const climate = (seq: number): string =>
  JSON.stringify({ ts: Date.now(), seq, metrics: { temperature: 21.5, humidity: 40 } });
