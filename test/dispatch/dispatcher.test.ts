import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import { listCursors, openCursor } from "../../src/journal/cursor.ts";
import { toOffset } from "../../src/reading.ts";
import { message, offsetsIn, openBench, patiently, range, reaches, statusOf, totalErrors } from "./open-dispatch.ts";

const never = new AbortController().signal;
const rejection = { stream: "climate", reason: "invalid", issues: [{ path: "seq", message: "no" }] } as const;

describe("a sink", () => {
  test("gets every accepted record once and in order, and no rejected or released one", async () => {
    const bench = await openBench();
    await bench.configure(
      `export default defineGateway({ streams: [climate], sinks: [sqlite({ path: join(dir, "a.db") })] });`,
    );
    await bench.append(3_000);
    await bench.appendOne("not json", rejection);
    bench.journal.release("d1", 7, Date.now());
    const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }], handlers: [] });
    await reaches(dispatcher, "sqlite", 3_002);
    await bench.append(10);
    await reaches(dispatcher, "sqlite", 3_012);
    expect(offsetsIn(join(bench.dir, "a.db"))).toEqual([...range(0, 3_000), ...range(3_002, 3_012)]);
    expect(statusOf(dispatcher, "sqlite")).toMatchObject({
      kind: "sink",
      state: "running",
      lagRecords: 0,
      lagSeconds: 0,
      delivered: 3_010,
      parked: 0,
      passed: 2,
      expired: 0,
      errors: { transient: 0, refused: 0, misconfigured: 0 },
      lastError: undefined,
    });
    expect(bench.states).toEqual(["sqlite: starting", "sqlite: running"]);
  });

  test("goes on where it was after the gateway has been stopped and started", async () => {
    const bench = await openBench();
    await bench.configure(`const count = sinkOf("count", async ({ entries }) => {
        for (const { offset } of entries) appendFileSync(join(dir, "out"), offset + "\\n");
        return { kind: "all" };
      });
      export default defineGateway({ streams: [climate], sinks: [count()] });`);
    await bench.append(100);
    const first = await bench.open({ sinks: [{ name: "count" }], handlers: [] });
    await reaches(first, "count", 100);
    await first.stop(never);
    expect(listCursors(join(bench.dataDir, "journal/cursors"), bench.journal.id)).toMatchObject([
      { name: "count", position: 100 },
    ]);
    expect(statusOf(first, "count")).toMatchObject({ state: "stopped", durable: 100 });
    await bench.append(10);
    const second = await bench.open({ sinks: [{ name: "count" }], handlers: [] });
    await reaches(second, "count", 110);
    expect(bench.lines("out").map(Number)).toEqual(range(0, 110));
  });

  test("that is dead loses nothing and disturbs no other: its path is a folder until somebody removes it", async () => {
    const bench = await openBench();
    await bench.configure(`export default defineGateway({ streams: [climate], sinks: [
      sqlite({ path: join(dir, "a.db") }), sqlite({ name: "dead", path: join(dir, "b.db") })] });`);
    await mkdir(join(bench.dir, "b.db"));
    await bench.append(500);
    const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }, { name: "dead" }], handlers: [] });
    await reaches(dispatcher, "sqlite", 500);
    await expect.poll(() => totalErrors(statusOf(dispatcher, "dead")), patiently).toBeGreaterThan(2);
    expect(statusOf(dispatcher, "dead")).toMatchObject({
      state: "misconfigured",
      position: 0,
      lagRecords: 500,
      delivered: 0,
    });
    expect(statusOf(dispatcher, "dead").lagSeconds).toBeGreaterThan(0);
    expect(statusOf(dispatcher, "dead").lastError).toContain("b.db: unable to open database file");
    expect(statusOf(dispatcher, "sqlite")).toMatchObject({
      state: "running",
      errors: { transient: 0, refused: 0, misconfigured: 0 },
    });
    await rm(join(bench.dir, "b.db"), { recursive: true });
    await reaches(dispatcher, "dead", 500);
    expect(offsetsIn(join(bench.dir, "b.db"))).toEqual(range(0, 500));
    expect(bench.states.findLast((state) => state.startsWith("dead"))).toBe("dead: running");
  });

  test("whose database another process has locked for two seconds loses nothing and disturbs no other", async () => {
    const bench = await openBench();
    await bench.configure(`export default defineGateway({ streams: [climate], sinks: [
      sqlite({ path: join(dir, "a.db") }), sqlite({ name: "locked", path: join(dir, "b.db") })] });`);
    const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }, { name: "locked" }], handlers: [] });
    await bench.append(10);
    await reaches(dispatcher, "locked", 10);
    using holder = new DatabaseSync(join(bench.dir, "b.db"));
    holder.exec("BEGIN IMMEDIATE");
    const lockedMs = performance.now();
    await bench.append(2_000);
    await reaches(dispatcher, "sqlite", 2_010);
    await expect.poll(() => performance.now() - lockedMs, patiently).toBeGreaterThan(2_000);
    await expect.poll(() => statusOf(dispatcher, "locked").state, patiently).toBe("retrying");
    expect(statusOf(dispatcher, "locked")).toMatchObject({ position: 10 });
    expect(statusOf(dispatcher, "locked").lastError).toContain("locked");
    holder.exec("ROLLBACK");
    await reaches(dispatcher, "locked", 2_010);
    expect(offsetsIn(join(bench.dir, "b.db"))).toEqual(range(0, 2_010));
  });

  test("whose worker throws when it is loaded is started again until it runs", async () => {
    const bench = await openBench();
    await bench.configure(`import { isMainThread } from "node:worker_threads";
      if (!isMainThread && existsSync(join(dir, "broken"))) throw new Error("broken on purpose");
      export default defineGateway({ streams: [climate], sinks: [sqlite({ path: join(dir, "a.db") })] });`);
    await writeFile(join(bench.dir, "broken"), "");
    await bench.append(5);
    const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }], handlers: [] });
    await expect.poll(() => totalErrors(statusOf(dispatcher, "sqlite")), patiently).toBeGreaterThan(1);
    expect(statusOf(dispatcher, "sqlite").lastError).toContain("broken on purpose");
    await rm(join(bench.dir, "broken"));
    await reaches(dispatcher, "sqlite", 5);
    expect(bench.states[0]).toBe("sqlite: starting");
    expect(bench.states[1]).toContain("sqlite: retrying");
    expect(bench.states.at(-1)).toBe("sqlite: running");
  });

  test("that keeps a position starts from it, whatever the cursor file says", async () => {
    const bench = await openBench();
    await bench.configure(`const keeper = sinkOf("keeper", async ({ entries }) => {
        for (const { offset } of entries) appendFileSync(join(dir, "out"), offset + "\\n");
        return { kind: "all" };
      }, { position: async () => 40 });
      export default defineGateway({ streams: [climate], sinks: [keeper()] });`);
    await bench.append(50);
    const dispatcher = await bench.open({ sinks: [{ name: "keeper" }], handlers: [] });
    await reaches(dispatcher, "keeper", 50);
    expect(bench.lines("out").map(Number)).toEqual(range(40, 50));
  });
});

