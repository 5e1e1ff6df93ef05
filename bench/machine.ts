// On what a figure was measured: without it a figure means nothing.

import { execFile } from "node:child_process";
import { readFile, statfs } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import { promisify } from "node:util";

export interface Machine {
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  /** Of the last minute, before the run: what else the machine had to do. */
  readonly loadAverage: number;
  readonly kernel: string;
  /** Of the folder with the journal. */
  readonly fileSystem: string;
  readonly node: string;
  readonly versions: Readonly<Record<string, string>>;
  /** With `+changes` when the working tree differs from it. */
  readonly commit: string;
}

/** statfs(2) types that one meets. */
const fileSystems: Readonly<Record<number, string>> = {
  0xef53: "ext4",
  0x01021994: "tmpfs (a sync costs nothing here: choose another --data-dir)",
  0x58465342: "xfs",
  0x9123683e: "btrfs",
  0x794c7630: "overlayfs",
  0x2fc12fc1: "zfs",
};

/**
 * `packages`: whose versions are part of what was measured; `mosquitto` is the installed program. Resolves without its version
 * when it is not installed.
 */
export async function describeMachine(dataDir: string, packages: readonly string[]): Promise<Machine> {
  const { type } = await statfs(dataDir);
  return {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    loadAverage: Math.round((loadavg()[0] ?? 0) * 100) / 100,
    kernel: release(),
    fileSystem: fileSystems[type] ?? `0x${type.toString(16)}`,
    node: process.version,
    versions: Object.fromEntries(
      await Promise.all(packages.map(async (name) => [name, await versionOf(name)] as const)),
    ),
    commit: await commit(),
  };
}

export function toText(machine: Machine): string {
  const versions = Object.entries(machine.versions).map(([name, version]) => `${name} ${version}`);
  return [
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, Linux ${machine.kernel}, ${machine.fileSystem}, load average ${machine.loadAverage}`,
    `Node ${machine.node}, ${versions.join(", ")}; commit ${machine.commit}, ${machine.date}`,
  ].join("\n");
}

async function versionOf(name: string): Promise<string> {
  if (name === "mosquitto") return mosquittoVersion();
  if (name === "sqlite") return process.versions["sqlite"] ?? "unknown";
  const text = await readFile(new URL(`../node_modules/${name}/package.json`, import.meta.url), "utf8");
  return (JSON.parse(text) as { readonly version: string }).version;
}

/** Its help ends with an exit code of its own. */
async function mosquittoVersion(): Promise<string> {
  const help = await promisify(execFile)("mosquitto", ["-h"]).catch((error: { readonly stdout?: string }) => error);
  return /^mosquitto version (\S+)/.exec(help.stdout ?? "")?.[1] ?? "not installed";
}

async function commit(): Promise<string> {
  try {
    const head = await git("rev-parse", "--short", "HEAD");
    // A benchmark writes its figures: they change nothing of what the next one measures.
    const changes = await git("status", "--porcelain", "--", ".", ":!bench/results", ":!docs/benchmarks.md");
    return changes === "" ? head : `${head}+changes`;
  } catch {
    return "none";
  }
}

async function git(...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)("git", args, { cwd: new URL("..", import.meta.url) });
  return stdout.trim();
}
