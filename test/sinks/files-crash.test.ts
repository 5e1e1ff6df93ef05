import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
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

const originals: Readonly<Record<string, unknown>> = Object.fromEntries(calls.map((name) => [name, fs[name]]));
type Act = (...args: readonly unknown[]) => unknown;

function replaceCalls(functions: Readonly<Record<string, unknown>>): void {
  Object.assign(fs, functions);
  syncBuiltinESMExports();
}

interface BrokenDisk {
  readonly isBroken: () => boolean;
  readonly mend: () => void;
}

/**
 * The file system below `dir`, from its call number `at` on: only that one fails, or all that follow do too, as if the
 * process had ended there. A write that fails has written a part.
 */
function breakDisk(dir: string, at: number, isOver: boolean): BrokenDisk {
  let count = 0;
  const breakCall = (name: string, act: Act): Act => {
    return (...args) => {
      const [target, bytes] = args;
      const isCounted = typeof target === "number" || (typeof target === "string" && target.startsWith(dir));
      if (isCounted) count += 1;
      if (!isCounted || count < at || (isOver && count > at)) return act(...args);
      if (name === "closeSync") act(target);
      if (name === "writeFileSync" && count === at) act(target, (bytes as Uint8Array).subarray(0, 100));
      throw Object.assign(new Error(`EIO: ${name}, call ${at}`), { code: "EIO" });
    };
  };
  replaceCalls(Object.fromEntries(Object.entries(originals).map(([name, act]) => [name, breakCall(name, act as Act)])));
  const mend = (): void => replaceCalls(originals);
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
    { after: "the process ended", isOver: false },
    { after: "one call of the file system failed", isOver: true },
  ])("when $after, at each of its calls in turn", { timeout: 120_000 }, async ({ isOver }) => {
    let at = 0;
    let wasBroken = true;
    while (wasBroken) {
      at += 1;
      const context = await openContext();
      const disk = breakDisk(context.dataDir, at, isOver);
      let sink: Sink | undefined;
      try {
        sink = await openSink(context);
        await writeAll(sink, 7);
        await sink[Symbol.asyncDispose]();
      } catch {
        if (isOver) await Promise.allSettled([sink?.[Symbol.asyncDispose]()]);
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

  test.each(["ndjson", "parquet"])(
    "of %s, when the process is killed again and again",
    { timeout: 120_000 },
    async (format) => {
      const { dataDir } = await openContext();
      const start = (count: number): ChildProcess =>
        spawn(execPath, [join(import.meta.dirname, "files-writer.ts"), dataDir, format, String(count)], {
          stdio: ["ignore", "pipe", "inherit"],
        });
      for (let kills = 0; kills < 12; kills += 1) {
        const child = start(1_000_000);
        if (child.stdout !== null) await once(child.stdout, "data");
        await setTimeout(Math.random() * 200);
        child.kill("SIGKILL");
        expect(await once(child, "exit")).toEqual([null, "SIGKILL"]);
      }
      const written = (await readClosed(dataDir)).flatMap(({ rows }) => rows).length;
      expect(written).toBeGreaterThan(100);
      const count = written + 500;
      expect(await once(start(count), "exit")).toEqual([0, null]);
      await expectEachOnce(dataDir, count);
    },
  );
});