describe("a record that cannot be written", () => {
  test("because today's schema refuses it is parked with its issues, and the others go on", async () => {
    const bench = await openBench();
    await bench.configure(
      `export default defineGateway({ streams: [climate], sinks: [sqlite({ path: join(dir, "a.db") })] });`,
    );
    await bench.append(2);
    await bench.appendOne(`{"seq":"two"}`);
    await bench.append(2);
    const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }], handlers: [] });
    await reaches(dispatcher, "sqlite", 5);
    expect(offsetsIn(join(bench.dir, "a.db"))).toEqual([0, 1, 3, 4]);
    expect(bench.parked()).toMatchObject([
      {
        sink: "sqlite",
        gateway: bench.journal.id,
        offset: 2,
        stream: "climate",
        device: "d1",
        client: "d1",
        attempts: 0,
      },
    ]);
    expect(bench.parked()[0]?.["error"]).toMatch(/^invalid: seq: /);
    expect(Buffer.from(bench.parked()[0]?.["payload"] as Uint8Array).toString()).toBe(`{"seq":"two"}`);
    expect(statusOf(dispatcher, "sqlite")).toMatchObject({
      delivered: 4,
      parked: 1,
      errors: { transient: 0, refused: 0, misconfigured: 0 },
    });
    expect(bench.logged).toEqual([
      expect.stringContaining("a record was parked, from offset 2 of stream climate: invalid"),
    ]);
  });

  test("because the sink refuses it is parked before the cursor passes, and the others are written", async () => {
    const bench = await openBench();
    await bench.configure(`const picky = sinkOf("picky", async ({ entries, next }) => {
        const refused = entries.filter(({ offset }) => offset % 10 === 7).map(({ offset }) => ({ offset, reason: "ends in 7" }));
        if (refused.length > 0) return { kind: "except", refused };
        for (const { offset } of entries) appendFileSync(join(dir, "out"), offset + "\\n");
        return { kind: "all" };
      });
      export default defineGateway({ streams: [climate], sinks: [picky()] });`);
    await bench.append(30);
    const dispatcher = await bench.open({ sinks: [{ name: "picky" }], handlers: [] });
    await reaches(dispatcher, "picky", 30);
    expect(bench.lines("out").map(Number)).toEqual(range(0, 30).filter((offset) => offset % 10 !== 7));
    expect(bench.parked()).toMatchObject([7, 17, 27].map((offset) => ({ offset, error: "ends in 7", attempts: 1 })));
    expect(statusOf(dispatcher, "picky")).toMatchObject({ delivered: 27, parked: 3 });
  });

  test("and cannot be parked either holds the sink back", async () => {
    const bench = await openBench();
    await mkdir(join(bench.dataDir, "parked.db"));
    await bench.configure(
      `export default defineGateway({ streams: [climate], sinks: [sqlite({ path: join(dir, "a.db") })] });`,
    );
    await bench.appendOne("nonsense");
    await bench.append(3);
    const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }], handlers: [] });
    await expect.poll(() => totalErrors(statusOf(dispatcher, "sqlite")), patiently).toBeGreaterThan(2);
    expect(statusOf(dispatcher, "sqlite")).toMatchObject({ position: 0, state: "retrying" });
    await rm(join(bench.dataDir, "parked.db"), { recursive: true });
    await reaches(dispatcher, "sqlite", 4);
    expect(bench.parked()).toMatchObject([{ offset: 0 }]);
  });
});

