// The command line: every option with its unit, default and bound. Bad input is a value that names the option.

import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { Command, CommanderError, Option } from "commander";
import { duration, instant, integer, number, profile, topic } from "./arguments.ts";
import {
  connectionOptions,
  toConnectionOptions,
  type ConnectionOptions,
  type RawConnection,
} from "./connection/options.ts";
import { faultHelp, faultOptions, toFaultSettings, type RawFaults } from "./faults/options.ts";
import { payloadNames, payloads, type PayloadName } from "./payloads/built-in.ts";
import { isSparkplugTopic } from "./payloads/sparkplug-b.ts";
import { profileNames } from "./profiles/built-in.ts";
import type { Phase } from "./scenarios/scenario.ts";
import { TARGETS, targets, verifyWait, type Target } from "./verify/target.ts";

/** What a fleet does. Plain data: it crosses to the worker threads. */
export interface SimOptions extends ConnectionOptions {
  /** Messages per second of one device; undefined: as its profile has it. */
  readonly ratePerDevice: number | undefined;
  /** Each interval varies by up to this share of itself. */
  readonly jitter: number;
  /** The first connection is opened at 0, the last just before this. */
  readonly rampMs: number;
  /** From the start of the ramp to the last message; undefined: until `count`. */
  readonly durationMs: number | undefined;
  /** Messages per device; undefined: until `durationMs`. */
  readonly count: number | undefined;
  readonly qos: 0 | 1 | 2;
  /** 4 is MQTT 3.1.1. */
  readonly protocolVersion: 4 | 5;
  readonly clean: boolean;
  /** What goes wrong on purpose, and when; one at least. */
  readonly phases: readonly Phase[];
  /** The name of a built-in profile, or the absolute path of a file. */
  readonly profile: string;
  readonly payload: PayloadName;
  /** `{device}` stands for the device's id. */
  readonly topic: string;
  readonly threads: number;
  readonly seed: number;
  /** What the devices' clocks show when the run starts, in Unix milliseconds; undefined: this machine's time. */
  readonly clockMs: number | undefined;
  /** Messages of one device that may wait for an acknowledgement; readings beyond it are skipped. */
  readonly maxInFlight: number;
  readonly keepaliveSeconds: number;
  readonly connectTimeoutMs: number;
  /** Mean delay before a device connects again. */
  readonly reconnectMs: number;
  /** When no device has been connected by then, the broker counts as unreachable. */
  readonly giveUpMs: number;
  /** How long to wait at the end for outstanding acknowledgements. */
  readonly drainMs: number;
  /** The folder where each thread writes what it sends and is told. */
  readonly ledger: string | undefined;
  /** The ledger has what is seen on `sluice/rejected/#`. */
  readonly watchRejected: boolean;
}

/** How the command reports. */
export interface OutputOptions {
  /** Where the summary goes as JSON: a file's path, or true for standard output. */
  readonly json: string | true | undefined;
  readonly quiet: boolean;
  /** The file for the page with charts. */
  readonly html?: string | undefined;
  /** Of the endpoint for Prometheus; 0: any free one. */
  readonly metricsPort?: number | undefined;
}

/** Where to look, after the run, for what was acknowledged. */
export interface VerifyOptions {
  readonly targets: readonly Target[];
  /** A sink that brings nothing new for so long has brought everything. */
  readonly waitMs: number;
}

export type Parsed =
  | { readonly kind: "run"; readonly sim: SimOptions; readonly output: OutputOptions; readonly verify: VerifyOptions }
  /** The command line asked for help, or is wrong: nothing to run. Exit code 2 means wrong. */
  | { readonly kind: "told"; readonly exitCode: 0 | 2; readonly text: string };

