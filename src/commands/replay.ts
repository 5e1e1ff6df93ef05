// `sluice replay`: gives a sink once more what the journal still has, in a process of its own, beside live delivery or
// without a gateway. Exit codes: 0 when all of it is written; 1 when something was refused or is gone, or the sink cannot be
// used; 2 when the command line, the configuration or the journal is wrong; 130 when it was stopped.

import { join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { resolveForConfiguration } from "../config/resolve.ts";
import type { GatewayConfig, SinkConfig } from "../config/schema.ts";
import { SinkHangs } from "../dispatch/delivery.ts";
import { replay } from "../dispatch/replay.ts";
import type { ReplayProgress } from "../dispatch/replay.ts";
import { toError } from "../errors.ts";
import { readRange } from "../journal/dump.ts";
import type { Point } from "../journal/dump.ts";
import { statJournal } from "../journal/inspect.ts";
import type { JournalStat } from "../journal/inspect.ts";
import type { JournalEntry } from "../journal/record.ts";
import { toOffset } from "../reading.ts";
import type { Offset } from "../reading.ts";
import { createRegistry } from "../validate/registry.ts";
import { parseCount, parsePoint, runExplained, showCount, showTime } from "./shell.ts";
import type { Shell } from "./shell.ts";

interface Options {
  readonly sink: string;
  readonly from: Point;
  readonly to?: Point;
  readonly rate?: number;
}

/** Further refused records are only counted. */
const toldRefused = 100;
const terminalMs = 500;
const linesMs = 10_000;

export function addReplayCommand(program: Command, shell: Shell): void {
  program
    .command("replay")
    .description("write what the journal still has into a sink once more")
    .argument("[file]", "configuration file (default: config/gateway.ts)")
    .requiredOption("--sink <name>", "the sink")
    .requiredOption(
      "--from <point>",
      "first record: offset, ISO time of receipt, or age such as -90s, -15m, -1h, -2d",
      parsePoint,
    )
    .option("--to <point>", "record or time before which to end", parsePoint)
    .option("--rate <count>", "at most so many readings a second", parseRate)
    .action((file: string | undefined, options: Options) => runExplained(shell, () => run(shell, file, options)));
}

async function run(shell: Shell, file: string | undefined, options: Options): Promise<void> {
  const config = await shell.load(file);
  if (config === undefined) return;
  const sink = config.sinks.find(({ name }) => name === options.sink);
  if (sink === undefined) {
    const names = config.sinks.map(({ name }) => name).join(", ");
    shell.complain(`${config.file} has no sink named ${options.sink}; its sinks: ${names === "" ? "none" : names}`);
    shell.exitWith(2);
    return;
  }
  if (isBackwards(options)) {
    shell.complain("--to lies before --from: there is nothing between them");
    shell.exitWith(2);
    return;
  }
  const journal = statJournal(join(config.dataDir, "journal"));
  const bound = findBound(shell, journal, sink);
  if (bound === undefined) return;
  if (options.from.kind === "offset" && options.from.offset >= bound) {
    shell.complain(`nothing to replay: what lies at or behind offset ${bound} comes to ${sink.name} live`);
    return;
  }
  // A sink may import more of its modules when it is opened.
  using _hooks = resolveForConfiguration();
  const range = createRange(shell, config, options, journal, bound);
  const screen = createScreen(shell, range, bound);
  await runReplay(shell, config, { sink, options, journal, range, screen });
}

function parseRate(text: string): number {
  const rate = parseCount(text);
  if (rate > 0) return rate;
  throw new InvalidArgumentError("It must be at least 1.");
}

/** As far as it can be told without the journal. */
function isBackwards({ from, to }: Options): boolean {
  if (from.kind === "offset" && to?.kind === "offset") return to.offset < from.offset;
  return from.kind === "time" && to?.kind === "time" && to.timeMs < from.timeMs;
}

/** What lies at or above the sink's own cursor comes to it anyway; undefined: it is not known, which has been said. */
function findBound(shell: Shell, { cursors, end }: JournalStat, { name, from }: SinkConfig): Offset | undefined {
  const cursor = cursors.find((one) => one.name === name);
  if (cursor?.damage !== undefined) {
    shell.complain(
      `the cursor of ${name} is not used: ${cursor.damage}; it gets everything from the oldest record anyway`,
    );
    shell.exitWith(1);
    return undefined;
  }
  if (cursor !== undefined) return cursor.position;
  const later = from === "start" ? "the same records once more" : "what comes from then on";
  shell.complain(`${name} has no cursor yet: when a gateway starts with it, it is given ${later}`);
  return end;
}

interface Range {
  readonly read: (from: Offset) => Iterable<JournalEntry>;
  /** The first record that was read. */
  readonly first: Offset | undefined;
  /** Records of the range that the journal does not have. */
  readonly lost: number;
}

function createRange(
  shell: Shell,
  { dataDir }: GatewayConfig,
  { from, to }: Options,
  { firstOffset, firstTimeMs = 0 }: JournalStat,
  bound: Offset,
): Range {
  if (from.kind === "time" && firstOffset > 0 && firstTimeMs > from.timeMs) {
    shell.complain(
      `the journal begins with offset ${firstOffset}, received ${showTime(firstTimeMs)}: what came before is gone`,
    );
  }
  let first: Offset | undefined;
  let lost = 0;
  let known = 0;
  function onGap(start: Offset, end: Offset): void {
    const begin = Math.max(start, known);
    const behind = Math.min(end, bound);
    if (begin >= behind) return;
    lost += behind - begin;
    known = behind;
    shell.complain(
      `the journal does not have ${showCount(behind - begin, "record")}: offset ${begin} to ${behind - 1}`,
    );
  }
  return {
    get first() {
      return first;
    },
    get lost() {
      return lost;
    },
    *read(next) {
      const point: Point = next === 0 ? from : { kind: "offset", offset: next };
      for (const entry of readRange({ dir: join(dataDir, "journal"), from: point, to, onGap })) {
        if (entry.offset >= bound) return;
        first ??= entry.offset;
        // Records stand in the order in which they were written, which is not always that of their times.
        if (from.kind === "offset" || entry.message.receivedAt >= from.timeMs) yield entry;
      }
    },
  };
}

interface Parts {
  readonly sink: SinkConfig;
  readonly options: Options;
  readonly journal: JournalStat;
  readonly range: Range;
  readonly screen: Screen;
}

async function runReplay(shell: Shell, config: GatewayConfig, parts: Parts): Promise<void> {
  const { sink, options, journal, range, screen } = parts;
  const { name, batch, timeoutMs, retry } = sink;
  const only = sink.only === undefined ? undefined : new Set(sink.only);
  const streams = config.streams.filter((stream) => only?.has(stream.name) !== false);
  const context = {
    gateway: journal.id,
    dataDir: config.dataDir,
    name: `${name}-replay`,
    streams,
    warn: (text: string) => screen.say(text),
  };
  const stopping = new AbortController();
  const abort = new AbortController();
  using _interrupt = shell.onInterrupt(() => {
    if (stopping.signal.aborted) abort.abort(new Error("stopped at once"));
    else screen.say("stopping after the batch in hand");
    stopping.abort();
  });
  let progress: ReplayProgress = { next: toOffset(0), written: 0, refused: 0 };
  let lastFailure: string | undefined;
  try {
    progress = await replay({
      gateway: journal.id,
      read: range.read,
      from: options.from.kind === "offset" ? options.from.offset : toOffset(0),
      open: async () => sink.open(sink.settings, context),
      registry: createRegistry(config.streams),
      only,
      batch,
      timeoutMs,
      backoff: retry,
      rate: options.rate,
      stopping: stopping.signal,
      abort: abort.signal,
      onRefused: (offset, stream, reason) => screen.refused(offset, stream, reason),
      onFailed(message) {
        if (message !== lastFailure) screen.say(`${message} It is tried again.`);
        lastFailure = message;
      },
      onProgress(now) {
        progress = now;
        lastFailure = undefined;
        screen.show(now);
      },
    });
  } catch (cause) {
    screen.say(toError(cause).message);
    shell.exitWith(1);
    screen.end(progress, name);
    tellNext(screen, progress, options);
    if (cause instanceof SinkHangs) shell.exitNow(1);
    return;
  }
  screen.end(progress, name);
  if (progress.refused + range.lost > 0) shell.exitWith(1);
  if (!stopping.signal.aborted) return;
  tellNext(screen, progress, options);
  shell.exitWith(130);
}

function tellNext(screen: Screen, { next }: ReplayProgress, { from }: Options): void {
  screen.say(next === 0 && from.kind === "time" ? "nothing was written" : `to go on: --from ${next}`);
}

interface Screen {
  say(line: string): void;
  refused(offset: Offset, stream: string, reason: string): void;
  show(progress: ReplayProgress): void;
  end(progress: ReplayProgress, sink: string): void;
}

/** On a terminal one line that is written over again and again, else a line now and then. */
function createScreen({ terminal, complain }: Shell, range: Range, bound: Offset): Screen {
  const startMs = performance.now();
  let shownMs = startMs;
  let refusedCount = 0;
  const clear = (): void => void terminal?.write("\r\u001B[K");
  const say = (line: string): void => {
    clear();
    complain(line);
  };
  return {
    say,
    refused(offset, stream, reason) {
      refusedCount += 1;
      if (refusedCount <= toldRefused) say(`offset ${offset} of stream ${stream} is not written: ${reason}`);
      if (refusedCount === toldRefused) say("further ones are only counted");
    },
    show(progress) {
      if (performance.now() - shownMs < (terminal === undefined ? linesMs : terminalMs)) return;
      shownMs = performance.now();
      const line = describeProgress(progress, range.first ?? progress.next, bound, (shownMs - startMs) / 1000);
      if (terminal === undefined) complain(line);
      else terminal.write(`\r\u001B[K${line}`);
    },
    end({ written, refused }, sink) {
      const seconds = (performance.now() - startMs) / 1000;
      const parts = [`${showCount(written, "record")} written to ${sink} in ${seconds.toFixed(1)} s`];
      if (refused > 0) parts.push(`${refused} refused`);
      if (range.lost > 0) parts.push(`${range.lost} gone from the journal`);
      say(parts.join(", "));
    },
  };
}

/** Records of the journal, some of which may not be for the sink. */
function describeProgress({ next, written }: ReplayProgress, first: Offset, bound: Offset, seconds: number): string {
  const done = next - first;
  const all = Math.max(1, bound - first);
  const eta = done === 0 ? "" : `, ${Math.round((seconds * (all - done)) / done)} s left`;
  return `${Math.floor((100 * done) / all)} %: ${written} written, ${Math.round(written / seconds)}/s${eta}`;
}