/** A handler of the stream `climate`, as text. */
async function openHandler(handler: string, publish?: (name: string, message: unknown) => Promise<void>) {
  const bench = await openBench();
  await bench.configure(
    `export default defineGateway({ streams: [climate, other], handlers: [on(climate, ${handler})] });`,
  );
  const handlers = [{ name: "on-climate" }];
  return { bench, openDispatcher: () => bench.open({ sinks: [], handlers, ...(publish && { publish }) }) };
}

describe("a handler", () => {
  test("is called for the readings of its stream, in order and one at a time", async () => {
    const { bench, openDispatcher } = await openHandler(`async ({ reading, offset }) => {
      appendFileSync(join(dir, "out"), "> " + reading.data.seq + " " + offset + "\\n");
      await new Promise(setImmediate);
      appendFileSync(join(dir, "out"), "<\\n");
    }`);
    await bench.append(20);
    bench.journal.append({ ...message(`{"seq":1}`), topic: "other/d1" }, "other");
    await bench.append(1);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, "on-climate", 22);
    const expected = [...range(0, 20), 21].flatMap((offset) => [`> ${offset} ${offset}`, "<"]);
    expect(bench.lines("out")).toEqual(expected);
    expect(statusOf(dispatcher, "on-climate")).toMatchObject({ kind: "handler", delivered: 21, passed: 1, parked: 0 });
  });

  test("that throws is called six times, then the entry is parked and the next one follows", async () => {
    const { bench, openDispatcher } = await openHandler(`async ({ offset }) => {
      appendFileSync(join(dir, "out"), offset + "\\n");
      if (offset === 1) throw new Error("cannot do one");
      if (offset === 2 && !existsSync(join(dir, "twice"))) { appendFileSync(join(dir, "twice"), ""); throw new Error("once"); }
    }`);
    await bench.append(4);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, "on-climate", 4);
    expect(bench.lines("out")).toEqual(["0", "1", "1", "1", "1", "1", "1", "2", "2", "3"]);
    expect(bench.parked()).toMatchObject([{ sink: "on-climate", offset: 1, error: "cannot do one", attempts: 6 }]);
    expect(statusOf(dispatcher, "on-climate")).toMatchObject({
      delivered: 3,
      parked: 1,
      errors: { transient: 7, refused: 0, misconfigured: 0 },
      state: "running",
    });
    expect(bench.logged).toEqual([expect.stringContaining("offset 1 of stream climate: cannot do one")]);
  });

  test("publishes through the gateway, and sees when that is refused", async () => {
    const published: unknown[] = [];
    const publish = async (name: string, sent: unknown): Promise<void> => {
      published.push({ name, message: sent });
      if (published.length === 3) throw new Error("topic is reserved");
    };
    const { bench, openDispatcher } = await openHandler(
      `async (_, { publish }) => {
        await publish("a/b", { on: true }, { qos: 1, retain: true });
        await publish("a/c", new Uint8Array([1, 2]));
        await publish("$SYS/x", "text").catch((error) => appendFileSync(join(dir, "out"), error.message + "\\n"));
      }`,
      publish,
    );
    await bench.append(1);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, "on-climate", 1);
    expect(published).toEqual([
      { name: "on-climate", message: { topic: "a/b", payload: `{"on":true}`, qos: 1, retain: true } },
      { name: "on-climate", message: { topic: "a/c", payload: new Uint8Array([1, 2]), qos: 0, retain: false } },
      { name: "on-climate", message: { topic: "$SYS/x", payload: "text", qos: 0, retain: false } },
    ]);
    expect(bench.lines("out")).toEqual(["topic is reserved"]);
  });

  test("that ends its process ends only its worker, and gets the same reading again", async () => {
    const { bench, openDispatcher } = await openHandler(`async ({ offset }) => {
      appendFileSync(join(dir, "out"), offset + "\\n");
      if (offset === 2 && !existsSync(join(dir, "died"))) { appendFileSync(join(dir, "died"), ""); process.exit(7); }
    }`);
    await bench.append(4);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, "on-climate", 4);
    // At least once: what it did within the cursor's interval before may come again too.
    const seen = bench.lines("out").map(Number);
    expect(new Set(seen)).toEqual(new Set([0, 1, 2, 3]));
    expect(seen.filter((offset) => offset === 2)).toHaveLength(2);
    expect(statusOf(dispatcher, "on-climate")).toMatchObject({
      errors: { transient: 1, refused: 0, misconfigured: 0 },
      state: "running",
    });
    expect(bench.states.join()).toContain("its worker ended with exit code 7");
  });
});

