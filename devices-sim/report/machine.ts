// On what a run was made: without it its figures mean nothing.

import { readFile } from "node:fs/promises";
import { availableParallelism, cpus, release, totalmem, type } from "node:os";

/** The names are the contract of `--json`. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly system: string;
  readonly node: string;
  /** Of the simulator. */
  readonly version: string;
}

export async function describeMachine(): Promise<Machine> {
  const text = await readFile(new URL("../../package.json", import.meta.url), "utf8");
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${type()} ${release()}`,
    node: process.version,
    version: (JSON.parse(text) as { readonly version: string }).version,
  };
}
