// What a sink can do to its thread, and what its settings do with the readings that it is given.

import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openCursor } from "../../src/journal/cursor.ts";
import { toOffset } from "../../src/reading.ts";
import { openBench, patiently, range, reaches, statusOf, totalErrors } from "./open-dispatch.ts";
import type { Bench } from "./open-dispatch.ts";

/** A sink that writes offsets to `out` and, before that, does what `text` says as long as there is no file `well`. */
const troubled = (
  text: string,
  settings = "{}",
): string => `const troubled = sinkOf("troubled", async ({ entries }, signal) => {
  if (!existsSync(join(dir, "well"))) { ${text} }
  for (const { offset } of entries) appendFileSync(join(dir, "out"), offset + "\\n");
  return { kind: "all" };
});
const calm = sinkOf("calm", async ({ entries }) => {
  for (const { offset } of entries) appendFileSync(join(dir, "calm"), offset + "\\n");
  return { kind: "all" };
});
export default defineGateway({ streams: [climate, other], sinks: [troubled(${settings}), calm()] });`;

const both = { sinks: [{ name: "troubled" }, { name: "calm" }], handlers: [] };
const heal = ({ dir }: Bench): Promise<void> => writeFile(join(dir, "well"), "");
const toLines = (offsets: readonly number[]): readonly string[] => offsets.map(String);

describe("a sink's worker is replaced, and the other sink goes on, when the sink", () => {
  test.each([
    ["loops for ever", "for (;;) {}", "{}", "has not answered for"],
    ["does not settle, whatever its signal says", "await new Promise(() => {});", "{ timeoutMs: 100 }", "did not end"],
    ["exits", "process.exit(3);", "{}", "exit code 3"],
    [
      "throws where nobody catches",
      `setImmediate(() => { throw new Error("stray"); }); await new Promise(() => {});`,
      "{}",
      "stray",
    ],
    [
      "needs more memory than it may",
      "const kept = []; for (;;) kept.push(new Array(1e6).fill(Math.random()));",
      "{}",
      "memory",
    ],
  ])("%s", async (_name, text, settings, reason) => {
    const bench = await openBench();
    await bench.configure(troubled(text, settings));
    await bench.append(10);
    const dispatcher = await bench.open({ ...both, heapMb: 64, silentMs: 2_000 });
    await reaches(dispatcher, "calm", 10);
    await expect.poll(() => statusOf(dispatcher, "troubled").lastError, patiently).toContain(reason);
    await bench.append(10);
    await reaches(dispatcher, "calm", 20);
    expect(statusOf(dispatcher, "troubled")).toMatchObject({ position: 0, delivered: 0, lagRecords: 20 });
    await heal(bench);
    await reaches(dispatcher, "troubled", 20);
    expect(bench.lines("out")).toEqual(toLines(range(0, 20)));
    expect(bench.lines("calm")).toEqual(toLines(range(0, 20)));
  });
});

describe("a sink that fails", () => {
  test("because a person must mend something is told as misconfigured, with its own sentence", async () => {
    const bench = await openBench();
    await bench.configure(
      troubled(`throw Object.assign(new Error("the table is missing"), { kind: "misconfigured" });`),
    );
    await bench.append(3);
    const dispatcher = await bench.open({ ...both, backoff: { minimumMs: 1, maximumMs: 50 } });
    await expect.poll(() => statusOf(dispatcher, "troubled").errors.misconfigured, patiently).toBeGreaterThan(2);
    expect(statusOf(dispatcher, "troubled")).toMatchObject({
      state: "misconfigured",
      lastError: "the table is missing",
    });
    await heal(bench);
    await reaches(dispatcher, "troubled", 3);
    expect(bench.states.filter((state) => state.startsWith("troubled"))).toEqual([
      "troubled: starting",
      "troubled: misconfigured the table is missing",
      "troubled: running",
    ]);
  });

  test("when it takes longer than it may is opened anew, in the same thread", async () => {
    const bench = await openBench();
    await bench.configure(
      troubled(
        `await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));`,
        "{ timeoutMs: 100 }",
      ),
    );
    await bench.append(3);
    const dispatcher = await bench.open(both);
    await expect.poll(() => statusOf(dispatcher, "troubled").errors.transient, patiently).toBeGreaterThan(1);
    expect(statusOf(dispatcher, "troubled").lastError).toBe("a write took longer than 100 ms");
    await heal(bench);
    await reaches(dispatcher, "troubled", 3);
    expect(bench.lines("out")).toEqual(["0", "1", "2"]);
  });

  test("by refusing batches for the content of one record parks this one, and says how often it was tried", async () => {
    const bench = await openBench();
    await bench.configure(
      troubled(`if (entries.some(({ offset }) => offset === 57)) return { kind: "refused", reason: "57 is unlucky" };`),
    );
    await bench.append(100);
    const dispatcher = await bench.open(both);
    await reaches(dispatcher, "troubled", 100);
    expect(bench.lines("out")).toEqual(toLines(range(0, 100).filter((offset) => offset !== 57)));
    expect(bench.parked()).toMatchObject([{ sink: "troubled", offset: 57, error: "57 is unlucky", stream: "climate" }]);
    const { errors, delivered, parked, lagRecords } = statusOf(dispatcher, "troubled");
    expect({ delivered, parked, lagRecords }).toEqual({ delivered: 99, parked: 1, lagRecords: 0 });
    expect(errors).toEqual({ transient: 0, refused: Number(bench.parked()[0]?.["attempts"]), misconfigured: 0 });
  });
});

