// `npm run demo`: a gateway, fifty devices and a look into the database that fills, in one terminal. The gateway and the
// devices are child processes in process groups of their own, so that Ctrl-C reaches only this one, which ends them in
// order: devices first, then the gateway.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, openSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join, relative, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { openRows, toTable, type Look, type Rows } from "./demo-rows.ts";
import { duration } from "./arguments.ts";
import { toText, type Summary } from "./report/summary.ts";

interface Demo {
  readonly durationMs: number;
  readonly mqttPort: number;
  readonly httpPort: number;
  readonly dataDir: string;
  readonly log: string;
}

const SAME_SIGNAL_MS = 500;
const READY_MS = 20_000;
/** How long the last rows may take from the journal into the database. */
const CATCH_UP_MS = 5000;
const NEWEST = 6;
const TABLE_EVERY = 5;

const launcher = (name: string): string => fileURLToPath(new URL(`../bin/${name}.js`, import.meta.url));
const say = (line = ""): void => void process.stdout.write(`${line}\n`);

/** Resolves to the exit code. */
async function run(demo: Demo): Promise<number> {
  for (const [port, variable] of [
    [demo.mqttPort, "SLUICE_MQTT_PORT"],
    [demo.httpPort, "SLUICE_HTTP_PORT"],
  ] as const) {
    if (!(await isFree(port))) {
      say(`Port ${port} is taken by another program. Choose another one: ${variable}=${port + 1} npm run demo`);
      return 1;
    }
  }
  try {
    mkdirSync(demo.dataDir, { recursive: true });
  } catch (error) {
    say(`The data folder cannot be used: ${String(error)}. Choose another one: SLUICE_DATA_DIR=folder npm run demo`);
    return 1;
  }
  const gateway = startGateway(demo);
  const interrupt = listenForSignals();
  const gone = once(gateway, "exit").then(() => "gone" as const);
  if (!(await isReady(demo, gateway, interrupt.signal))) {
    await stop(gateway, "SIGTERM");
    if (interrupt.signal.aborted) return 0;
    say(`The gateway did not start. It said:\n${logTail(demo.log)}`);
    return 1;
  }
  introduce(demo);
  using rows = openRows(join(demo.dataDir, "telemetry.db"));
  const before = rows.look(1)?.rows ?? 0;
  const devices = startDevices(demo);
  interrupt.add(devices.child, gateway);
  const screen = openScreen(rows, before, devices.status);
  const outcome = await Promise.race([devices.ended, gone, interrupt.aborted]);
  await stop(devices.child, "SIGINT");
  const { summary } = await devices.ended;
  if (summary !== undefined && outcome !== "gone") await caughtUp(rows, before, summary);
  screen[Symbol.dispose]();
  if (summary === undefined && !interrupt.signal.aborted) say("\nThe devices could not connect.");
  if (summary !== undefined) conclude(summary, (rows.look(1)?.rows ?? 0) - before);
  if (outcome !== "gone" && !interrupt.signal.aborted && process.stdout.isTTY) {
    say(`\nThe gateway goes on at mqtt://127.0.0.1:${demo.mqttPort}. Ctrl-C ends it.`);
    using _watching = openScreen(rows, before, () => "");
    await Promise.race([gone, interrupt.aborted]);
  }
  if (isOver(gateway) && !interrupt.signal.aborted) {
    say(`\nThe gateway ended by itself. It said:\n${logTail(demo.log)}`);
    return 1;
  }
  await stop(gateway, "SIGTERM");
  say(`\nThe gateway is stopped; its data is in ${show(demo.dataDir)}.`);
  return summary === undefined && !interrupt.signal.aborted ? 1 : 0;
}

function startGateway({ mqttPort, httpPort, dataDir, log }: Demo): ChildProcess {
  const out = openSync(log, "a");
  return spawn(process.execPath, [launcher("sluice"), "start"], {
    detached: true,
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    stdio: ["ignore", out, out],
    env: {
      ...process.env,
      SLUICE_MQTT_PORT: String(mqttPort),
      SLUICE_HTTP_PORT: String(httpPort),
      SLUICE_DATA_DIR: dataDir,
    },
  });
}