/** The arguments after the program's name. */
export function parseOptions(args: readonly string[]): Parsed {
  let text = "";
  const write = (part: string): void => {
    text += part;
  };
  const command = createCommand();
  for (const one of faultOptions()) command.addOption(one);
  command.exitOverride().configureOutput({ writeOut: write, writeErr: write });
  try {
    command.parse(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return { kind: "told", exitCode: error.exitCode === 0 ? 0 : 2, text };
  }
  return toParsed(command.opts());
}

/** What commander makes of the definitions below. */
interface Raw extends RawConnection, RawFaults {
  readonly devices?: number;
  readonly rate?: number;
  readonly totalRate?: number;
  readonly jitter: number;
  readonly ramp: number;
  readonly duration?: number;
  readonly count?: number;
  readonly qos?: "0" | "1" | "2";
  readonly protocol: "3.1.1" | "5";
  readonly clean: boolean;
  readonly profile: string;
  readonly payload: PayloadName;
  readonly topic?: string;
  readonly threads: number;
  readonly seed?: number;
  readonly clock?: number;
  readonly inFlight: number;
  readonly keepalive: number;
  readonly connectTimeout: number;
  readonly reconnect: number;
  readonly giveUp: number;
  readonly json?: string | true;
  readonly quiet?: true;
  readonly html?: string;
  readonly metricsPort?: number;
  readonly ledger?: string;
  readonly watchRejected?: true;
  readonly verify?: readonly Target[];
  readonly verifyWait: number;
}

function createCommand(): Command {
  const command = new Command("sluice-sim").description(
    "Simulates IoT devices: real MQTT clients with sensors, over worker threads.",
  );
  for (const one of connectionOptions()) command.addOption(one);
  return command
    .addOption(
      option("--devices <n>", "number of devices (default: 100, or all of --credentials)").argParser(
        integer(1, 1_000_000),
      ),
    )
    .addOption(
      option("--rate <n>", "messages per second of each device (default: as the profile)").argParser(
        number(0.0001, 1000),
      ),
    )
    .addOption(
      option("--total-rate <n>", "messages per second of all devices together")
        .argParser(number(0.0001, 10_000_000))
        .conflicts("rate"),
    )
    .addOption(option("--jitter <share>", "how much an interval varies, 0 to 1").argParser(number(0, 1)).default(0.1))
    .addOption(option("--ramp <time>", "time over which the devices connect").argParser(duration).default(5000, "5s"))
    .addOption(
      option(
        "--duration <time>",
        "stop after this time, e.g. 500ms, 10s, 2m (default: 60s, that of the scenario, or no limit with --count)",
      ).argParser(duration),
    )
    .addOption(option("--count <n>", "stop after this many readings per device, each a message").argParser(integer(1)))
    .addOption(option("--qos <n>", "quality of service (default: 1, with sparkplug-b 0)").choices(["0", "1", "2"]))
    .addOption(option("--protocol <version>", "MQTT version").choices(["3.1.1", "5"]).default("3.1.1"))
    .option("--clean", "start a clean session", true)
    .option("--no-clean", "resume the session of the same device id")
    .addOption(
      option("--profile <name>", `what the devices measure: ${profileNames.join(", ")}, or a file with your own`)
        .argParser(profile)
        .default("climate"),
    )
    .addOption(option("--payload <shape>", "how a reading is sent").choices(payloadNames).default("sluice"))
    .addOption(option("--topic <topic>", "topic; {device} is the device's id (default: as below)").argParser(topic))
    .addOption(
      option("--threads <n>", "worker threads")
        .argParser(integer(1, 64))
        .default(Math.min(4, availableParallelism()), "one per core, 4 at most"),
    )
    .addOption(option("--seed <n>", "repeats the values of an earlier run").argParser(integer(0, 2 ** 32 - 1)))
    .addOption(
      option(
        "--clock <time>",
        "what the devices' clocks show at the start, e.g. 2026-01-01T00:00:00Z; with --seed every byte repeats",
      ).argParser(instant),
    )
    .addOption(
      option("--in-flight <n>", "unacknowledged messages of a device before readings are skipped")
        .argParser(integer(1, 65_535))
        .default(32),
    )
    .addOption(option("--keepalive <seconds>", "MQTT keep alive, 0 for none").argParser(integer(0, 65_535)).default(60))
    .addOption(
      option("--connect-timeout <time>", "how long to wait for a CONNACK").argParser(duration).default(10_000, "10s"),
    )
    .addOption(
      option("--reconnect <time>", "mean delay before a device connects again").argParser(duration).default(1000, "1s"),
    )
    .addOption(
      option("--give-up <time>", "exit when no device could connect by then")
        .argParser(duration)
        .default(10_000, "10s"),
    )
    .option(
      "--json [file]",
      "summary as one JSON object, to a file or to standard output (progress then on standard error)",
    )
    .option("--html <file>", "charts of the run as one page for a browser")
    .addOption(option("--metrics-port <port>", "metrics for Prometheus on 127.0.0.1").argParser(integer(0, 65_535)))
    .option("--quiet", "no progress, no text summary")
    .option("--ledger <folder>", "write down there every message and acknowledgement")
    .option("--watch-rejected", "write down there too what the gateway shows on sluice/rejected/#")
    .addOption(option("--verify <sink>", "compare the ledger with it afterwards, may be repeated").argParser(targets))
    .addOption(verifyWait())
    .addHelpText("after", EPILOGUE);
}

const EPILOGUE = `
Ctrl-C stops the devices, waits up to 5 s for outstanding acknowledgements and prints the summary; again ends at once.
A device sends as often as its profile says, or as --rate says. One that sends when something happens (door) keeps its own
rhythm: --rate makes everything happen faster or slower, so that the mean over a long time is the rate; --jitter does not matter.
Your own profile: \`--profile ./boiler.ts\`, a file whose default export is a defineProfile({ … }), as in config/boiler.ts.
Payloads and their topics:
${payloadNames.map((name) => `  ${name.padEnd(13)}${payloads[name].topic}`).join("\n")}
tasmota, zigbee2mqtt and bare have no place for a sequence number. bare sends a message for each metric, or only the first metric
when the topic has no {metric}. sparkplug-b takes spBv1.0/GROUP/DDATA/NODE/DEVICE or spBv1.0/GROUP/NDATA/NODE.
Faults, with their usual times; SHARE is that of the messages (0.01), or of the devices for clocks and connections (0.1, 1 for storms):
${faultHelp()}
A scenario of your own: \`--scenario ./monday.ts\`, a file whose default export is a defineScenario({ phases: [ … ] }), as in
config/monday.ts. Without --duration or --count the run lasts as long as its scenario.
Exit code: 0 all acknowledged, 1 a message or connection failed or --verify found a broken promise, 2 wrong options or a sink that cannot be compared.
Sinks to verify: ${TARGETS}.
\`sluice-sim verify --help\` is about the ledger of an earlier run.`;

const option = (flags: string, description: string): Option => new Option(flags, description);

const wrong = (text: string): Parsed => ({ kind: "told", exitCode: 2, text: `error: ${text}\n` });

function toParsed(raw: Raw): Parsed {
  const connection = toConnectionOptions(raw, raw.devices);
  if (typeof connection === "string") return wrong(connection);
  if (raw.ledger === undefined && raw.verify !== undefined) {
    return wrong("option '--verify' needs '--ledger': without it nobody knows what was acknowledged");
  }
  if (raw.ledger === undefined && raw.watchRejected === true)
    return wrong("option '--watch-rejected' needs '--ledger'");
  const shape = payloads[raw.payload];
  const { topic: where = shape.topic } = raw;
  const settings = toFaultSettings(raw, raw.payload, connection.tls !== undefined);
  if (typeof settings === "string") return wrong(settings);
  if (raw.payload === "sparkplug-b" && !isSparkplugTopic(where)) {
    return wrong(
      "option '--topic': expected spBv1.0/GROUP/DDATA/NODE/DEVICE or spBv1.0/GROUP/NDATA/NODE with '--payload sparkplug-b'",
    );
  }
  if (raw.payload !== "bare" && where.includes("{metric}")) {
    return wrong("option '--topic': {metric} is only known with '--payload bare'");
  }
  const sim: SimOptions = {
    ...connection,
    ratePerDevice: raw.totalRate === undefined ? raw.rate : raw.totalRate / connection.devices,
    jitter: raw.jitter,
    rampMs: raw.ramp,
    durationMs: raw.duration ?? (raw.count === undefined ? (settings.durationMs ?? 60_000) : undefined),
    count: raw.count,
    qos: raw.qos === undefined ? shape.qos : ({ "0": 0, "1": 1, "2": 2 } as const)[raw.qos],
    protocolVersion: raw.protocol === "5" ? 5 : 4,
    clean: raw.clean,
    phases: settings.phases,
    profile: raw.profile,
    payload: raw.payload,
    topic: where,
    threads: Math.min(raw.threads, connection.devices),
    seed: raw.seed ?? Math.floor(Math.random() * 2 ** 32),
    clockMs: raw.clock,
    maxInFlight: raw.inFlight,
    keepaliveSeconds: raw.keepalive,
    connectTimeoutMs: raw.connectTimeout,
    reconnectMs: raw.reconnect,
    giveUpMs: raw.giveUp,
    drainMs: 5000,
    ledger: raw.ledger === undefined ? undefined : resolve(raw.ledger),
    watchRejected: raw.watchRejected === true,
  };
  const { json, html, metricsPort } = raw;
  const output = { json, quiet: raw.quiet === true, html, metricsPort };
  return { kind: "run", sim, output, verify: { targets: raw.verify ?? [], waitMs: raw.verifyWait } };
}