const configured = (settings: string): string => `const one = sinkOf("one", async ({ entries, next }) => {
    appendFileSync(join(dir, "batches"), entries.length + "\\n");
    for (const { offset } of entries) appendFileSync(join(dir, "out"), offset + "\\n");
    return { kind: "all" };
  });
  export default defineGateway({ streams: [climate, other], sinks: [one(${settings})] });`;

const appendOther = async ({ journal }: Bench): Promise<void> => {
  const message = { topic: "other/d1", payload: Buffer.from(`{"seq":1}`), clientId: "d1", deviceId: "d1" };
  journal.append({ ...message, receivedAt: Date.now(), qos: 1, packetId: 0 }, "other");
  await journal.flush();
};

describe("the settings of a sink", () => {
  const one = { sinks: [{ name: "one" }], handlers: [] };
  test("`only` gives it the readings of these streams, and counts what it passes", async () => {
    const bench = await openBench();
    await bench.configure(configured(`{ only: ["other"] }`));
    await bench.append(5);
    await appendOther(bench);
    await bench.append(5);
    const dispatcher = await bench.open(one);
    await reaches(dispatcher, "one", 11);
    expect(bench.lines("out")).toEqual(["5"]);
    expect(statusOf(dispatcher, "one")).toMatchObject({ delivered: 1, passed: 10 });
  });

  test("`from: now` begins behind what is there when it is new, and goes on where it was when it is not", async () => {
    const bench = await openBench();
    await bench.configure(configured(`{ from: "now" }`));
    await bench.append(5);
    const first = await bench.open(one);
    await reaches(first, "one", 5);
    await bench.append(2);
    await reaches(first, "one", 7);
    await first.stop(AbortSignal.timeout(5_000));
    await bench.append(2);
    const second = await bench.open(one);
    await reaches(second, "one", 9);
    expect(bench.lines("out")).toEqual(["5", "6", "7", "8"]);
    expect(statusOf(second, "one").expired).toBe(0);
  });

  test("`from: now` does not skip what a damaged cursor no longer tells of", async () => {
    const bench = await openBench();
    await bench.configure(configured(`{ from: "now" }`));
    await bench.append(5);
    const dir = join(bench.dataDir, "journal/cursors");
    const dispatcher = await bench.open({ sinks: [], handlers: [] });
    await dispatcher.stop(AbortSignal.timeout(5_000));
    await writeFile(join(dir, "one.cursor"), Buffer.alloc(4_096, 7));
    const again = await bench.open(one);
    await expect.poll(() => bench.lines("out"), patiently).toEqual(toLines(range(0, 5)));
    expect(statusOf(again, "one")).toMatchObject({ expired: 0 });
  });

  test("`batch` bounds how many readings a write is given", async () => {
    const bench = await openBench();
    await bench.configure(configured(`{ batch: { records: 3 } }`));
    await bench.append(8);
    const dispatcher = await bench.open(one);
    await reaches(dispatcher, "one", 8);
    expect(bench.lines("batches")).toEqual(["3", "3", "2"]);
  });
});

test("a consumer that is not configured lets go of the journal once its cursor is deleted", async () => {
  const bench = await openBench();
  await bench.configure(`export default defineGateway({ streams: [climate], sinks: [sqlite()] });`);
  const dir = join(bench.dataDir, "journal/cursors");
  const first = await bench.open({ sinks: [], handlers: [] });
  await first.stop(AbortSignal.timeout(5_000));
  await openCursor({ dir, journalId: bench.journal.id, name: "go ne", start: toOffset(3) })[Symbol.asyncDispose]();
  await bench.append(10);
  const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }], handlers: [] });
  const told: number[] = [];
  dispatcher.onCursor((least) => told.push(least));
  await expect.poll(() => statusOf(dispatcher, "sqlite").durable, patiently).toBe(10);
  expect(told).toEqual([3]);
  await rm(join(dir, "go%20ne.cursor"));
  await expect.poll(() => told, patiently).toEqual([3, 10]);
  expect(dispatcher.status().map(({ name }) => name)).toEqual(["sqlite"]);
});

test("lag, rate and ETA of a sink that is behind are told in records, bytes and seconds", async () => {
  const bench = await openBench();
  await bench.configure(
    troubled(`await new Promise((resolve) => setTimeout(resolve, 100));`, "{ batch: { records: 10 } }"),
  );
  await bench.append(2_000);
  const dispatcher = await bench.open(both);
  await expect.poll(() => statusOf(dispatcher, "troubled").ratePerSecond, patiently).toBeGreaterThan(0);
  await expect.poll(() => statusOf(dispatcher, "troubled").etaSeconds, patiently).toBeGreaterThan(0);
  const { lagRecords, lagBytes, lagSeconds } = statusOf(dispatcher, "troubled");
  expect(lagBytes).toBeGreaterThan(lagRecords * 40);
  expect(lagBytes).toBeLessThan(lagRecords * 200);
  expect(lagSeconds).toBeGreaterThan(0);
  await heal(bench);
  await reaches(dispatcher, "troubled", 2_000);
  expect(statusOf(dispatcher, "troubled")).toMatchObject({ lagRecords: 0, lagBytes: 0, lagSeconds: 0, etaSeconds: 0 });
  expect(totalErrors(statusOf(dispatcher, "troubled"))).toBe(0);
});