interface Devices {
  readonly child: ChildProcess;
  /** The simulator's last progress line. */
  readonly status: () => string;
  /** Never rejects. `summary` is undefined when the devices could not connect. */
  readonly ended: Promise<{ readonly summary: Summary | undefined }>;
}

function startDevices({ mqttPort, durationMs }: Demo): Devices {
  const fleet = [
    "--devices",
    "50",
    "--rate",
    "1",
    "--invalid",
    "0.02",
    "--ramp",
    "3s",
    "--duration",
    `${durationMs}ms`,
  ];
  const child = spawn(
    process.execPath,
    [launcher("sluice-sim"), "--url", `mqtt://127.0.0.1:${mqttPort}`, "--json", ...fleet],
    { detached: true, stdio: ["ignore", "pipe", "pipe"] },
  );
  let status = "";
  child.stderr.on("data", (chunk) => {
    status = String(chunk).trim().split("\n").at(-1)?.trim() ?? status;
  });
  const ended = Promise.all([text(child.stdout), once(child, "exit")]).then(([json]) => ({
    summary: json === "" ? undefined : (JSON.parse(json) as Summary),
  }));
  return { child, status: () => status, ended };
}

/** Waits until /readyz answers 200; false when the gateway ended, was interrupted, or took too long. */
async function isReady({ httpPort }: Demo, gateway: ChildProcess, signal: AbortSignal): Promise<boolean> {
  const deadlineMs = performance.now() + READY_MS;
  while (!isOver(gateway) && !signal.aborted && performance.now() < deadlineMs) {
    const answer = await fetch(`http://127.0.0.1:${httpPort}/readyz`).catch(() => undefined);
    if (answer?.status === 200) return true;
    await sleep(100);
  }
  return false;
}

function introduce({ mqttPort, httpPort, dataDir, log, durationMs }: Demo): void {
  const subscribe = `mosquitto_sub -h 127.0.0.1 -p ${mqttPort} -v -t`;
  const hints: readonly (readonly [command: string, shows: string])[] = [
    [`${subscribe} 'sluice/rejected/#'`, "what is wrong with the spoilt ones"],
    [`${subscribe} 'devices/+/telemetry'`, "the readings as they arrive"],
    [`curl http://127.0.0.1:${httpPort}/metrics`, "what Prometheus sees"],
    [`sqlite3 -readonly ${show(join(dataDir, "telemetry.db"))} 'SELECT * FROM readings LIMIT 5'`, "the rows"],
  ];
  const width = Math.max(...hints.map(([command]) => command.length));
  say(`Sluice is ready at mqtt://127.0.0.1:${mqttPort}; its log is ${show(log)}.`);
  say(`50 devices connect and send a reading a second for ${durationMs / 1000} s; 2 % are spoilt on purpose.`);
  say("\nMeanwhile, in another terminal:");
  for (const [command, shows] of hints) say(`  ${command.padEnd(width)}   ${shows}`);
  say();
}

