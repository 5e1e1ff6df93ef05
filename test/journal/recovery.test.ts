import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect } from "vitest";
import { openCursor } from "../../src/journal/cursor.ts";
import { nodeDisk } from "../../src/journal/disk.ts";
import { headName, openHead } from "../../src/journal/head.ts";
import { recover } from "../../src/journal/recovery.ts";
import { encodeSegmentHeader, toSegmentName } from "../../src/journal/segment.ts";
import { toOffset } from "../../src/reading.ts";
import { close, commit, message, payloads, readAll, sequences, test } from "./fixtures.ts";
import { openStore } from "./store-harness.ts";

const pathOf = (dir: string, number: number): string => join(dir, toSegmentName(number));
const sizeOf = (dir: string, number: number): number => statSync(pathOf(dir, number)).size;

/** A journal of one segment with these commits; returns the file's length after each. */
function writeCommits(dir: string, counts: readonly number[]): number[] {
  const { store, commit: give } = openStore(dir);
  const sizes = counts.map((count) => {
    give(count);
    return sizeOf(dir, 1);
  });
  store.close();
  return sizes;
}

/** The head as it was when so many records were durable: what comes behind was not acknowledged. */
function setHead(dir: string, durable: number): void {
  const { id: journalId } = recover(dir);
  rmSync(join(dir, headName));
  using head = openHead({ dir, journalId, epoch: 1 });
  head.advance({ durable: toOffset(durable), first: toOffset(0), segment: 1 });
}

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 0xff, at);
  writeFileSync(path, bytes);
}

describe("a torn tail", () => {
  test("is cut wherever it is torn; what was acknowledged stays", ({ dir }) => {
    const [, second = 0, third = 0] = writeCommits(dir, [3, 3, 2]);
    setHead(dir, 6);
    const whole = readFileSync(pathOf(dir, 1));
    for (let size = second; size < third; size += 1) {
      writeFileSync(pathOf(dir, 1), whole.subarray(0, size));
      const { next, lastCommit, report } = recover(dir);
      expect([next, report.tornBytes, report.lost]).toEqual([6, size - second, []]);
      expect([lastCommit?.base, lastCommit?.end]).toEqual([3, 6]);
    }
  });

  test("of zeros or of garbage is cut too", ({ dir }) => {
    const [, second = 0] = writeCommits(dir, [3, 3, 2]);
    setHead(dir, 6);
    for (const fill of [0, 0x53]) {
      const bytes = readFileSync(pathOf(dir, 1));
      writeFileSync(pathOf(dir, 1), Buffer.concat([bytes.fill(fill, second), Buffer.alloc(5000, fill)]));
      const { next, report } = recover(dir);
      expect([next, report.lost]).toEqual([6, []]);
      expect(report.tornBytes).toBe(sizeOf(dir, 1) - second);
    }
  });

  test("is gone from the file after the start", async ({ dir, open }) => {
    const [, second = 0, third = 0] = writeCommits(dir, [3, 3, 2]);
    setHead(dir, 6);
    truncateSync(pathOf(dir, 1), third - 1);
    const journal = await open({ streams: ["climate"] });
    expect(journal.recovered).toMatchObject({ tornBytes: third - 1 - second, rewritten: 3 });
    expect([journal.next, journal.durable]).toEqual([6, 6]);
    await commit(journal, 6, 8);
    expect(payloads(readAll(journal.share).entries)).toEqual(sequences(0, 8));
    await close(journal);
    expect((await open()).recovered.tornBytes).toBe(0);
  });

  test("anywhere in a journal of any shape leaves a prefix with every commit that is whole", ({ dir }) => {
    const counts = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 10 });
    fc.assert(
      fc.property(counts, fc.double({ min: 0, max: 1, noNaN: true }), (commits, where) => {
        const each = mkdtempSync(join(dir, "each-"));
        const sizes = writeCommits(each, commits);
        const size = Math.floor(where * (sizes.at(-1) ?? 0));
        const durable = commits.reduce((sum, count, index) => sum + ((sizes[index] ?? 0) <= size ? count : 0), 0);
        setHead(each, durable);
        truncateSync(pathOf(each, 1), size);
        const { read, commit: give } = openStore(each);
        expect(read()).toEqual(sequences(0, durable));
        give(3);
        expect(read()).toEqual(sequences(0, durable + 3));
        rmSync(each, { recursive: true });
      }),
      { numRuns: 60 },
    );
  });
});

