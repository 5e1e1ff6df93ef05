// `sluice parked` and `sluice rejects`: what waits for a person, and what the person decides. Both look at a SQLite file of
// the data directory, also while a gateway uses it. To try something again is the gateway's work: here it is only marked,
// and waited for.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { type Command, Option } from "commander";
import { openInbox } from "../dispatch/inbox.ts";
import type { Inbox, InboxItem, InboxKind, Selection } from "../dispatch/inbox.ts";
import { parkedInbox } from "../dispatch/parked.ts";
import { rejectsInbox } from "../dispatch/rejects.ts";
import { showMessage } from "../journal/dump.ts";
import { readLock } from "../journal/inspect.ts";
import type { RejectionReason } from "../reading.ts";
import {
  addDataDirCommand,
  parseCount,
  print,
  runInDataDir,
  showCount,
  showTime,
  type CommonOptions,
  type Shell,
} from "./shell.ts";

interface Options extends CommonOptions, Selection {
  readonly all?: boolean;
  readonly limit?: number;
  readonly wait: boolean;
}

/** What the command says of its kind of inbox. */
interface Words {
  readonly kind: InboxKind;
  /** One of what it holds. */
  readonly one: string;
  readonly none: string;
  /** What an item is that was tried again in vain. */
  readonly still: string;
}

const parkedWords: Words = {
  kind: parkedInbox,
  one: "parked record",
  none: "nothing is parked",
  still: "still parked",
};
const rejectsWords: Words = {
  kind: rejectsInbox,
  one: "rejected message",
  none: "no rejected message is kept",
  still: "still rejected",
};

const reasons: readonly RejectionReason[] = ["no-stream", "undecodable", "invalid", "identity", "time"];

/** How long a gateway that tries none is waited for, how often it is looked, and how often it is said that it goes on. */
const patienceMs = 30_000;
const lookMs = 100;
const tellMs = 3_000;
/** For a person; --json has all. */
const listedRecords = 1_000;
const toldLeft = 100;

export function addInboxCommands(program: Command, shell: Shell): void {
  const parked = program
    .command("parked")
    .description("records that a sink or handler has not taken for their content, and what becomes of them");
  add(parked, shell, parkedWords, (command) => command.option("--sink <name>", "only of this sink or handler"));
  const rejects = program
    .command("rejects")
    .description("messages of devices that were rejected, and what becomes of them");
  add(rejects, shell, rejectsWords, (command) =>
    command.addOption(new Option("--reason <reason>", "only with this reason").choices(reasons)),
  );
}

function add(group: Command, shell: Shell, words: Words, select: (command: Command) => Command): void {
  const command = (name: string, text: string): Command =>
    select(addDataDirCommand(group, name, text))
      .option("--offset <offset>", "only the record with this offset in the journal", parseCount)
      .option("--stream <name>", "only of this stream")
      .option("--device <id>", "only of this device")
      .option("--json", "as lines of JSON");
  const action = (work: (inbox: Inbox, options: Options, dataDir: string) => Promise<void>) => {
    return (file: string | undefined, options: Options): Promise<void> =>
      runInDataDir(shell, file, options, async (dataDir) => {
        using inbox = openInbox(join(dataDir, `${words.kind.table}.db`), words.kind);
        if (inbox !== undefined) await work(inbox, options, dataDir);
        else if (existsSync(dataDir)) shell.complain(`${words.none} in ${dataDir}`);
        else {
          shell.complain(`${words.none} in ${dataDir}, which does not exist`);
          shell.exitWith(2);
        }
      });
  };
  const deciding = (work: (inbox: Inbox, options: Options, dataDir: string) => Promise<void>) =>
    action(async (inbox, options, dataDir) => {
      if (options.offset === undefined && options.all !== true) {
        shell.complain(`which? Say --offset N, or --all for each ${words.one} that the other options fit`);
        shell.exitWith(2);
      } else if (inbox.count(toSelection(options)) === 0) {
        shell.complain(describeNone(words, inbox));
        shell.exitWith(1);
      } else await work(inbox, options, dataDir);
    });

  command("list", "one line for each, without its payload")
    .option("--limit <count>", `at most so many (default: ${listedRecords}, with --json all)`, parseCount)
    .action(action((inbox, options) => list(shell, words, inbox, options)));
  command("show", "everything about each, with its payload").action(
    action((inbox, options) => print(shell, show(inbox.items(toSelection(options)), options))),
  );
  command("retry", "let the gateway try them again")
    .option("--all", "all that the other options fit")
    .option("--no-wait", "only ask for it, and do not wait for what becomes of them")
    .action(deciding((inbox, options, dataDir) => retry(shell, words, inbox, options, dataDir)));
  command("drop", "delete them for good")
    .option("--all", "all that the other options fit")
    .action(
      deciding(async (inbox, options) => {
        const dropped = inbox.drop(toSelection(options));
        await print(shell, [
          options.json === true ? toLine({ dropped }) : `dropped ${showCount(dropped, words.one)}\n`,
        ]);
      }),
    );
}

const toSelection = ({ sink, offset, stream, device, reason }: Options): Selection => ({
  sink,
  offset,
  stream,
  device,
  reason,
});

/** There may be some that do not fit. */
function describeNone({ none }: Words, inbox: Inbox): string {
  if (inbox.count({}) === 0) return none;
  const { sinks } = inbox;
  return `${none} that fits${sinks.length === 0 ? "" : `; there are records of ${sinks.join(", ")}`}`;
}

