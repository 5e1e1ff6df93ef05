import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { Batch, Entry } from "../../src/reading.ts";
import { files } from "../../src/sinks/files/files.ts";
import { SinkError } from "../../src/sinks/sink.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { describeSink, makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import { readClosed, readWritten } from "./closed-files.ts";

const never = new AbortController().signal;
const folderOf = ({ dataDir }: SinkContext): string => join(dataDir, "files");
const { sink: type } = files();
const openSink = (context: SinkContext, settings: object = {}): Promise<Sink> =>
  type.open(type.settings.parse(settings), context);
/** Every batch closes its files. */
const atOnce = { rotate: { bytes: 1 } };

const offsetsOf = async (context: SinkContext): Promise<readonly number[]> =>
  (await readWritten(folderOf(context))).map(({ offset }) => offset);
const namesOf = async (context: SinkContext): Promise<readonly string[]> =>
  (await readClosed(folderOf(context))).map(({ path }) => path);
const hidden = (context: SinkContext): Promise<readonly string[]> => readdir(join(folderOf(context), ".sluice"));

/** An entry with another stream or hour. */
function makeOther(offset: number, other: Partial<Entry["reading"]>): Entry {
  const entry = makeEntry(offset);
  return { ...entry, reading: { ...entry.reading, ...other } };
}

const toBatch = (entries: readonly Entry[], next = (entries.at(-1)?.offset ?? 0) + 1): Batch => ({
  gateway: "gateway-1",
  entries,
  next: toOffset(next),
});

const messageOf = (given: object): string | undefined => type.settings.safeParse(given).error?.issues[0]?.message;

/** The clock of the gateway; it stands still. */
function setClock(text: string): void {
  vi.useFakeTimers({ toFake: ["Date"] });
  vi.setSystemTime(new Date(text));
  onTestFinished(() => void vi.useRealTimers());
}

for (const settings of [
  { format: "ndjson" },
  { format: "ndjson", compression: "gzip" },
  { format: "ndjson", compression: "zstd" },
  { format: "parquet" },
  { format: "parquet", compression: "none" },
  { format: "parquet", compression: "gzip" },
  { format: "parquet", compression: "zstd" },
]) {
  describeSink(`files of ${settings.format}, compression ${settings.compression ?? "by default"},`, {
    once: "exactly",
    open: (context) => openSink(context, { ...settings, ...atOnce }),
    rows: (context) => readWritten(folderOf(context)),
  });
}

