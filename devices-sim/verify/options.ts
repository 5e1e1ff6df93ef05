// The command line of `sluice-sim verify`.

import { Command, CommanderError } from "commander";
import type { OutputOptions } from "../options.ts";
import { TARGETS, targets, verifyWait, type Target } from "./target.ts";
import type { VerifyRequest } from "./verify.ts";

export type ParsedVerify =
  | { readonly kind: "verify"; readonly request: VerifyRequest; readonly output: OutputOptions }
  | { readonly kind: "told"; readonly exitCode: 0 | 2; readonly text: string };

interface Raw {
  readonly ledger: string;
  readonly verifyWait: number;
  readonly json?: string | true;
  readonly html?: string;
  readonly quiet?: true;
}

/** The arguments behind `verify`. */
export function parseVerifyOptions(args: readonly string[]): ParsedVerify {
  let text = "";
  const write = (part: string): void => {
    text += part;
  };
  const command = new Command("sluice-sim verify")
    .description("Compares the ledger of an earlier run with sinks.")
    .argument("<sinks...>", TARGETS, targets)
    .requiredOption("--ledger <folder>", "what `sluice-sim --ledger` wrote")
    .addOption(verifyWait().default(0, "0s"))
    .option("--json [file]", "the result as one JSON object, to a file or to standard output")
    .option("--html <file>", "the result, and what the ledger knows of the run, as one page for a browser")
    .option("--quiet", "no text")
    .addHelpText(
      "after",
      "\nExit code: 0 every promise was kept, 1 one was broken or a sink cannot be read, 2 wrong options or a sink that cannot be compared.",
    )
    .exitOverride()
    .configureOutput({ writeOut: write, writeErr: write });
  try {
    command.parse(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return { kind: "told", exitCode: error.exitCode === 0 ? 0 : 2, text };
  }
  const { ledger, verifyWait: waitMs, json, html, quiet } = command.opts<Raw>();
  const [given] = command.processedArgs as [readonly Target[]];
  const output = { json, html, quiet: quiet === true };
  return { kind: "verify", request: { dir: ledger, targets: given, waitMs }, output };
}
