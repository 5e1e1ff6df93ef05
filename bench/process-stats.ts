// What a process has used, read from proc(5). Linux only, as all of the benchmarks.

import { readdirSync, readFileSync } from "node:fs";

/** USER_HZ, the unit of /proc/<pid>/stat: 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** Seconds of CPU (user and system) of all threads of the processes, those that have ended included. */
export const readCpuSeconds = (pids: readonly number[]): number =>
  sum(pids.map((pid) => cpuSeconds(`/proc/${pid}/stat`)));

/** The same thread by thread, by its name; threads of one name are one. */
export function readThreadSeconds(pids: readonly number[]): Readonly<Record<string, number>> {
  const seconds: Record<string, number> = {};
  const threads = pids.flatMap((pid) => readdirSync(`/proc/${pid}/task`).map((id) => `/proc/${pid}/task/${id}`));
  for (const thread of threads) {
    try {
      const name = readFileSync(`${thread}/comm`, "utf8").trim();
      seconds[name] = (seconds[name] ?? 0) + cpuSeconds(`${thread}/stat`);
    } catch {
      // It has ended meanwhile.
    }
  }
  return seconds;
}

/** What the threads have used from one reading to the next; without those that did nothing. */
export function toThreadSeconds(
  before: Readonly<Record<string, number>>,
  after: Readonly<Record<string, number>>,
): Readonly<Record<string, number>> {
  const seconds = Object.entries(after).map(([name, value]) => [name, value - (before[name] ?? 0)] as const);
  return Object.fromEntries(seconds.filter(([, value]) => value >= 1 / TICKS_PER_SECOND));
}

/** What all processes and the kernel have used, on all cores: the first line of /proc/stat without idle and iowait. */
export function readMachineSeconds(): number {
  const [, user, nice, system, , , irq, softirq, steal] = readFileSync("/proc/stat", "utf8").split(/ +/, 9).map(Number);
  const ticks = [user, nice, system, irq, softirq, steal].reduce<number>((total, value) => total + (value ?? 0), 0);
  return ticks / TICKS_PER_SECOND;
}

/** Resident memory of the processes in bytes. */
export const readRssBytes = (pids: readonly number[]): number => sum(pids.map(rssBytes));

function rssBytes(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  if (kib === undefined) throw new Error(`process ${pid} has no memory: it has ended`);
  return Number(kib) * 1024;
}

/** How many files and sockets a child of this process may have open: Node raises its own limit, and children inherit it. */
export function readFileLimit(): number {
  const limit = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
  return limit === undefined ? Number.POSITIVE_INFINITY : Number(limit);
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** Fields 14 and 15, counted from the name in brackets, which may hold blanks. */
function cpuSeconds(statFile: string): number {
  const stat = readFileSync(statFile, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