describe("the sink of files", () => {
  test("writes what its file describes, where it says", async () => {
    const context = await openContext();
    await using sink = await openSink(context, atOnce);
    const receivedAt = Date.parse("2026-11-24T13:59:59.999Z");
    await sink.write(toBatch([makeOther(7, { receivedAt })], 9), never);
    const name = "stream=climate/date=2026-11-24/hour=13/gateway-1.tested.0000000000000007-0000000000000007.ndjson";
    expect(await readFile(join(folderOf(context), name), "utf8")).toBe(
      `{"gateway":"gateway-1","offset":7,"stream":"climate","device":"device-1","topic":"devices/device-1/telemetry",` +
        `"time":1007,"receivedAt":${receivedAt},"data":{"ts":1007,"text":"ünï ' \\" 7"}}\n`,
    );
    expect(await hidden(context)).toEqual(["gateway-1.tested.json"]);
    expect(await readFile(join(folderOf(context), ".sluice/gateway-1.tested.json"), "utf8")).toBe(
      `{"version":1,"position":9,"files":["${name}"]}`,
    );
  });

  test("holds what it is given until it is large enough, and nobody sees a part of it before", async () => {
    const context = await openContext();
    await using sink = await openSink(context, { rotate: { bytes: 1_500 } });
    expect(await sink.write(makeBatch([0, 1, 2]), never)).toEqual({ kind: "held" });
    expect(await sink.write(makeBatch([], 5), never)).toEqual({ kind: "held" });
    expect(await readdir(folderOf(context))).toEqual([".sluice"]);
    expect(await sink.position?.()).toBeUndefined();
    expect(await sink.write(makeBatch([5, 6, 7, 8, 9, 10]), never)).toEqual({ kind: "all" });
    expect(await offsetsOf(context)).toEqual([0, 1, 2, 5, 6, 7, 8, 9, 10]);
    expect(await namesOf(context)).toHaveLength(1);
    expect(await sink.position?.()).toBe(11);
  });

  test("closes its files when their oldest reading has waited long enough, also when nothing comes any more", async () => {
    setClock("2026-11-24T13:10:00Z");
    const context = await openContext();
    await using sink = await openSink(context);
    expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "held" });
    vi.advanceTimersByTime(59_999);
    expect(await sink.write(makeBatch([1]), never)).toEqual({ kind: "held" });
    vi.advanceTimersByTime(1);
    expect(await sink.write(makeBatch([], 2), never)).toEqual({ kind: "all" });
    expect(await offsetsOf(context)).toEqual([0, 1]);
    vi.advanceTimersByTime(59_999);
    expect(await sink.write(makeBatch([2]), never)).toEqual({ kind: "held" });
  });

  test("closes its files at the full hour", async () => {
    setClock("2026-11-24T13:59:59.900Z");
    const context = await openContext();
    await using sink = await openSink(context);
    expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "held" });
    vi.advanceTimersByTime(100);
    expect(await sink.write(makeBatch([], 1), never)).toEqual({ kind: "all" });
  });

  test("closes its files when it is closed", async () => {
    const context = await openContext();
    const sink = await openSink(context);
    expect(await sink.write(makeBatch([0, 1], 4), never)).toEqual({ kind: "held" });
    await sink[Symbol.asyncDispose]();
    expect(await offsetsOf(context)).toEqual([0, 1]);
    await expect(sink.write(makeBatch([4]), never)).rejects.toThrow("closed");
    await using again = await openSink(context);
    expect(await again.position?.()).toBe(4);
  });

  test("has a file for each stream and hour of receipt, and closes them together", async () => {
    const context = await openContext();
    await using sink = await openSink(context, atOnce);
    const hour = 3_600_000;
    const entries = [
      makeOther(0, { receivedAt: 5 * hour - 1 }),
      makeOther(1, { stream: "power", receivedAt: 5 * hour - 1 }),
      // Its device's clock is wrong.
      makeOther(2, { receivedAt: 5 * hour, time: 8_640_000_000_000_000 }),
      makeOther(3, { stream: "power", receivedAt: 5 * hour - 1 }),
      makeOther(4, { receivedAt: 5 * hour }),
    ];
    await sink.write(toBatch(entries), never);
    const closed = await readClosed(folderOf(context));
    expect(closed.map(({ path, rows }) => [path.slice(0, 40), rows.map(({ offset }) => offset)])).toEqual(
      [
        ["stream=climate/date=1970-01-01/hour=04/ga", [0]],
        ["stream=climate/date=1970-01-01/hour=05/ga", [2, 4]],
        ["stream=power/date=1970-01-01/hour=04/gate", [1, 3]],
      ].map(([path = "", offsets]) => [String(path).slice(0, 40), offsets]),
    );
  });

  test("has no more than 100 files open, however many hours a batch is about, and goes on behind those that it closed", async () => {
    const context = await openContext();
    const entries = Array.from({ length: 250 }, (_, offset) => makeOther(offset, { receivedAt: offset * 3_600_000 }));
    const sink = await openSink(context);
    expect(await sink.write(toBatch(entries), never)).toEqual({ kind: "held" });
    expect(await sink.position?.()).toBe(200);
    expect(await namesOf(context)).toHaveLength(200);
    await using again = await openSink(context);
    expect(await again.position?.()).toBe(200);
  });

  test("refuses only the entries whose data is not JSON, and keeps what it holds", async () => {
    for (const format of ["ndjson", "parquet"]) {
      const context = await openContext();
      const sink = await openSink(context, { format });
      await sink.write(makeBatch([0]), never);
      const entries = [makeEntry(1), makeEntry(2, { big: 1n }), makeOther(3, { data: undefined })];
      expect(await sink.write(toBatch(entries), never)).toEqual({
        kind: "except",
        refused: [{ offset: 2, reason: expect.stringMatching(/cannot be written as JSON: .*BigInt/) as string }],
      });
      await sink.write(toBatch(entries.filter(({ offset }) => offset !== 2)), never);
      await sink[Symbol.asyncDispose]();
      expect((await readWritten(folderOf(context))).map(({ offset, data }) => [offset, data])).toEqual([
        [0, { ts: 1_000, text: "ünï ' \" 0" }],
        [1, { ts: 1_001, text: "ünï ' \" 1" }],
        [3, null],
      ]);
    }
  });

  test("writes a batch of 50,000 entries, and a reading of 10,000 fields", async () => {
    for (const format of ["ndjson", "parquet"]) {
      const context = await openContext();
      const sink = await openSink(context, { format });
      const wide = Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`field ${index}`, index]));
      const entries = Array.from({ length: 50_000 }, (_, offset) => makeEntry(offset, offset === 7 ? wide : undefined));
      await sink.write(toBatch(entries), never);
      await sink[Symbol.asyncDispose]();
      const written = await readWritten(folderOf(context));
      expect(written.map(({ offset }) => offset)).toEqual(entries.map(({ offset }) => offset));
      expect(written[7]?.data).toEqual(wide);
    }
  });

  test("keeps the files and positions of two gateways, and of two sinks of a gateway, apart in one folder", async () => {
    const context = await openContext();
    const open = (gateway: string, name: string): Promise<Sink> => openSink({ ...context, gateway, name }, atOnce);
    const write = async (gateway: string, name: string, next: number): Promise<void> => {
      await using sink = await open(gateway, name);
      await sink.write({ ...makeBatch([0], next), gateway }, never);
    };
    await write("gateway-1", "files", 1);
    await write("gateway-1", "files-2", 2);
    await write("gateway-2", "files", 3);
    const positions = await Promise.all(
      [
        ["gateway-1", "files"],
        ["gateway-1", "files-2"],
        ["gateway-2", "files"],
        ["gateway-2", "files-2"],
      ].map(async ([gateway = "", name = ""]) => {
        await using sink = await open(gateway, name);
        return await sink.position?.();
      }),
    );
    expect(positions).toEqual([1, 2, 3, undefined]);
    expect(await namesOf(context)).toHaveLength(3);
  });
});

