import {
  appendFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { openCursor } from "../../src/journal/cursor.ts";
import { nodeDisk } from "../../src/journal/disk.ts";
import { dumpJournal, type DumpOptions } from "../../src/journal/dump.ts";
import { isClean, statJournal, verifyJournal } from "../../src/journal/inspect.ts";
import { describeLoss } from "../../src/journal/loss.ts";
import { toSegmentName } from "../../src/journal/segment.ts";
import { toOffset } from "../../src/reading.ts";
import { commit, message, test } from "./fixtures.ts";
import { openStore, type StoreHarness } from "./store-harness.ts";

/** Six segments with 300 records: 0 to 74, then 50 in each, and in the last 25. */
function write(dir: string): StoreHarness {
  mkdirSync(dir, { recursive: true });
  const harness = openStore(dir, nodeDisk, 4096);
  for (let part = 0; part < 12; part += 1) harness.commit(25);
  return harness;
}

const losses = (dir: string): string[] => verifyJournal(dir).lost.map(describeLoss);
const pathOf = (dir: string, number: number): string => join(dir, toSegmentName(number));
const sizeOf = (dir: string, number: number): number => statSync(pathOf(dir, number)).size;
const listing = (dir: string): string[] =>
  readdirSync(dir).map((name) => `${name} ${statSync(join(dir, name)).mtimeMs}`);

describe("verify", () => {
  test("finds a healthy journal clean, changes nothing, and needs no lock", async ({ dir, open }) => {
    const journal = await open({ segmentBytes: 4096 });
    for (let part = 0; part < 10; part += 1) await commit(journal, part * 50, part * 50 + 50);
    const before = listing(dir);
    const found = verifyJournal(dir);
    expect([isClean(found), found.records, found.id]).toEqual([true, 500, journal.id]);
    expect(listing(dir)).toEqual(before);
  });

  test("tells file, bytes and offsets of what is damaged or missing", ({ dir }) => {
    write(dir).store.close();
    const bytes = readFileSync(pathOf(dir, 1));
    writeFileSync(pathOf(dir, 1), bytes.fill(0, 2000, 2001));
    rmSync(pathOf(dir, 3));
    truncateSync(pathOf(dir, 5), sizeOf(dir, 5) - 10);
    expect(losses(dir)).toEqual([
      "records 25 to 49 (25): bytes 1352 to 2655 of 0000000001.seg are damaged",
      "records 125 to 174 (50): there is no 0000000003.seg",
      "records 250 to 274 (25): bytes 1456 to 2821 of 0000000005.seg are damaged",
    ]);
  });

  test("knows a deleted or shortened end by the head", ({ dir }) => {
    write(dir).store.close();
    rmSync(pathOf(dir, 6));
    expect(losses(dir)).toEqual(["records 275 to 299 (25): there is no 0000000006.seg"]);
    const { size } = statSync(pathOf(dir, 5));
    truncateSync(pathOf(dir, 5), size - 8);
    expect(losses(dir)).toEqual([
      "records 250 to 299 (50): bytes 1456 to 2823 of 0000000005.seg are damaged; there is no 0000000006.seg",
    ]);
    truncateSync(pathOf(dir, 5), 1456);
    rmSync(join(dir, "head"));
    expect(losses(dir)).toEqual([]);
  });

  test("knows a deleted beginning by the head, and a trimmed one for what it is", ({ dir }) => {
    const { store, trim } = write(dir);
    trim(toOffset(100));
    store.close();
    expect(losses(dir)).toEqual([]);
    rmSync(pathOf(dir, 2));
    expect(losses(dir)).toEqual(["records 75 to 124 (50): there is no 0000000002.seg"]);
  });

  test("takes an unfinished end for what it is, with the head and without", ({ dir }) => {
    write(dir).store.close();
    appendFileSync(pathOf(dir, 6), Buffer.alloc(100, 0x53));
    for (const action of [() => {}, () => rmSync(join(dir, "head"))]) {
      action();
      const found = verifyJournal(dir);
      expect([isClean(found), found.unfinishedBytes]).toEqual([true, 100]);
    }
  });

  test("reads damage that costs no record", ({ dir }) => {
    write(dir).store.close();
    const bytes = readFileSync(pathOf(dir, 2));
    writeFileSync(pathOf(dir, 2), bytes.fill(0xff, 20, 21));
    const found = verifyJournal(dir);
    expect([found.lost, isClean(found)]).toEqual([[], false]);
    expect(found.notes).toEqual(["the header of 0000000002.seg is damaged; its records are read"]);
  });

  test(
    "is not fooled by a journal that is written, rolled and trimmed meanwhile",
    { timeout: 120_000 },
    async ({ dir, open }) => {
      const journal = await open({ segmentBytes: 4096, minCommitIntervalMs: 0 });
      const stop = new AbortController();
      let last = 0;
      const writing = (async () => {
        for (let offset = 0; !stop.signal.aborted; offset += 20) {
          await commit(journal, offset, offset + 20);
          journal.trim(toOffset(Math.max(0, offset - 500)));
        }
      })();
      for (let round = 0; round < 100; round += 1) {
        await journal.flush();
        if (journal.durable === 0) continue;
        const found = verifyJournal(dir);
        expect([found.lost, found.notes, found.harmless]).toEqual([[], [], []]);
        expect(found.end).toBeGreaterThanOrEqual(last);
        last = found.end;
      }
      stop.abort();
      await writing;
      expect(journal.stats().firstOffset).toBeGreaterThan(0);
    },
  );
});

describe("stat", () => {
  test("tells what the journal holds, how far each cursor is, and who has it", async ({ dir, open }) => {
    const journal = await open();
    await commit(journal, 0, 100);
    mkdirSync(join(dir, "cursors"));
    const cursor = { dir: join(dir, "cursors"), name: "x", journalId: journal.id, start: toOffset(60) };
    await openCursor(cursor)[Symbol.asyncDispose]();
    const stat = statJournal(dir);
    expect(stat).toMatchObject({ id: journal.id, epoch: 1, firstOffset: 0, end: 100, records: 100, lostRecords: 0 });
    expect(stat).toMatchObject({ firstTimeMs: message(0).receivedAt, head: { durable: 100, segment: 1 } });
    expect(stat.segments).toMatchObject([{ name: toSegmentName(1), from: 0, to: 100, epoch: 1 }]);
    expect(stat.cursors).toMatchObject([{ name: "x", position: 60, lag: 40 }]);
    expect(stat.lock).toBe("held");
    await journal[Symbol.asyncDispose]();
    expect(statJournal(dir).lock).toBe("free");
  });
});

const offsets = (options: DumpOptions): number[] =>
  [...dumpJournal(options)].map((line) => (JSON.parse(line) as { offset: number }).offset);

const at = (offset: number) => ({ kind: "offset", offset: toOffset(offset) }) as const;
const time = (offset: number) => ({ kind: "time", timeMs: message(offset).receivedAt }) as const;

describe("dump", () => {
  test("prints what an MQTT 5 message said of itself", async ({ dir, open }) => {
    const journal = await open();
    const user = [["unit", "C"]] as const;
    const properties = { contentType: "text/plain", correlationData: new Uint8Array([1, 2]), user };
    journal.append({ ...message(0), properties }, "climate");
    await journal.flush();
    const [line = ""] = dumpJournal({ dir });
    expect(JSON.parse(line)).toMatchObject({
      properties: { contentType: "text/plain", correlationData: { base64: "AQI=" }, user: [["unit", "C"]] },
      payload: '{"seq":0}',
    });
  });

  test("prints a record as a line of JSON, with its payload as text or as base64", async ({ dir, open }) => {
    const journal = await open();
    journal.append({ ...message(0), qos: 2 }, "climate");
    journal.append(message(1, new Uint8Array([0xff])), "", {
      reason: "no-stream",
      issues: [{ path: "", message: "no" }],
    });
    await journal.flush();
    const lines = [...dumpJournal({ dir })].map((line) => JSON.parse(line) as unknown);
    const accepted = { qos: 2, kind: "accepted", stream: "climate", payload: '{"seq":0}' };
    expect(lines).toEqual([
      {
        ...accepted,
        offset: 0,
        time: "2023-11-14T22:13:20.000Z",
        device: "d0",
        client: "d0",
        topic: "devices/d0/telemetry",
      },
      {
        offset: 1,
        kind: "rejected",
        stream: "",
        time: "2023-11-14T22:13:20.001Z",
        device: "d1",
        client: "d1",
        topic: "devices/d1/telemetry",
        qos: 1,
        payload: { base64: "/w==" },
        rejection: { reason: "no-stream", issues: [{ path: "", message: "no" }] },
      },
    ]);
  });

  test("gives what was asked for: from, to, device, stream, limit", ({ dir }) => {
    write(dir).store.close();
    expect(offsets({ dir })).toEqual(Array.from({ length: 300 }, (_, index) => index));
    expect(offsets({ dir, from: at(73), to: at(77) })).toEqual([73, 74, 75, 76]);
    expect(offsets({ dir, from: time(298) })).toEqual([298, 299]);
    expect(offsets({ dir, to: time(2) })).toEqual([0, 1]);
    expect(offsets({ dir, device: "d120" })).toEqual([120]);
    expect(offsets({ dir, stream: "power" })).toEqual([]);
    expect(offsets({ dir, from: at(10), limit: 2 })).toEqual([10, 11]);
    expect(offsets({ dir, limit: 0 })).toEqual([]);
  });

  test("passes over what is damaged", ({ dir }) => {
    write(dir).store.close();
    rmSync(pathOf(dir, 2));
    expect(offsets({ dir })).toHaveLength(250);
  });

  test("prints nothing that a gateway has written and not yet synced", async ({ dir, open }) => {
    const journal = await open();
    await commit(journal, 0, 10);
    // As a write whose sync is still to come: a valid frame behind the head.
    const bytes = readFileSync(pathOf(dir, 1));
    await commit(journal, 10, 20);
    const head = readFileSync(join(dir, "head"));
    await commit(journal, 20, 30);
    expect(sizeOf(dir, 1)).toBeGreaterThan(bytes.length);
    writeFileSync(join(dir, "head"), head);
    expect(offsets({ dir })).toEqual(Array.from({ length: 20 }, (_, index) => index));
    await journal[Symbol.asyncDispose]();
  });
});
