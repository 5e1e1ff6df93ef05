// Real programs that tests use. Missing in CI: the test fails. Missing on a laptop: it is skipped, and says what to install.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { env } from "node:process";
import type { TestContext } from "vitest";

/** Mounts something, and a file as a loop device if there are any. */
const mountProbe = `
  dir=$(mktemp -d) && trap 'rmdir "$dir"' EXIT
  mount -t tmpfs none "$dir" && umount "$dir" && losetup -f`;

/** What a test may need, how to find out whether it is there, and the Debian package that brings it. */
const programs = {
  mosquitto_pub: { probe: "command -v mosquitto_pub", package: "mosquitto-clients" },
  mosquitto_sub: { probe: "command -v mosquitto_sub", package: "mosquitto-clients" },
  mosquitto_passwd: { probe: "command -v mosquitto_passwd", package: "mosquitto" },
  python3: { probe: "command -v python3", package: "python3" },
  chromium: { probe: "command -v chromium", package: "chromium" },
  "mkfs.ext4": { probe: "command -v mkfs.ext4", package: "e2fsprogs" },
  mount: { probe: mountProbe, package: "mount, and run as root where mounting is allowed" },
  gcc: { probe: "echo 'int main(void) { return 0; }' | gcc -xc -o /dev/null -", package: "gcc and libc6-dev" },
  paho: { probe: "/usr/bin/python3 -c 'import paho.mqtt.client'", package: "python3-paho-mqtt" },
} as const;

/** A sentence about the first that is missing. */
export function findMissing(...names: readonly (keyof typeof programs)[]): string | undefined {
  const missing = names.find((name) => spawnSync("sh", ["-c", programs[name].probe]).status !== 0);
  return missing && `${missing} is missing: install Debian's ${programs[missing].package}`;
}

/** Skips the test, or lets it fail in CI, when a program is missing. */
export function needs(skip: TestContext["skip"], ...names: readonly (keyof typeof programs)[]): void {
  const missing = findMissing(...names);
  if (missing !== undefined && env["CI"] === undefined) skip(missing);
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
