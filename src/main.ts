// The process: arguments, signals, exit code. The only file that says `process`.
//
// Exit codes: 0 after an orderly stop; 1 when the gateway could not start or broke; 2 when the configuration or the
// command line is wrong.

import { flushCompileCache } from "node:module";
import { Command, CommanderError } from "commander";
import { type DestinationStream, type Logger, pino, type LoggerOptions } from "pino";
import pretty from "pino-pretty";
import manifest from "../package.json" with { type: "json" };
import { formatProblems, loadConfig } from "./config/load.ts";
import { describeConfig } from "./config/describe.ts";
import type { GatewayConfig } from "./config/schema.ts";
import { SluiceError, toError } from "./errors.ts";
import { type Gateway, openGateway } from "./gateway.ts";
import { addInboxCommands } from "./commands/inbox.ts";
import { addJournalCommands } from "./commands/journal.ts";
import { addReplayCommand } from "./commands/replay.ts";
import type { Shell } from "./commands/shell.ts";
import { addSinkCommands } from "./commands/sinks.ts";

const { version } = manifest;

/** npm and the terminal both deliver one Ctrl-C: what follows within this time is the same signal. */
const SAME_SIGNAL_MS = 500;

// Sinks and DNS share libuv's pool; four hanging file operations must not stop the others.
process.env["UV_THREADPOOL_SIZE"] ??= "16";

const program = new Command("sluice")
  .description("IoT telemetry ingestion gateway: an MQTT broker whose PUBACK means the message is on disk")
  .version(version)
  .showHelpAfterError("(see sluice --help)")
  .exitOverride();

program
  .command("start", { isDefault: true })
  .description("run the gateway")
  .argument("[file]", "configuration file (default: config/gateway.ts)")
  .action(start);

program
  .command("check")
  .description("validate a configuration and print what would run")
  .argument("[file]", "configuration file (default: config/gateway.ts)")
  .action(check);

const shell: Shell = {
  stdout: process.stdout,
  complain: (line) => console.error(line),
  exitWith: (code) => {
    process.exitCode = code;
  },
  exitNow: (code) => process.exit(code),
  terminal: process.stderr.isTTY ? process.stderr : undefined,
  onInterrupt(listener) {
    process.on("SIGINT", listener).on("SIGTERM", listener);
    return { [Symbol.dispose]: () => process.off("SIGINT", listener).off("SIGTERM", listener) };
  },
  load,
};
addJournalCommands(program, shell);
addInboxCommands(program, shell);
addReplayCommand(program, shell);
addSinkCommands(program, shell);

try {
  await program.parseAsync();
} catch (cause) {
  if (cause instanceof CommanderError) process.exitCode = cause.exitCode === 0 ? 0 : 2;
  else fail(cause);
}

async function load(file: string | undefined): Promise<GatewayConfig | undefined> {
  const result = await loadConfig(file, process.env);
  if (result.kind === "loaded") return result.config;
  console.error(formatProblems(result.problems));
  process.exitCode = 2;
  return undefined;
}

async function check(file: string | undefined): Promise<void> {
  const config = await load(file);
  if (config !== undefined) console.log(describeConfig(config));
}

async function start(file: string | undefined): Promise<void> {
  const config = await load(file);
  if (config === undefined) return;
  const { log, flush } = createLogger(config);
  let gateway: Gateway;
  try {
    gateway = await openGateway({ config, log, version });
  } catch (cause) {
    flush();
    fail(cause);
    return;
  }
  for (const { host, port } of gateway.listeners) log.info({ host, port }, `MQTT on ${host}:${port}`);
  const { host, port } = gateway.http;
  log.info({ host, port }, `HTTP on http://${host}:${port} (/livez /readyz /metrics)`);
  log.info({ version, config: config.file, dataDir: config.dataDir, node: process.version }, "sluice is running");
  stopOnSignal(gateway, config, log, flush);
  flushCompileCache(); // now, because a process that is killed does not get to it
}

/** SIGTERM and SIGINT end it in order; a second one, or `shutdownMs`, ends it at once. */
function stopOnSignal(gateway: Gateway, config: GatewayConfig, log: Logger, flush: () => void): void {
  let firstMs = 0;
  const deadline = new AbortController();
  const exit = (code: number): never => {
    flush();
    process.exit(code);
  };
  const onSignal = (signal: NodeJS.Signals): void => {
    const nowMs = performance.now();
    if (firstMs > 0) {
      if (nowMs - firstMs < SAME_SIGNAL_MS) return;
      log.warn({ signal }, "stopping at once; what was acknowledged is on disk");
      exit(1);
    }
    firstMs = nowMs;
    log.info({ signal }, "stopping");
    setTimeout(() => {
      log.warn({ shutdownMs: config.shutdownMs }, "stopping took too long; what was acknowledged is on disk");
      exit(1);
    }, config.shutdownMs).unref();
    setTimeout(() => deadline.abort(), config.shutdownMs * 0.8).unref();
    gateway.stop(deadline.signal).then(
      () => {
        log.info("stopped");
        exit(0);
      },
      (cause: unknown) => {
        log.error({ err: toError(cause) }, "stopping failed; what was acknowledged is on disk");
        exit(1);
      },
    );
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
}

/**
 * JSON lines, or readable ones on a terminal; to standard error when a sink writes readings to standard output. Writing
 * never blocks the event loop, nor the sink: asking for `process.stdout` makes a pipe non-blocking.
 */
function createLogger({ log: { level }, sinks }: GatewayConfig): { readonly log: Logger; readonly flush: () => void } {
  const options: LoggerOptions = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
  const { fd, isTTY } = sinks.some(({ type }) => type === "stdout") ? process.stderr : process.stdout;
  if (isTTY) {
    const stream: DestinationStream = pretty({
      destination: fd,
      ignore: "pid,hostname",
      translateTime: "SYS:HH:MM:ss",
      singleLine: true,
    });
    return { log: pino(options, stream), flush: () => {} };
  }
  const stream = pino.destination({ fd, sync: false });
  return {
    log: pino(options, stream),
    flush: () => {
      try {
        stream.flushSync();
      } catch {
        // The reader of the log is gone.
      }
    },
  };
}

function fail(cause: unknown): void {
  if (cause instanceof SluiceError) console.error(`${cause.code}: ${cause.message}\n${cause.hint}`);
  else console.error(toError(cause).stack);
  process.exitCode = cause instanceof SluiceError && cause.code.startsWith("SLUICE_CONFIG") ? 2 : 1;
}