describe("a replay into files", () => {
  test("writes files of its own beside those that are there, and neither asks for nor moves the position", async () => {
    const context = await openContext();
    {
      await using sink = await openSink(context, atOnce);
      await sink.write(makeBatch([0, 1, 2]), never);
    }
    const replayed = { ...makeBatch([0, 2], 3), replay: true };
    await using sink = await openSink(context, atOnce);
    expect(await sink.write(replayed, never)).toEqual({ kind: "all" });
    expect(await sink.write({ ...makeBatch([], 9), replay: true }, never)).toEqual({ kind: "all" });
    expect(await sink.position?.()).toBe(3);
    const closed = await readClosed(folderOf(context));
    expect(closed.map(({ rows }) => rows.map(({ offset }) => offset))).toEqual([
      [0, 1, 2],
      [0, 2],
    ]);
    expect(closed[1]?.path).toMatch(/gateway-1\.tested\.replay-\d+\.0000000000000000-0000000000000002\.ndjson$/);
  });

  test("is made durable at its end, however long `rotate` is", async () => {
    const context = await openContext();
    await using sink = await openSink(context);
    expect(await sink.write({ ...makeBatch([0, 1]), replay: true }, never)).toEqual({ kind: "held" });
    expect(await sink.write({ ...makeBatch([], 2), replay: true }, never)).toEqual({ kind: "all" });
    expect(await readClosed(folderOf(context))).toMatchObject([{ rows: [{ offset: 0 }, { offset: 1 }] }]);
  });

  test("is held like other readings, and is no part of a file with them", async () => {
    const context = await openContext();
    const sink = await openSink(context);
    expect(await sink.write({ ...makeBatch([0, 1]), replay: true }, never)).toEqual({ kind: "held" });
    expect(await sink.write(makeBatch([1, 2]), never)).toEqual({ kind: "held" });
    await sink[Symbol.asyncDispose]();
    const closed = await readClosed(folderOf(context));
    expect(closed.map(({ rows }) => rows.map(({ offset }) => offset))).toEqual([
      [1, 2],
      [0, 1],
    ]);
    expect(await sink.position?.()).toBe(3);
  });
});

