import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { readdir } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import { execPath } from "node:process";
import { setTimeout } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import { files } from "../../src/sinks/files/files.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { makeEntry, openContext } from "../contract/sink.ts";
import { readClosed } from "./closed-files.ts";

const never = new AbortController().signal;
const { sink: type } = files();
const total = 40;
const streams = ["climate", "power"] as const;

const openSink = ({ dataDir, ...context }: SinkContext): Promise<Sink> =>
  type.open(type.settings.parse({ rotate: { bytes: 2_500 } }), { dataDir, ...context });

/** As the gateway's runner does it: from the sink's position on, and then from that of the last answer. */
async function writeAll(sink: Sink, size: number): Promise<void> {
  let next = (await sink.position?.()) ?? 0;
  while (next < total) {
    const to = Math.min(total, next + size);
    const entries = Array.from({ length: to - next }, (_, index) => {
      const entry = makeEntry(next + index);
      return { ...entry, reading: { ...entry.reading, stream: streams[entry.offset % 2] ?? "" } };
    });
    await sink.write({ gateway: "gateway-1", entries, next: toOffset(to) }, never);
    next = to;
  }
}

const calls = [
  "closeSync",
  "existsSync",
  "fsyncSync",
  "mkdirSync",
  "openSync",
  "readdirSync",
  "readFileSync",
  "renameSync",
  "statSync",
  "unlinkSync",
  "writeFileSync",
] as const;

/**
 * The file system from its n-th call on: `once`, only that one fails; otherwise all that follow do too, as if the process
 * had ended there. A write that fails has written half.
 */
function breakDisk(
  dir: string,
  at: number,
  once: boolean,
): { readonly isBroken: () => boolean; readonly mend: () => void } {
  let count = 0;
  const originals = calls.map((name) => [name, fs[name]] as const);
  const replace = (functions: readonly (readonly [string, unknown])[]): void => {
    Object.assign(fs, Object.fromEntries(functions));
    syncBuiltinESMExports();
  };
  const concerns = (target: unknown): boolean =>
    typeof target === "number" || (typeof target === "string" && target.startsWith(dir));
  replace(
    originals.map(([name, original]) => [
      name,
      (...args: readonly unknown[]): unknown => {
        if (concerns(args[0])) count += 1;
        const fails = concerns(args[0]) && (once ? count === at : count >= at);
        const act = original as (...args: readonly unknown[]) => unknown;
        if (!fails) return act(...args);
        const [target, bytes] = args;
        if (name === "closeSync") act(target);
        if (name === "writeFileSync" && count === at) act(target, (bytes as Uint8Array).subarray(0, 100));
        throw Object.assign(new Error(`EIO: ${name}, call ${at}`), { code: "EIO" });
      },
    ]),
  );
  const mend = (): void => replace(originals);
  onTestFinished(mend);
  return { isBroken: () => count >= at, mend };
}

async function expectEachOnce(folder: string, count: number): Promise<void> {
  const closed = await readClosed(folder);
  const offsets = closed.map(({ rows }) => rows.map(({ offset }) => Number(offset)));
  for (const one of offsets) expect(one).toEqual([...one].sort((a, b) => a - b));
  expect(offsets.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, offset) => offset));
  expect((await readdir(join(folder, ".sluice"))).filter((name) => name.endsWith(".tmp"))).toEqual([]);
}

describe("every reading is in exactly one closed file", () => {
  test.each([
    { after: "the process ended", once: false },
    { after: "one call of the file system failed", once: true },
  ])("when $after, at each of its calls in turn", { timeout: 120_000 }, async ({ once: onlyOne }) => {
    let at = 0;
    let wasBroken = true;
    while (wasBroken) {
      at += 1;
      const context = await openContext();
      const disk = breakDisk(context.dataDir, at, onlyOne);
      let sink: Sink | undefined;
      try {
        sink = await openSink(context);
        await writeAll(sink, 7);
        await sink[Symbol.asyncDispose]();
      } catch {
        if (onlyOne) await Promise.allSettled([sink?.[Symbol.asyncDispose]()]);
      }
      wasBroken = disk.isBroken();
      disk.mend();
      {
        await using again = await openSink(context);
        await writeAll(again, 5);
      }
      await expectEachOnce(join(context.dataDir, "files"), total);
    }
    expect(at).toBeGreaterThan(50);
  });

  test.each([
    { format: "ndjson", count: 40_000 },
    { format: "parquet", count: 10_000 },
  ])("of $format, when the process is killed again and again", { timeout: 120_000 }, async ({ format, count }) => {
    const { dataDir } = await openContext();
    let kills = 0;
    for (let code: unknown = null; code !== 0; kills += 1) {
      const args = [join(import.meta.dirname, "files-writer.ts"), dataDir, format, String(count)];
      const child = spawn(execPath, args, { stdio: ["ignore", "ignore", "inherit"] });
      const ended = once(child, "exit");
      const hasEnded = await Promise.race([ended, setTimeout(150 + Math.random() * 500)]);
      if (hasEnded === undefined) child.kill("SIGKILL");
      [code] = (await ended) as readonly unknown[];
    }
    expect(kills).toBeGreaterThan(3);
    await expectEachOnce(dataDir, count);
  });
});