describe("a last segment", () => {
  for (const [name, bytes] of [
    ["without a byte", Buffer.alloc(0)],
    ["with half a header", Buffer.from("SLUICEJ1 and no more")],
    ["with zeros only", Buffer.alloc(4096)],
  ] as const) {
    test(`${name} is no segment yet`, async ({ dir, open }) => {
      writeCommits(dir, [3, 3]);
      writeFileSync(pathOf(dir, 2), bytes);
      expect(recover(dir)).toMatchObject({
        next: 6,
        nextNumber: 3,
        garbage: [toSegmentName(2), toSegmentName(1)].slice(0, 1),
      });
      const journal = await open();
      expect(payloads(readAll(journal.share).entries)).toEqual(sequences(0, 6));
      expect(existsSync(pathOf(dir, 2))).toBe(false);
    });
  }

  test("with a header only tells where the journal goes on", ({ dir }) => {
    const journalId = "ab".repeat(16);
    const header = { number: 7, journalId, createdMs: 0, baseOffset: toOffset(1234), epoch: 3, streams: [] };
    writeFileSync(pathOf(dir, 7), encodeSegmentHeader(header));
    expect(recover(dir)).toMatchObject({ id: journalId, next: 1234, nextNumber: 8, epoch: 4 });
  });
});

describe("the last commit", () => {
  test("is written again before its old copy is cut: it may have been in the page cache only", async ({
    dir,
    open,
  }) => {
    const [first = 0] = writeCommits(dir, [3, 2]);
    const old = readFileSync(pathOf(dir, 1));
    const journal = await open({ streams: ["power", "climate"] });
    expect(journal.recovered.rewritten).toBe(2);
    expect(sizeOf(dir, 1)).toBe(first);
    const { entries } = readAll(journal.share);
    expect(payloads(entries)).toEqual(sequences(0, 5));
    expect(entries.map(({ stream }) => stream)).toEqual(Array.from({ length: 5 }, () => "climate"));
    await close(journal);
    // A crash between the two: both copies are there, and count once.
    writeFileSync(pathOf(dir, 1), old);
    const again = await open();
    expect(payloads(readAll(again.share).entries)).toEqual(sequences(0, 5));
    expect(again.recovered.lost).toEqual([]);
  });

  test("that was all of its segment leaves no file behind, and a copy of it is void", async ({ dir, open }) => {
    writeCommits(dir, [2]);
    const old = readFileSync(pathOf(dir, 1));
    const journal = await open();
    await commit(journal, 2, 4);
    expect(existsSync(pathOf(dir, 1))).toBe(false);
    await close(journal);
    writeFileSync(pathOf(dir, 1), old);
    const again = await open();
    expect(again.recovered.superseded).toBe(1);
    expect(payloads(readAll(again.share).entries)).toEqual(sequences(0, 4));
    expect(existsSync(pathOf(dir, 1))).toBe(false);
  });

  test("keeps its stream's name when the configuration no longer has the stream", async ({ open }) => {
    const first = await open({ streams: ["climate", "power"] });
    first.append(message(0), "power");
    await close(first);
    for (const streams of [["other"], ["climate"]]) {
      const journal = await open({ streams });
      expect(readAll(journal.share).entries.map(({ stream }) => stream)).toEqual(["power"]);
      await close(journal);
    }
  });
});