describe("the sink of files says what is wrong with", () => {
  test("a file where its folder should be, which only a person can mend", async () => {
    const context = await openContext();
    await writeFile(join(context.dataDir, "files"), "");
    const opening = openSink(context);
    await expect(opening).rejects.toThrow(/files: E(EXIST|NOTDIR).*A file is where a folder should be/);
    await expect(opening).rejects.toMatchObject({ kind: "misconfigured" });
    await expect(openSink(context, { path: join(context.dataDir, "files/below") })).rejects.toThrow(SinkError);
  });

  test("a file where a folder of an hour should be; once it is gone everything is written, once", async () => {
    const context = await openContext();
    const sink = await openSink(context, atOnce);
    await writeFile(join(folderOf(context), "stream=climate"), "");
    await expect(sink.write(makeBatch([0, 1]), never)).rejects.toThrow(/A file is where a folder should be/);
    await sink[Symbol.asyncDispose]();
    await expect(openSink(context, atOnce)).rejects.toThrow(/A file is where a folder should be/);
    await rm(join(folderOf(context), "stream=climate"));
    await using again = await openSink(context, atOnce);
    expect(await again.position?.()).toBe(2);
    expect(await offsetsOf(context)).toEqual([0, 1]);
  });

  test("a folder that was moved away, and makes a new one when it is opened again", async () => {
    const context = await openContext();
    const sink = await openSink(context, atOnce);
    await rename(folderOf(context), `${folderOf(context)}.1`);
    await mkdir(folderOf(context));
    await expect(sink.write(makeBatch([0]), never)).rejects.toThrow(/files: the folder was moved or deleted/);
    await expect(sink.write(makeBatch([0]), never)).rejects.toThrow("failed");
    await sink[Symbol.asyncDispose]();
    expect(await readdir(folderOf(context))).toEqual([]);
    await using again = await openSink(context, atOnce);
    expect(await again.write(makeBatch([0]), never)).toEqual({ kind: "all" });
  });

  test("a position that was damaged, and leaves it alone", async () => {
    const context = await openContext();
    const state = join(folderOf(context), ".sluice/gateway-1.tested.json");
    await mkdir(join(folderOf(context), ".sluice"), { recursive: true });
    for (const text of ["", `{"version":2,"position":1,"files":[]}`, `{"version":1,"position":-1,"files":[]}`]) {
      await writeFile(state, text);
      const opening = openSink(context);
      await expect(opening).rejects.toThrow(/gateway-1\.tested\.json: it was damaged, or written by a newer Sluice/);
      await expect(opening).rejects.toMatchObject({ kind: "misconfigured" });
      expect(await readFile(state, "utf8")).toBe(text);
    }
  });

  test("a compression that the format has not, and bounds", () => {
    expect(messageOf({ compression: "snappy" })).toBe(
      "snappy is a compression of parquet: expected none, gzip or zstd",
    );
    expect(messageOf({ format: "parquet", compression: "snappy" })).toBeUndefined();
    expect(messageOf({ rotate: { timeMs: 999 } })).toContain("1000");
    expect(messageOf({ rotate: { bytes: 2 ** 28 } })).toContain("134217728");
    expect(messageOf({ layuot: "wide" })).toContain("layuot");
    expect(existsSync("files")).toBe(false);
  });
});
