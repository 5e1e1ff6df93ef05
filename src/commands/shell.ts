// What the subcommands of `sluice` share: where they print, how they end, and how they find what they are about. Exit codes:
// 0; 1 when what was asked for was not, or not wholly, done; 2 when the command line, the configuration or a file is wrong.

import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { InvalidArgumentError, type Command } from "commander";
import type { GatewayConfig } from "../config/schema.ts";
import { SluiceError } from "../errors.ts";
import type { Point } from "../journal/dump.ts";
import { toOffset, type UnixMs } from "../reading.ts";

export interface Shell {
  readonly stdout: NodeJS.WritableStream;
  /** A line for the person, not for the next program. */
  readonly complain: (line: string) => void;
  readonly exitWith: (code: number) => void;
  /** Ends the process although something is still under way. */
  readonly exitNow: (code: number) => void;
  /** Where a line may be written over again and again; undefined: errors go to no terminal. */
  readonly terminal: NodeJS.WritableStream | undefined;
  /** Called at each Ctrl-C, which until then ends the process at once. */
  readonly onInterrupt: (listener: () => void) => Disposable;
  /** A configuration file, the default one when undefined; undefined: it is wrong, and said so. */
  readonly load: (file: string | undefined) => Promise<GatewayConfig | undefined>;
}

export interface CommonOptions {
  readonly dataDir?: string;
  readonly json?: boolean;
}

/** A subcommand that is about a data directory. */
export const addDataDirCommand = (group: Command, name: string, text: string): Command =>
  group
    .command(name)
    .description(text)
    .argument("[file]", "configuration file that tells the data directory (default: config/gateway.ts)")
    .option("--data-dir <dir>", "the data directory itself");

/** `work` is given the data directory. */
export async function runInDataDir(
  shell: Shell,
  file: string | undefined,
  { dataDir }: CommonOptions,
  work: (dataDir: string) => Promise<void>,
): Promise<void> {
  const found = dataDir ?? (await shell.load(file))?.dataDir;
  if (found !== undefined) await runExplained(shell, () => work(found));
}

/** What an operator can do something about is told as a sentence with a hint. */
export async function runExplained(shell: Shell, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    if (!(cause instanceof SluiceError)) throw cause;
    shell.complain(`${cause.code}: ${cause.message}\n${cause.hint}`);
    shell.exitWith(2);
  }
}

const linesAtOnce = 256;

/** As fast as the reader takes them; one that goes away, such as `head`, ends it. */
export async function print({ stdout }: Shell, lines: Iterable<string>): Promise<void> {
  try {
    await pipeline(Readable.from(toPieces(lines)), stdout, { end: false });
  } catch (cause) {
    if (!(cause instanceof Error && "code" in cause && cause.code === "EPIPE")) throw cause;
  }
}

function* toPieces(lines: Iterable<string>): Generator<string, void> {
  let piece: string[] = [];
  for (const line of lines) {
    piece.push(line);
    if (piece.length < linesAtOnce) continue;
    yield piece.join("");
    piece = [];
  }
  if (piece.length > 0) yield piece.join("");
}

export const toJson = (value: unknown): string => `${JSON.stringify(value, undefined, 2)}\n`;

export const showTime = (timeMs: UnixMs | undefined): string =>
  timeMs === undefined ? "-" : new Date(timeMs).toISOString();

/** `1 record`, `2 records`. */
export const showCount = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`;

const unitMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** An offset, a time, or an age before now. */
export function parsePoint(text: string): Point {
  if (/^\d+$/.test(text)) return { kind: "offset", offset: toOffset(Number(text)) };
  const [, count = "", unit = ""] = /^-(\d+)([smhd])$/.exec(text) ?? [];
  const ageMs = Number(count) * (unitMs[unit] ?? Number.NaN);
  const timeMs = unit === "" ? toTime(text) : Date.now() - ageMs;
  if (timeMs !== undefined && !Number.isNaN(timeMs)) return { kind: "time", timeMs };
  throw new InvalidArgumentError(
    "It must be an offset such as 1200, a time such as 2026-01-31T12:00Z, or an age such as -1h.",
  );
}

const toTime = (text: string): UnixMs | undefined => (/^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : undefined);

export function parseCount(text: string): number {
  if (/^\d+$/.test(text)) return Number(text);
  throw new InvalidArgumentError("It must be a whole number.");
}