describe("damage of acknowledged data", () => {
  test("in the last segment is reported exactly, kept, and read around", async ({ dir, open }) => {
    const sizes = writeCommits(dir, [3, 4, 5, 2]);
    const [first = 0, second = 0] = sizes;
    flip(pathOf(dir, 1), second - 20);
    const journal = await open();
    const damaged = [{ file: toSegmentName(1), fromByte: first, toByte: second }];
    const lost = [{ from: 3, to: 7, damaged, missing: undefined, inLastCommit: false }];
    expect(journal.recovered).toMatchObject({ lost, tornBytes: 0 });
    const { entries, lost: passed } = readAll(journal.share);
    expect(payloads(entries)).toEqual([...sequences(0, 3), ...sequences(7, 14)]);
    expect(passed).toEqual([{ kind: "damaged", from: 3, to: 7 }]);
    expect(sizeOf(dir, 1)).toBe(sizes[2]);
  });

  test("that may be a torn last commit says so", ({ dir }) => {
    const { store, commit: give } = openStore(dir, nodeDisk, 2 ** 23);
    give(3);
    const first = sizeOf(dir, 1);
    give(20_000);
    store.close();
    flip(pathOf(dir, 1), first + 100);
    expect(recover(dir).report.lost).toMatchObject([{ from: 3, inLastCommit: false }]);
    setHead(dir, 3);
    const { report, lastCommit } = recover(dir);
    expect(report.lost).toMatchObject([{ from: 3, damaged: [{ fromByte: first }], inLastCommit: true }]);
    expect(lastCommit?.end).toBe(20_003);
  });

  test("in an old segment is told when it is at an end of it, not touched, and read around", async ({ dir, open }) => {
    const { store, commit: give } = openStore(dir, nodeDisk, 4096);
    for (let part = 0; part < 10; part += 1) give(25);
    store.close();
    flip(pathOf(dir, 2), 1000);
    const before = readFileSync(pathOf(dir, 2));
    const journal = await open();
    const { entries, lost } = readAll(journal.share);
    expect(lost).toEqual([{ kind: "damaged", from: 75, to: 100 }]);
    expect(journal.recovered.lost).toMatchObject([{ from: 75, to: 100, damaged: [{ file: toSegmentName(2) }] }]);
    const [{ from, to } = { from: 0, to: 0 }] = lost;
    expect(payloads(entries)).toEqual([...sequences(0, from), ...sequences(to, 250)]);
    expect(readFileSync(pathOf(dir, 2))).toEqual(before);
  });

  test("of a header costs no record and no stream name", ({ dir }) => {
    const { store, commit: give } = openStore(dir, nodeDisk, 4096);
    for (let part = 0; part < 10; part += 1) give(25);
    store.close();
    flip(pathOf(dir, 2), 20);
    const { entries, lost } = openStore(dir).readAll();
    expect(payloads(entries)).toEqual(sequences(0, 250));
    expect([new Set(entries.map(({ stream }) => stream)), lost]).toEqual([new Set(["climate"]), []]);
  });

  test("of all frames of a file keeps the file under another name", async ({ dir, open }) => {
    const { store, commit: give } = openStore(dir, nodeDisk, 4096);
    for (let part = 0; part < 10; part += 1) give(60);
    store.close();
    const bytes = readFileSync(pathOf(dir, 2));
    writeFileSync(pathOf(dir, 2), bytes.fill(0, 100));
    const journal = await open();
    expect(journal.recovered.aside).toEqual([toSegmentName(2)]);
    expect(readdirSync(dir)).toContain(`${toSegmentName(2)}.damaged`);
    expect(readAll(journal.share).lost).toEqual([{ kind: "damaged", from: 60, to: 120 }]);
  });

  test("of any byte of any file never yields a wrong record, and all that is missing is told", ({ dir }) => {
    const original = join(dir, "original");
    mkdirSync(original);
    const { store, commit: give } = openStore(original, nodeDisk, 4096);
    for (let part = 0; part < 8; part += 1) give(10 + part * 5);
    store.close();
    const names = readdirSync(original);
    const place = fc.tuple(fc.constantFrom(...names), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }));
    fc.assert(
      fc.property(fc.array(place, { minLength: 1, maxLength: 3 }), (places) => {
        const each = join(dir, "each");
        cpSync(original, each, { recursive: true });
        for (const [name, where] of places) {
          flip(join(each, name), Math.floor(where * statSync(join(each, name)).size));
        }
        const { readAll: readEach, store: opened } = openStore(each);
        const { entries, lost } = readEach();
        const missing = new Set(lost.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, i) => from + i)));
        expect(entries.map(({ offset }) => offset)).toEqual(
          Array.from({ length: opened.durable }, (_, index) => index).filter((offset) => !missing.has(offset)),
        );
        for (const { offset, message: read } of entries) expect(read.clientId).toBe(`d${offset}`);
        opened.close();
        rmSync(each, { recursive: true });
      }),
      {
        numRuns: 100,
        // The header and the first frame of the oldest segment: only its number tells what it began with.
        examples: [
          [
            [
              ["0000000001.seg", 0],
              ["0000000001.seg", 0.03],
            ],
          ],
        ],
      },
    );
  });
});