describe("the journal", () => {
  test("may be trimmed up to the least durable cursor, and no further", async () => {
    const bench = await openBench();
    await bench.configure(`export default defineGateway({ streams: [climate], sinks: [
      sqlite({ path: join(dir, "a.db") }), sqlite({ name: "dead", path: join(dir, "b.db") })] });`);
    await mkdir(join(bench.dir, "b.db"));
    await bench.append(100);
    const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }, { name: "dead" }], handlers: [] });
    const told: number[] = [];
    dispatcher.onCursor((least) => told.push(least));
    await expect.poll(() => statusOf(dispatcher, "sqlite").durable, patiently).toBe(100);
    expect(told).toEqual([]);
    await rm(join(bench.dir, "b.db"), { recursive: true });
    await expect.poll(() => told, patiently).toEqual([100]);
  });

  test("is held by the cursor of a sink that is not configured any longer, and that is said once", async () => {
    const bench = await openBench();
    await bench.configure(
      `export default defineGateway({ streams: [climate], sinks: [sqlite({ path: join(dir, "a.db") })] });`,
    );
    const dir = join(bench.dataDir, "journal/cursors");
    await mkdir(dir, { recursive: true });
    const journalId = bench.journal.id;
    await openCursor({ dir, journalId, name: "gone", start: toOffset(30) })[Symbol.asyncDispose]();
    await bench.append(100);
    const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }], handlers: [] });
    const told: number[] = [];
    dispatcher.onCursor((least) => told.push(least));
    await expect.poll(() => statusOf(dispatcher, "sqlite").durable, patiently).toBe(100);
    expect(told).toEqual([30]);
    expect(statusOf(dispatcher, "gone")).toMatchObject({ state: "not configured", position: 30, lagRecords: 70 });
    expect(bench.logged).toEqual([expect.stringContaining("not configured any longer")]);
  });

  test("that has expired what a consumer had not read is read from where it begins, and the rest is counted", async () => {
    const bench = await openBench({ maxBytes: 100_000, whenFull: "expire" });
    await bench.configure(`export default defineGateway({ streams: [climate],
      sinks: [sqlite({ path: join(dir, "a.db") })], handlers: [on(climate, async () => {})] });`);
    const dir = join(bench.dataDir, "journal/cursors");
    await mkdir(dir, { recursive: true });
    for (const name of ["sqlite", "on-climate"]) {
      await openCursor({ dir, name, journalId: bench.journal.id, start: toOffset(7) })[Symbol.asyncDispose]();
    }
    for (let part = 0; part < 40; part += 1) await bench.append(50);
    await bench.append(1); // tells what was deleted after the commit before
    const { firstOffset } = bench.journal.stats();
    expect(firstOffset).toBeGreaterThan(100);
    const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }], handlers: [{ name: "on-climate" }] });
    for (const name of ["sqlite", "on-climate"]) {
      await reaches(dispatcher, name, 2001);
      await expect
        .poll(() => statusOf(dispatcher, name), patiently)
        .toMatchObject({ delivered: 2001 - firstOffset, expired: firstOffset - 7, lagRecords: 0 });
    }
    expect(offsetsIn(join(bench.dir, "a.db"))).toEqual(range(firstOffset, 2001));
    const sentence = `${firstOffset - 7} records from offset 7 to ${firstOffset - 1} could not be read`;
    expect(bench.logged).toEqual([expect.stringContaining(sentence), expect.stringContaining(sentence)]);
  });

  test("is held whole by a cursor that cannot be read, of a sink that is not configured any longer", async () => {
    const bench = await openBench();
    await bench.configure(
      `export default defineGateway({ streams: [climate], sinks: [sqlite({ path: join(dir, "a.db") })] });`,
    );
    const dir = join(bench.dataDir, "journal/cursors");
    await mkdir(dir, { recursive: true });
    await writeFile(join(dir, "gone.cursor"), "");
    await bench.append(10);
    const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }], handlers: [] });
    const told: number[] = [];
    dispatcher.onCursor((least) => told.push(least));
    await expect.poll(() => statusOf(dispatcher, "sqlite").durable, patiently).toBe(10);
    expect([told, statusOf(dispatcher, "gone").position]).toEqual([[], 0]);
  });

  test("is needed by nobody when there is no sink and no handler", async () => {
    const bench = await openBench();
    await bench.configure(`export default defineGateway({ streams: [climate] });`);
    const dispatcher = await bench.open({ sinks: [], handlers: [] });
    const told: number[] = [];
    dispatcher.onCursor((least) => told.push(least));
    await bench.append(10);
    await expect.poll(() => told.at(-1), patiently).toBe(10);
  });
});

