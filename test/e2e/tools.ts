// Real programs that tests use. Missing in CI: the test fails. Missing on a laptop: it is skipped, and says what to install.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { env } from "node:process";
import type { TestContext } from "vitest";

const packages: Readonly<Record<string, string>> = {
  mosquitto_pub: "mosquitto-clients",
  mosquitto_sub: "mosquitto-clients",
  mosquitto_passwd: "mosquitto",
};

/** Skips the test, or lets it fail in CI, when a program is missing. */
export function needs(skip: TestContext["skip"], ...commands: readonly string[]): void {
  for (const command of commands) {
    const found = spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;
    if (found || env["CI"] !== undefined) continue;
    skip(`${command} is missing: install Debian's ${packages[command] ?? command}`);
  }
}

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
  /** Resolves with the first line of its output for which `matches` is true. */
  line(matches: (line: string) => boolean): Promise<string>;
}

export function run(command: string, args: readonly string[]): Running {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  const waiting = new Set<() => void>();
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    for (const check of waiting) check();
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const finished = once(child, "close").then(([code]) => ({ code: code as number | null, stdout, stderr }));
  return {
    child,
    finished,
    line: (matches) =>
      new Promise((resolve, reject) => {
        const check = (): void => {
          const found = stdout.split("\n").slice(0, -1).find(matches);
          if (found === undefined) return;
          waiting.delete(check);
          resolve(found);
        };
        waiting.add(check);
        check();
        void finished.then(() => reject(new Error(`${command} ended before the line came\n${stdout}\n${stderr}`)));
      }),
  };
}