describe("offsets", () => {
  test("below a cursor are not used again when the records are gone", async ({ dir, open }) => {
    const [first = 0] = writeCommits(dir, [3, 3]);
    const { id: journalId } = recover(dir);
    rmSync(join(dir, headName));
    mkdirSync(join(dir, "cursors"));
    {
      await using cursor = openCursor({ dir: join(dir, "cursors"), name: "sqlite", journalId, start: toOffset(0) });
      cursor.commit(toOffset(6));
    }
    truncateSync(pathOf(dir, 1), first);
    const journal = await open();
    expect(journal.recovered.lost).toMatchObject([{ from: 3, to: 6 }]);
    expect([journal.next, journal.durable]).toEqual([6, 6]);
    await commit(journal, 6, 7);
    const { entries, lost } = readAll(journal.share);
    expect(payloads(entries)).toEqual([...sequences(0, 3), ...sequences(6, 7)]);
    expect(lost).toEqual([{ kind: "damaged", from: 3, to: 6 }]);
  });
});

describe("a lost end", () => {
  test("is told by the head, and nothing of what is left of it is cut", ({ dir }) => {
    const [, second = 0, third = 0] = writeCommits(dir, [3, 3, 2]);
    truncateSync(pathOf(dir, 1), third - 10);
    const before = readFileSync(pathOf(dir, 1));
    const { store, recovered, readAll: readEach } = openStore(dir);
    const damaged = [{ file: toSegmentName(1), fromByte: second, toByte: third - 10 }];
    const lost = [{ from: 6, to: 8, damaged, missing: undefined, inLastCommit: false }];
    expect(recovered).toMatchObject({ next: 8, lastCommit: undefined, report: { lost, tornBytes: 0, rewritten: 0 } });
    expect(readEach().lost).toEqual([{ kind: "damaged", from: 6, to: 8 }]);
    expect(readFileSync(pathOf(dir, 1))).toEqual(before);
    store.close();
  });

  test("that is a whole segment without one valid frame is kept under another name", ({ dir }) => {
    const { store, commit: give } = openStore(dir, nodeDisk, 4096);
    for (let part = 0; part < 4; part += 1) give(60);
    store.close();
    const bytes = readFileSync(pathOf(dir, 4));
    writeFileSync(pathOf(dir, 4), bytes.fill(0, 80));
    const again = openStore(dir, nodeDisk, 4096);
    const damaged = [{ file: toSegmentName(4), fromByte: 80, toByte: bytes.length }];
    expect(again.recovered.report).toMatchObject({
      lost: [{ from: 180, to: 240, damaged }],
      aside: [toSegmentName(4)],
    });
    expect(readdirSync(dir)).toContain(`${toSegmentName(4)}.damaged`);
    again.store.close();
  });
});

test("a segment that is put back after a start without it counts again", ({ dir }) => {
  const { store, commit: give } = openStore(dir, nodeDisk, 4096);
  for (let part = 0; part < 10; part += 1) give(60);
  store.close();
  const last = readdirSync(dir).findLast((name) => name.endsWith(".seg")) ?? "";
  const bytes = readFileSync(join(dir, last));
  rmSync(join(dir, last));
  const without = openStore(dir, nodeDisk, 4096);
  expect(without.recovered.report.lost).toMatchObject([{ from: 540, to: 600, missing: { first: 10, last: 10 } }]);
  without.commit(10);
  without.store.close();
  writeFileSync(join(dir, last), bytes);
  const again = openStore(dir, nodeDisk, 4096);
  expect([again.recovered.report.lost, again.read()]).toEqual([[], sequences(0, 610)]);
  again.store.close();
});

describe("a folder that is not one journal", () => {
  test("with segments of two journals is refused", ({ dir }) => {
    const [one, two] = [join(dir, "one"), join(dir, "two")];
    for (const each of [one, two]) {
      mkdirSync(each);
      writeCommits(each, [1]);
    }
    copyFileSync(pathOf(two, 1), pathOf(one, 2));
    expect(() => recover(one)).toThrow(expect.objectContaining({ code: "SLUICE_JOURNAL_DAMAGED" }));
  });

  test("with data but no readable header is refused, and nothing is deleted", async ({ dir, open }) => {
    writeFileSync(pathOf(dir, 1), Buffer.alloc(100_000, 1));
    await expect(open()).rejects.toThrow(expect.objectContaining({ code: "SLUICE_JOURNAL_DAMAGED" }));
    expect(sizeOf(dir, 1)).toBe(100_000);
  });
});