describe("stopping", () => {
  test.each([
    [
      "sink",
      "sinks: [sinkOf('busy', async () => { for (const end = Date.now() + 100; Date.now() < end; ) {} return { kind: 'all' }; })()]",
    ],
    [
      "handler",
      "handlers: [on(climate, () => { for (const end = Date.now() + 100; Date.now() < end; ) {} }, { name: 'busy' })]",
    ],
  ])("reaches a %s that never waits for anything, and its cursor is written meanwhile", async (kind, text) => {
    const bench = await openBench();
    await bench.configure(`export default defineGateway({ streams: [climate], ${text} });`);
    await bench.append(40_000);
    const names = [{ name: "busy" }];
    const dispatcher = await bench.open({
      sinks: kind === "sink" ? names : [],
      handlers: kind === "handler" ? names : [],
    });
    await expect.poll(() => statusOf(dispatcher, "busy").durable, patiently).toBeGreaterThan(0);
    await dispatcher.stop(never);
    const { position, durable } = statusOf(dispatcher, "busy");
    expect(position).toBeLessThan(40_000);
    expect(durable).toBe(position);
  });

  test("lets a sink finish the batch that it has in hand", async () => {
    const bench = await openBench();
    await bench.configure(`const slow = sinkOf("slow", async ({ entries }) => {
        appendFileSync(join(dir, "out"), "begun\\n");
        while (!existsSync(join(dir, "go"))) await new Promise((resolve) => setTimeout(resolve, 5));
        appendFileSync(join(dir, "out"), "done " + entries.length + "\\n");
        return { kind: "all" };
      });
      export default defineGateway({ streams: [climate], sinks: [slow()] });`);
    await bench.append(10);
    const dispatcher = await bench.open({ sinks: [{ name: "slow" }], handlers: [] });
    await expect.poll(() => bench.lines("out"), patiently).toEqual(["begun"]);
    const stopped = dispatcher.stop(never);
    await writeFile(join(bench.dir, "go"), "");
    await stopped;
    expect(bench.lines("out")).toEqual(["begun", "done 10"]);
    expect(listCursors(join(bench.dataDir, "journal/cursors"), bench.journal.id)).toMatchObject([
      { name: "slow", position: 10 },
    ]);
  });

  test("ends a sink that blocks its thread for ever when the deadline comes, and it gets the batch again", async () => {
    const bench = await openBench();
    await bench.configure(`const stuck = sinkOf("stuck", async () => {
        appendFileSync(join(dir, "out"), "begun\\n");
        for (;;) {}
      });
      export default defineGateway({ streams: [climate], sinks: [stuck(), sqlite({ path: join(dir, "a.db") })] });`);
    await bench.append(10);
    const dispatcher = await bench.open({ sinks: [{ name: "stuck" }, { name: "sqlite" }], handlers: [] });
    await expect.poll(() => bench.lines("out"), patiently).toEqual(["begun"]);
    await reaches(dispatcher, "sqlite", 10);
    await dispatcher.stop(AbortSignal.timeout(100));
    expect(statusOf(dispatcher, "stuck")).toMatchObject({ state: "stopped", durable: 0 });
    expect(statusOf(dispatcher, "sqlite")).toMatchObject({ state: "stopped", durable: 10 });
  });
});
