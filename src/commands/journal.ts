// `sluice journal`: what a shell shows of a journal. The work is in the journal's inspect.ts and dump.ts.

import { join } from "node:path";
import type { Command } from "commander";
import { dumpJournal, type DumpOptions } from "../journal/dump.ts";
import { isClean, statJournal, verifyJournal, type JournalStat, type Verification } from "../journal/inspect.ts";
import { countLost, describeLoss } from "../journal/loss.ts";
import {
  addDataDirCommand,
  parseCount,
  parsePoint,
  print,
  runInDataDir,
  showTime,
  toJson,
  type CommonOptions,
  type Shell,
} from "./shell.ts";

type DumpFlags = CommonOptions & Omit<DumpOptions, "dir">;

export function addJournalCommands(program: Command, shell: Shell): void {
  const journal = program.command("journal").description("look into a journal, also while a gateway uses it");
  const add = (name: string, text: string): Command => addDataDirCommand(journal, name, text);

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

const run = (
  shell: Shell,
  file: string | undefined,
  options: CommonOptions,
  work: (dir: string) => Promise<void>,
): Promise<void> => runInDataDir(shell, file, options, (dataDir) => work(join(dataDir, "journal")));

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
