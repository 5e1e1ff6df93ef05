// Lets calls of the gateway to its journal's disk fail: the test's side of fault-shim.c.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

/** Call, scope and errno; see fault-shim.c. */
export type Rule = readonly [
  call: "open" | "write" | "sync" | "truncate" | "unlink",
  scope: "segment" | "folder" | "head" | "cursor",
  errno: number,
];

/** What stands between the gateway and libc. */
export interface Shim {
  readonly env: Readonly<Record<string, string>>;
  /** `times` for each rule; -1: until the next order. */
  order(rules: readonly Rule[], times: number): Promise<void>;
  /** Calls that were refused since the last order. */
  refused(): number;
  /** Writes and syncs of files whose sync had failed. */
  again(): number;
}

export async function openShim(dir: string): Promise<Shim> {
  const library = join(dir, "fault-shim.so");
  execFileSync("gcc", ["-shared", "-fPIC", "-o", library, join(import.meta.dirname, "fault-shim.c"), "-ldl"]);
  const control = join(dir, "control");
  const log = join(dir, "faults");
  await writeFile(control, "0\n");
  await writeFile(log, "");
  let orders = 0;
  const count = (what: RegExp): number =>
    readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => what.test(line)).length;
  return {
    env: { LD_PRELOAD: library, FAULT_CONTROL: control, FAULT_LOG: log },
    async order(rules, times) {
      orders += 1;
      await writeFile(control, [orders, ...rules.map((rule) => [...rule, times].join(" ")), ""].join("\n"));
    },
    refused: () => count(new RegExp(`^failed ${orders} `)),
    again: () => count(/^again /),
  };
}