const toLine = (value: object): string => `${JSON.stringify(value)}\n`;

async function list(shell: Shell, words: Words, inbox: Inbox, options: Options): Promise<void> {
  const selection = toSelection(options);
  const count = inbox.count(selection);
  const { json, limit = json === true ? Infinity : listedRecords } = options;
  if (count === 0) shell.complain(describeNone(words, inbox));
  await print(shell, listed(inbox.items(selection), limit, json === true));
  if (count > limit) shell.complain(`and ${count - limit} more: see --limit, or choose with the other options`);
  const { dropped } = inbox;
  if (dropped > 0) shell.complain(`${showCount(dropped, "older one")} gave way, for \`rejects\` keeps no more`);
}

function* listed(items: Iterable<InboxItem>, limit: number, json: boolean): Generator<string, void> {
  let left = limit;
  for (const item of items) {
    if (left <= 0) return;
    left -= 1;
    if (json) {
      const { payload: _, ...shown } = toShown(item) as { payload: unknown };
      yield toLine(shown);
      continue;
    }
    const { sink, offset, time, stream, error, attempts, retryAt, message } = item;
    const parts = [showTime(time), sink, `offset ${offset}`, stream === "" ? "no stream" : stream, message.deviceId];
    if (attempts !== undefined) parts.push(showCount(attempts, "attempt"));
    if (retryAt !== undefined) parts.push("to be tried again");
    yield `${parts.filter((part) => part !== undefined).join("  ")}  ${error}\n`;
  }
}

function toShown({ message, retryAt, time, ...item }: InboxItem): object {
  const { time: receivedAt, ...shown } = showMessage(message) as { time: string };
  const asked = retryAt === undefined ? undefined : showTime(retryAt);
  return { ...item, time: showTime(time), retryAt: asked, receivedAt, ...shown };
}

function* show(items: Iterable<InboxItem>, { json }: Options): Generator<string, void> {
  for (const item of items) {
    if (json === true) {
      yield toLine(toShown(item));
      continue;
    }
    const fields = Object.entries(toShown(item)).filter(([, value]) => value !== undefined);
    for (const [name, value] of fields) {
      yield `${name.padEnd(12)}${typeof value === "string" ? value : JSON.stringify(value)}\n`;
    }
    yield "\n";
  }
}

async function retry(shell: Shell, words: Words, inbox: Inbox, options: Options, dataDir: string): Promise<void> {
  const selection = toSelection(options);
  const asked = new Set<string>();
  for (const item of inbox.items(selection)) asked.add(toKey(item));
  inbox.mark(selection);
  if (!options.wait) return;
  if (readLock(join(dataDir, "journal")) === "free") {
    shell.complain(
      `no gateway runs on ${dataDir}: at its next start it tries ${showCount(asked.size, words.one)} again`,
    );
    return;
  }
  await untilTried(shell, inbox, selection);
  const tally = { asked: asked.size, left: 0, waiting: 0 };
  await print(shell, toReport(outcomes(inbox, selection, asked), tally, words, options));
  if (tally.waiting > 0) {
    shell.complain(
      `${tally.waiting} of them are not tried yet, and will be: is the gateway busy, or the sink away? See \`sluice sinks\``,
    );
  }
  if (tally.left > 0) shell.exitWith(1);
}

/** Resolves when none is marked any longer, or when the gateway has tried none for a while. */
async function untilTried({ complain }: Shell, inbox: Inbox, selection: Selection): Promise<void> {
  let left = inbox.countMarked(selection);
  let movedMs = performance.now();
  let toldMs = movedMs;
  while (left > 0 && performance.now() - movedMs < patienceMs) {
    await setTimeout(lookMs);
    const now = inbox.countMarked(selection);
    if (now !== left) movedMs = performance.now();
    left = now;
    if (performance.now() - toldMs < tellMs) continue;
    toldMs = performance.now();
    complain(`${left} of them are still to be tried by the gateway; Ctrl-C leaves it to it`);
  }
}

const toKey = ({ sink, gateway, offset }: InboxItem): string => `${sink} ${gateway} ${offset}`;

/** Those that are still there. */
function* outcomes(inbox: Inbox, selection: Selection, asked: ReadonlySet<string>): Generator<InboxItem, void> {
  // The reason of a message may be another one now.
  for (const item of inbox.items({ ...selection, reason: undefined })) if (asked.has(toKey(item))) yield item;
}

/** Counts those that are left as it goes. */
function* toReport(
  items: Iterable<InboxItem>,
  tally: { readonly asked: number; left: number; waiting: number },
  { one, still }: Words,
  { json }: Options,
): Generator<string, void> {
  for (const { sink, gateway, offset, error, retryAt } of items) {
    tally.left += 1;
    if (retryAt !== undefined) tally.waiting += 1;
    const outcome = retryAt === undefined ? still : "not tried yet";
    if (json === true) yield toLine({ sink, gateway, offset, outcome, error });
    else if (tally.left <= toldLeft)
      yield `${sink === undefined ? "" : `${sink}  `}offset ${offset}  ${outcome}: ${error}\n`;
  }
  const { left } = tally;
  const taken = tally.asked - left;
  if (json === true) yield toLine({ taken, left });
  else {
    if (left > toldLeft) yield `and ${left - toldLeft} more\n`;
    yield `${showCount(taken, one)} taken, ${left} left\n`;
  }
}
