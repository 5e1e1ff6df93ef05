// The run that a ledger is about: its folder and `run.json`.

import { mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { SimOptions } from "../options.ts";
import { LEDGER_VERSION, RUN_FILE, type Run } from "./format.ts";

/** Makes the folder and writes `run.json`, without what may be secret: the password, and the query of a WebSocket's URL. Rejects when the folder has a run already. Resolves to what says that the run has ended. */
export async function beginRun(
  dir: string,
  { password: _password, path: _path, ...options }: SimOptions,
): Promise<() => Promise<void>> {
  await mkdir(dir, { recursive: true });
  if ((await readdir(dir)).includes(RUN_FILE))
    throw new Error(`${dir} has the ledger of another run: give another folder`);
  const run: Run = { version: LEDGER_VERSION, startedAt: Date.now(), options };
  await writeRun(dir, run);
  return () => writeRun(dir, { ...run, endedAt: Date.now() });
}

export async function readRun(dir: string): Promise<Run> {
  const run = JSON.parse(await readFile(join(dir, RUN_FILE), "utf8")) as Run;
  // JSON has null for what has no end.
  const phases = run.options.phases.map(({ durationMs, ...phase }) => ({
    ...phase,
    durationMs: (durationMs as number | null) ?? Infinity,
  }));
  return { ...run, options: { ...run.options, phases } };
}

async function writeRun(dir: string, run: Run): Promise<void> {
  const path = join(dir, RUN_FILE);
  await writeFile(`${path}.new`, `${JSON.stringify(run)}\n`);
  await rename(`${path}.new`, path);
}
