// `sluice journal`: what a shell shows of a journal. The work is in inspect.ts and dump.ts; here are arguments, text and
// exit codes: 0, 1 when `verify` has found damage, 2 when the journal or the command line is wrong.

import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { join } from "node:path";
import { InvalidArgumentError, type Command } from "commander";
import { SluiceError } from "../errors.ts";
import { toOffset, type UnixMs } from "../reading.ts";
import { dumpJournal, type DumpOptions, type Point } from "./dump.ts";
import { isClean, statJournal, verifyJournal, type JournalStat, type Verification } from "./inspect.ts";
import { countLost, describeLoss } from "./loss.ts";

export interface Shell {
  readonly stdout: NodeJS.WritableStream;
  /** A line for the person, not for the next program. */
  readonly complain: (line: string) => void;
  readonly exitWith: (code: number) => void;
  /** The data directory of a configuration file, of the default one when undefined; undefined: it is wrong, and said so. */
  readonly findDataDir: (file: string | undefined) => Promise<string | undefined>;
}

interface CommonOptions {
  readonly dataDir?: string;
  readonly json?: boolean;
}

type DumpFlags = CommonOptions & Omit<DumpOptions, "dir">;

const linesAtOnce = 256;
const unitMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

export function addJournalCommands(program: Command, shell: Shell): void {
  const journal = program.command("journal").description("look into a journal, also while a gateway uses it");
  const add = (name: string, text: string): Command =>
    journal
      .command(name)
      .description(text)
      .argument("[file]", "configuration file that tells the data directory (default: config/gateway.ts)")
      .option("--data-dir <dir>", "the data directory itself");

  add("stat", "tell what the journal holds, without reading all of it")
    .option("--json", "as JSON")
    .action((file: string | undefined, options: CommonOptions) =>
      run(shell, file, options, async (dir) => {
        const stat = statJournal(dir);
        await print(shell, options.json === true ? [toJson(stat)] : showStat(stat));
      }),
    );
  add("verify", "read everything and check every frame; exit code 1 when something is damaged or missing")
    .option("--json", "as JSON")
    .action((file: string | undefined, options: CommonOptions) =>
      run(shell, file, options, async (dir) => {
        const found = verifyJournal(dir);
        await print(shell, options.json === true ? [toJson(found)] : showVerification(found));
        if (!isClean(found)) shell.exitWith(1);
      }),
    );
  add("dump", "print the records as lines of JSON")
    .option("--from <point>", "first record: offset, ISO time, or age such as -90s, -15m, -1h, -2d", parsePoint)
    .option("--to <point>", "record or time before which to end", parsePoint)
    .option("--stream <name>", "only of this stream")
    .option("--device <id>", "only of this device")
    .option("--limit <count>", "at most so many", parseCount)
    .action((file: string | undefined, { dataDir, ...options }: DumpFlags) =>
      run(shell, file, { ...(dataDir !== undefined && { dataDir }) }, (dir) =>
        print(shell, dumpJournal({ dir, ...options })),
      ),
    );
}

async function run(
  shell: Shell,
  file: string | undefined,
  { dataDir }: CommonOptions,
  work: (dir: string) => Promise<void>,
): Promise<void> {
  const found = dataDir ?? (await shell.findDataDir(file));
  if (found === undefined) return;
  try {
    await work(join(found, "journal"));
  } catch (cause) {
    if (!(cause instanceof SluiceError)) throw cause;
    shell.complain(`${cause.code}: ${cause.message}\n${cause.hint}`);
    shell.exitWith(2);
  }
}

/** As fast as the reader takes them; one that goes away, such as `head`, ends it. */
async function print({ stdout }: Shell, lines: Iterable<string>): Promise<void> {
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

const toJson = (value: unknown): string => `${JSON.stringify(value, undefined, 2)}\n`;

const showTime = (timeMs: UnixMs | undefined): string => (timeMs === undefined ? "-" : new Date(timeMs).toISOString());

function* showStat(stat: JournalStat): Generator<string, void> {
  const { id, lock, epoch, bytes, firstOffset, end, records, lostRecords, head, segments, cursors } = stat;
  yield `journal   ${id}, run ${epoch}, lock ${lock}\n`;
  yield `records   ${records}, from offset ${firstOffset} to ${end}, ${lostRecords} known to be lost\n`;
  yield `received  ${showTime(stat.firstTimeMs)} to ${showTime(stat.lastTimeMs)}\n`;
  yield head === undefined
    ? "head      none\n"
    : `head      durable to ${head.durable}, segment ${head.segment}, written ${showTime(head.timeMs)}\n`;
  yield `segments  ${segments.length} with records, ${bytes} B in all files\n`;
  for (const { name, bytes: size, from, to, epoch: writer, timeMs } of segments) {
    yield `  ${name}  ${size} B  offsets ${from} to ${to}  run ${writer}  from ${showTime(timeMs)}\n`;
  }
  for (const { name, position, lag, timeMs, damage } of cursors) {
    yield damage === undefined
      ? `cursor    ${name}: ${position}, ${lag} behind, written ${showTime(timeMs)}\n`
      : `cursor    ${name}: not used: ${damage}\n`;
  }
}

function* showVerification(found: Verification): Generator<string, void> {
  const { id, segments, bytes, records, firstOffset, end, lost, harmless, notes, unfinishedBytes } = found;
  for (const range of lost) {
    yield `${range.inLastCommit ? "lost, perhaps before it was acknowledged" : "lost"}: ${describeLoss(range)}\n`;
  }
  for (const { file, fromByte, toByte } of harmless) {
    yield `damaged, without loss: bytes ${fromByte} to ${toByte - 1} of ${file}\n`;
  }
  for (const note of notes) yield `note: ${note}\n`;
  if (unfinishedBytes > 0) yield `unfinished: ${unfinishedBytes} B at the end, in progress or torn, not acknowledged\n`;
  yield `journal ${id}: ${records} records of offsets ${firstOffset} to ${end} in ${segments} segments (${bytes} B), `;
  yield isClean(found) ? "all of them valid\n" : `${countLost(lost)} lost\n`;
}

/** An offset, a time, or an age before now. */
function parsePoint(text: string): Point {
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

function parseCount(text: string): number {
  if (/^\d+$/.test(text)) return Number(text);
  throw new InvalidArgumentError("It must be a whole number.");
}
