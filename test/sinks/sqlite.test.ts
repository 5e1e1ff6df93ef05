import { mkdir, readdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { DatabaseSyncOptions } from "node:sqlite";
import { setImmediate } from "node:timers/promises";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { sqlite } from "../../src/sinks/sqlite.ts";
import { describeSink, makeBatch, makeEntry, openContext } from "../contract/sink.ts";

const never = new AbortController().signal;
const fileOf = ({ dataDir }: SinkContext): string => join(dataDir, "telemetry.db");
const openSink = (context: SinkContext, path?: string, index = "device"): Promise<Sink> =>
  sqlite().sink.open({ path, layout: "document", index }, context);

function openReader(path: string, options: DatabaseSyncOptions = { readOnly: true }): DatabaseSync {
  const db = new DatabaseSync(path, options);
  onTestFinished(() => {
    if (db.isOpen) db.close();
  });
  return db;
}

/** What is measured with performance.now() takes no time but what the test says. */
function stopClock(): { advance: (ms: number) => void } {
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
  return { advance: (ms) => void vi.advanceTimersByTime(ms) };
}

function succeeds(work: () => void): boolean {
  try {
    work();
    return true;
  } catch {
    return false;
  }
}

describeSink("sqlite", {
  once: "exactly",
  open: (context) => openSink(context),
  rows: async (context) => {
    using db = new DatabaseSync(fileOf(context), { readOnly: true });
    return db
      .prepare(`SELECT gateway, offset, device, time, data FROM readings ORDER BY gateway, offset`)
      .all()
      .map((row) => ({
        gateway: String(row["gateway"]),
        offset: Number(row["offset"]),
        device: String(row["device"]),
        time: Number(row["time"]),
        data: JSON.parse(String(row["data"])) as unknown,
      }));
  },
});

describe("the sqlite sink", () => {
  test("makes its folder, and the table that its file describes", async () => {
    const context = await openContext();
    const path = join(context.dataDir, "a/b/c.db");
    await using sink = await openSink(context, path);
    await sink.write(makeBatch([7]), never);
    expect(openReader(path).prepare("SELECT * FROM readings").all()).toEqual([
      {
        gateway: "gateway-1",
        offset: 7,
        received_at: 2_007,
        time: 1_007,
        stream: "climate",
        device: "device-1",
        topic: "devices/device-1/telemetry",
        data: `{"ts":1007,"text":"ünï ' \\" 7"}`,
      },
    ]);
  });

  test.each([
    ["device", ["readings_by_device"], "device,time"],
    ["time", ["readings_by_time"], "time"],
    ["none", [], null],
  ])("makes its table with index %s", async (index, names, columns) => {
    const context = await openContext();
    await using sink = await openSink(context, undefined, index);
    await sink.write(makeBatch([7]), never);
    const made = openReader(fileOf(context)).prepare(
      "SELECT name FROM pragma_index_list('readings') WHERE origin = 'c'",
    );
    expect(made.all().map(({ name }) => name)).toEqual(names);
    const columnsOf = openReader(fileOf(context)).prepare(
      "SELECT group_concat(name) AS columns FROM pragma_index_info(?)",
    );
    expect(columnsOf.get(names[0] ?? "")).toEqual({ columns });
  });

  test.each([
    ["device", 4_096],
    ["time", 16_384],
  ])(
    "makes a file for index %s with pages of its own, and leaves those of a file that is there",
    async (index, bytes) => {
      const context = await openContext();
      const pages = (): unknown => openReader(fileOf(context)).prepare("PRAGMA page_size").get();
      await using sink = await openSink(context, undefined, index);
      await sink.write(makeBatch([7]), never);
      expect(pages()).toEqual({ page_size: bytes });
      await using other = await openSink(
        { ...context, name: "other" },
        undefined,
        index === "time" ? "device" : "time",
      );
      expect(await other.write(makeBatch([8]), never)).toEqual({ kind: "all" });
      expect(pages()).toEqual({ page_size: bytes });
    },
  );

  test("can be read by another process while it writes, with SQLite's JSON functions", async () => {
    const context = await openContext();
    await using sink = await openSink(context);
    await sink.write(makeBatch([1]), never);
    const reader = openReader(fileOf(context));
    reader.exec("BEGIN");
    const select = reader.prepare("SELECT sum(json_extract(data, '$.ts')) AS sum FROM readings");
    expect(select.get()).toEqual({ sum: 1_001 });
    await sink.write(makeBatch([2]), never);
    expect(select.get()).toEqual({ sum: 1_001 });
    reader.exec("COMMIT");
    expect(select.get()).toEqual({ sum: 2_003 });
  });

  test("writes nothing of a batch that it cannot finish: rows and cursor stay together", async () => {
    const context = await openContext();
    await using sink = await openSink(context);
    await sink.write(makeBatch([0]), never);
    const other = openReader(fileOf(context), { readOnly: false });
    other.exec(
      `CREATE TRIGGER stop BEFORE INSERT ON readings WHEN NEW.offset = 5 BEGIN SELECT raise(ABORT, 'not five'); END`,
    );
    await expect(sink.write(makeBatch([3, 4, 5, 6]), never)).rejects.toThrow("not five");
    expect(await sink.position?.()).toBe(1);
    expect(other.prepare("SELECT count(*) AS n FROM readings").get()).toEqual({ n: 1 });
    other.exec("DROP TRIGGER stop");
    expect(await sink.write(makeBatch([3, 4, 5, 6]), never)).toEqual({ kind: "all" });
    expect(await sink.position?.()).toBe(7);
  });

  test("makes what it holds back durable with the last batch, in one transaction", async () => {
    const context = await openContext();
    await using sink = await openSink(context);
    const reader = openReader(fileOf(context));
    const count = reader.prepare(
      "SELECT (SELECT count(*) FROM readings) AS n, (SELECT offset FROM sluice_cursor) AS cursor",
    );
    expect(await sink.write({ ...makeBatch([0, 1]), moreFollows: true }, never)).toEqual({ kind: "held" });
    expect(await sink.write({ ...makeBatch([2, 3]), moreFollows: true }, never)).toEqual({ kind: "held" });
    expect(count.get()).toEqual({ n: 0, cursor: null });
    expect(await sink.write(makeBatch([], 9), never)).toEqual({ kind: "all" });
    expect(count.get()).toEqual({ n: 4, cursor: 9 });
  });

  test("holds back no more than 40,000 rows, no more than 16 million characters, and nothing longer than 200 ms", async () => {
    const clock = stopClock();
    const context = await openContext();
    await using sink = await openSink(context);
    const kinds: string[] = [];
    for (let from = 0; from < 44_000; from += 4_000) {
      const offsets = Array.from({ length: 4_000 }, (_, index) => from + index);
      kinds.push((await sink.write({ ...makeBatch(offsets), moreFollows: true }, never)).kind);
    }
    expect(kinds).toEqual([...Array.from({ length: 9 }, () => "held"), "all", "held"]);
    const entries = [makeEntry(50_000, "x".repeat(17 * 1024 * 1024))];
    const large = { gateway: "gateway-1", entries, next: toOffset(50_001), moreFollows: true };
    expect(await sink.write(large, never)).toEqual({ kind: "all" });
    const held = { ...makeBatch([50_001]), moreFollows: true };
    expect(await sink.write(held, never)).toEqual({ kind: "held" });
    clock.advance(199);
    expect(await sink.write(held, never)).toEqual({ kind: "held" });
    clock.advance(1);
    expect(await sink.write(held, never)).toEqual({ kind: "all" });
    expect(await sink.write(held, never)).toEqual({ kind: "held" });
  });

  test("writes a batch that takes long in several transactions, each with the position behind its rows", async () => {
    const context = await openContext();
    await using sink = await openSink(context);
    let nowMs = 0;
    vi.spyOn(performance, "now").mockImplementation(() => (nowMs += 10));
    onTestFinished(() => void vi.restoreAllMocks());
    const count = openReader(fileOf(context)).prepare("SELECT count(*) AS n FROM readings");
    const batch = makeBatch(Array.from({ length: 100 }, (_, offset) => offset));
    const stopping = new AbortController();
    const writing = sink.write(batch, stopping.signal);
    // Between two transactions others may write.
    const other = openReader(fileOf(context), { readOnly: false, timeout: 0 });
    while (!succeeds(() => other.exec("CREATE TABLE other (a)"))) await setImmediate();
    stopping.abort(new Error("enough"));
    await expect(writing).rejects.toThrow("enough");
    const { n } = count.get() ?? {};
    expect([24, 48, 72]).toContain(n);
    expect(await sink.position?.()).toBe(n);
    expect(await sink.write({ ...batch, moreFollows: true }, never)).toEqual({ kind: "all" });
    expect([count.get(), await sink.position?.()]).toEqual([{ n: 100 }, 100]);
  });

  test("has nothing of what it held back when it is closed", async () => {
    const context = await openContext();
    const sink = await openSink(context);
    await sink.write({ ...makeBatch([0, 1]), moreFollows: true }, never);
    await sink[Symbol.asyncDispose]();
    expect(openReader(fileOf(context)).prepare("SELECT count(*) AS n FROM readings").get()).toEqual({ n: 0 });
    await using again = await openSink(context);
    expect(await again.position?.()).toBeUndefined();
  });

  test("has nothing of what it held back when a later batch fails", async () => {
    const context = await openContext();
    const reader = openReader(join(context.dataDir, "telemetry.db"), { readOnly: false });
    await using sink = await openSink(context);
    reader.exec(
      `CREATE TRIGGER stop BEFORE INSERT ON readings WHEN NEW.offset = 5 BEGIN SELECT raise(ABORT, 'not five'); END`,
    );
    await sink.write({ ...makeBatch([0, 1]), moreFollows: true }, never);
    await expect(sink.write(makeBatch([4, 5]), never)).rejects.toThrow("not five");
    expect(reader.prepare("SELECT count(*) AS n FROM readings").get()).toEqual({ n: 0 });
    reader.exec("DROP TRIGGER stop");
    expect(await sink.position?.()).toBeUndefined();
  });

  test("keeps what it held back when it refuses an entry of a later batch, and writes the others", async () => {
    const context = await openContext();
    await using sink = await openSink(context);
    await sink.write({ ...makeBatch([0, 1]), moreFollows: true }, never);
    const entries = [makeEntry(2), makeEntry(3, { big: 1n }), makeEntry(4)];
    const batch = { gateway: "gateway-1", entries, next: toOffset(5) };
    expect(await sink.write(batch, never)).toMatchObject({ kind: "except", refused: [{ offset: 3 }] });
    const others = entries.filter(({ offset }) => offset !== 3);
    expect(await sink.write({ ...batch, entries: others }, never)).toEqual({ kind: "all" });
    const offsets = openReader(fileOf(context)).prepare("SELECT offset FROM readings ORDER BY offset").all();
    expect(offsets.map((row) => row["offset"])).toEqual([0, 1, 2, 4]);
    expect(await sink.position?.()).toBe(5);
  });

  test("says that another process holds the lock, and writes once it is free", async () => {
    const context = await openContext();
    await using sink = await openSink(context);
    const other = openReader(fileOf(context), { readOnly: false });
    other.exec("BEGIN EXCLUSIVE");
    await expect(sink.write(makeBatch([0]), never)).rejects.toThrow(/telemetry\.db: .*locked.*Another process/);
    other.exec("ROLLBACK");
    expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "all" });
  });

  test("waits for the lock for a while, and stops waiting when nobody waits for it any longer", async () => {
    const context = await openContext();
    await using sink = await openSink(context);
    const other = openReader(fileOf(context), { readOnly: false });
    other.exec("BEGIN IMMEDIATE");
    const writing = sink.write(makeBatch([0]), never);
    other.exec("ROLLBACK");
    expect(await writing).toEqual({ kind: "all" });
    other.exec("BEGIN IMMEDIATE");
    const stopping = new AbortController();
    const stopped = sink.write(makeBatch([1]), stopping.signal);
    stopping.abort(new Error("enough"));
    await expect(stopped).rejects.toThrow("enough");
    other.exec("ROLLBACK");
    expect(other.prepare("SELECT count(*) AS n FROM readings").get()).toEqual({ n: 1 });
  });

  test("notices that its file was moved away, and makes a new one when it is opened again", async () => {
    const context = await openContext();
    await using sink = await openSink(context);
    await sink.write(makeBatch([0]), never);
    await rename(fileOf(context), `${fileOf(context)}.1`);
    await expect(sink.write(makeBatch([1]), never)).rejects.toThrow("moved");
    await sink[Symbol.asyncDispose]();
    await using again = await openSink(context);
    expect(await again.write(makeBatch([1]), never)).toEqual({ kind: "all" });
  });
});