/** Shows rows and devices once a second: redrawn in place on a terminal, else a line, and the table now and then and last. */
function openScreen(rows: Rows, before: number, status: () => string): Disposable {
  let drawn = 0;
  let ticks = 0;
  const draw = (last = false): void => {
    const look: Look = rows.look(NEWEST) ?? { rows: 0, newest: [] };
    const head = `${look.rows - before} new rows of ${look.rows}   ${status()}`.trimEnd();
    ticks += 1;
    if (!process.stdout.isTTY) {
      say(last || ticks % TABLE_EVERY === 0 ? [head, ...toTable(look.newest)].join("\n") : head);
      return;
    }
    const lines = [head, "", ...toTable(look.newest)].map((line) => line.slice(0, process.stdout.columns - 1));
    const up = drawn === 0 ? "" : `\u001B[${drawn}A`;
    process.stdout.write(`${up}${lines.map((line) => `\u001B[2K${line}\n`).join("")}`);
    drawn = lines.length;
  };
  const timer = setInterval(draw, 1000);
  return {
    [Symbol.dispose]: () => {
      clearInterval(timer);
      draw(true);
    },
  };
}

function conclude(summary: Summary, added: number): void {
  say(`\n${toText(summary).trimEnd()}`);
  const { acknowledged, invalidSent } = summary;
  say(`${"in the end".padEnd(14)}${acknowledged} acknowledged, ${added} rows, ${invalidSent} rejected`);
}

/** Waits until the database has every good message that was acknowledged. */
async function caughtUp(rows: Rows, before: number, { acknowledged, invalidSent }: Summary): Promise<void> {
  const deadlineMs = performance.now() + CATCH_UP_MS;
  while ((rows.look(1)?.rows ?? 0) - before < acknowledged - invalidSent && performance.now() < deadlineMs) {
    await sleep(100);
  }
}

interface Interrupt {
  readonly signal: AbortSignal;
  /** Resolves with the first Ctrl-C. */
  readonly aborted: Promise<"interrupted">;
  /** Children to kill with the second one. */
  add(...children: readonly ChildProcess[]): void;
}

function listenForSignals(): Interrupt {
  const controller = new AbortController();
  const { promise: aborted, resolve: abort } = Promise.withResolvers<"interrupted">();
  const children: ChildProcess[] = [];
  let firstMs: number | undefined;
  const onSignal = (): void => {
    const nowMs = performance.now();
    if (firstMs === undefined) {
      firstMs = nowMs;
      controller.abort();
      abort("interrupted");
    } else if (nowMs - firstMs > SAME_SIGNAL_MS) {
      for (const child of children) child.kill("SIGKILL");
      process.exit(130);
    }
  };
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, onSignal);
  return { signal: controller.signal, aborted, add: (...more) => void children.push(...more) };
}

const isOver = ({ exitCode, signalCode }: ChildProcess): boolean => exitCode !== null || signalCode !== null;

/** Sends the signal and waits for the end. */
async function stop(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (isOver(child)) return;
  const exit = once(child, "exit");
  child.kill(signal);
  await exit;
}

function isFree(port: number): Promise<boolean> {
  const { promise, resolve: answer } = Promise.withResolvers<boolean>();
  const server = createServer();
  server.on("error", () => answer(false));
  server.listen(port, "127.0.0.1", () => server.close(() => answer(true)));
  return promise;
}

/** The port in an environment variable; anything else than a port ends the demo with a sentence. */
function portOf(variable: string, fallback: number): number {
  const port = Number(process.env[variable] ?? fallback);
  if (Number.isInteger(port) && port > 0 && port < 65_536) return port;
  return program.error(`error: ${variable} is '${process.env[variable]}': expected a port from 1 to 65535`, {
    exitCode: 2,
  });
}

const logTail = (log: string): string => readFileSync(log, "utf8").trimEnd().split("\n").slice(-8).join("\n");

/** The shorter way to say a path, from where the command was started. */
function show(path: string): string {
  const near = relative(process.cwd(), path);
  return near.startsWith("..") ? path : near;
}

const sleep = (ms: number): Promise<void> =>
  new Promise((wake) => {
    setTimeout(wake, ms);
  });

const program = new Command("demo")
  .description("A gateway, fifty devices, and the rows that arrive.")
  .option("--duration <time>", "how long the devices send, e.g. 30s or 5m", duration, 60_000)
  .parse();
const dataDir = resolve(process.env["SLUICE_DATA_DIR"] ?? "data");
process.exitCode = await run({
  durationMs: program.opts<{ readonly duration: number }>().duration,
  mqttPort: portOf("SLUICE_MQTT_PORT", 1883),
  httpPort: portOf("SLUICE_HTTP_PORT", 8080),
  dataDir,
  log: join(dataDir, "demo-gateway.log"),
});
