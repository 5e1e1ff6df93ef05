// The command line in this process: its subcommands with a shell that remembers what it was told.

import { Writable } from "node:stream";
import { Command, CommanderError } from "commander";
import { addInboxCommands } from "../../src/commands/inbox.ts";
import { addJournalCommands } from "../../src/commands/journal.ts";
import { addReplayCommand } from "../../src/commands/replay.ts";
import type { Shell } from "../../src/commands/shell.ts";
import { addSinkCommands } from "../../src/commands/sinks.ts";
import { formatProblems, loadConfig } from "../../src/config/load.ts";

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly complaints: readonly string[];
}

export interface RunOptions {
  /** Is given how to interrupt the command. */
  readonly onInterruptible?: (interrupt: () => void) => void;
  readonly onComplaint?: (line: string) => void;
}

export async function runSluice(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const ran = { code: 0, out: "", complaints: [] as string[] };
  const complain = (line: string): void => {
    ran.complaints.push(line);
    options.onComplaint?.(line);
  };
  const exitWith = (code: number): void => {
    ran.code = code;
  };
  const shell: Shell = {
    stdout: new Writable({
      write(chunk, _encoding, done) {
        ran.out += String(chunk);
        done();
      },
    }),
    complain,
    exitWith,
    exitNow: exitWith,
    terminal: undefined,
    onInterrupt(listener) {
      options.onInterruptible?.(listener);
      return { [Symbol.dispose]: () => {} };
    },
    async load(file) {
      const loaded = await loadConfig(file, {});
      if (loaded.kind === "loaded") return loaded.config;
      complain(formatProblems(loaded.problems));
      exitWith(2);
      return undefined;
    },
  };
  const program = new Command("sluice")
    .exitOverride()
    .configureOutput({ writeOut: () => {}, writeErr: (text) => complain(text) });
  addJournalCommands(program, shell);
  addInboxCommands(program, shell);
  addReplayCommand(program, shell);
  addSinkCommands(program, shell);
  await program.parseAsync(["node", "sluice", ...args]).catch((cause: unknown) => {
    if (!(cause instanceof CommanderError)) throw cause;
    exitWith(cause.exitCode === 0 ? 0 : 2);
  });
  return ran;
}