describe("the sqlite sink cannot be opened, and says why, with", () => {
  test("a path that is a folder", async () => {
    const context = await openContext();
    await mkdir(fileOf(context));
    await expect(openSink(context)).rejects.toThrow(/telemetry\.db: unable to open.*check that it is a file/);
  });

  test("a file that is not a database", async () => {
    const context = await openContext();
    await writeFile(fileOf(context), "not a database, ".repeat(100));
    await expect(openSink(context)).rejects.toThrow(/telemetry\.db: file is not a database.*another kind of file/);
    expect(await readdir(context.dataDir)).toEqual(["telemetry.db"]);
  });

  test("a file where its folder should be", async () => {
    const context = await openContext();
    await writeFile(join(context.dataDir, "folder"), "");
    await expect(openSink(context, join(context.dataDir, "folder/x.db"))).rejects.toThrow(/folder\/x\.db: /);
  });

  test("a schema of a newer version, which it leaves alone", async () => {
    const context = await openContext();
    openReader(fileOf(context), { readOnly: false }).exec("PRAGMA user_version = 3");
    await expect(openSink(context)).rejects.toMatchObject({
      kind: "misconfigured",
      message: expect.stringContaining("version 3, written by a newer Sluice; this one knows 2") as string,
    });
    expect(openReader(fileOf(context)).prepare("SELECT count(*) AS n FROM sqlite_schema").get()).toEqual({ n: 0 });
  });

  test("a database that has a table of another program in its place", async () => {
    const context = await openContext();
    openReader(fileOf(context), { readOnly: false }).exec("CREATE TABLE readings (a)");
    await expect(openSink(context)).rejects.toThrow(/telemetry\.db: table readings is not one that Sluice has made/);
    expect(openReader(fileOf(context)).prepare("SELECT sql FROM sqlite_schema").all()).toEqual([
      { sql: "CREATE TABLE readings (a)" },
    ]);
  });
});
