// Whatever stands in the journal's folder: a start goes well, or is refused with a sentence that names the file. Never a
// crash, and never the same crash at every start.

import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { describe, expect } from "vitest";
import { listCursors, openCursor } from "../../src/journal/cursor.ts";
import { nodeDisk } from "../../src/journal/disk.ts";
import { headName } from "../../src/journal/head.ts";
import { recover } from "../../src/journal/recovery.ts";
import { encodeSegmentHeader, toSegmentName } from "../../src/journal/segment.ts";
import { toOffset } from "../../src/reading.ts";
import { payloads, sequences, test } from "./fixtures.ts";
import { openStore } from "./store-harness.ts";

/** Segments 1 to 4 with 100 records and a cursor at 60. */
async function write(dir: string): Promise<string> {
  const { store, commit, share } = openStore(dir, nodeDisk, 2048);
  for (let part = 0; part < 4; part += 1) commit(25);
  store.close();
  mkdirSync(join(dir, "cursors"));
  await using cursor = openCursor({ dir: join(dir, "cursors"), name: "x", journalId: share.id, start: toOffset(60) });
  cursor.flush();
  return share.id;
}

/** Starts twice and expects all records both times; gives the first report. */
function startTwice(dir: string): ReturnType<typeof recover>["report"] {
  const reports = [0, 1].map(() => {
    const { store, recovered, readAll } = openStore(dir, nodeDisk, 2048);
    const { entries, lost } = readAll();
    expect([payloads(entries), lost]).toEqual([sequences(0, 100), []]);
    store.close();
    return recovered.report;
  });
  const [first] = reports;
  if (first === undefined) throw new Error("no start");
  return first;
}

const makePipe = (path: string): void => void execFileSync("sh", ["-c", 'mkfifo "$0"', path]);

describe("a start goes well beside", () => {
  const strange: Readonly<Record<string, (dir: string) => void>> = {
    "a folder that has a segment's name": (dir) => mkdirSync(join(dir, toSegmentName(9))),
    "a folder with the highest number": (dir) => mkdirSync(join(dir, "4294967295.seg")),
    "an empty segment with the highest number": (dir) => writeFileSync(join(dir, "9999999999.seg"), ""),
    "a link to nothing": (dir) => symlinkSync("nowhere", join(dir, toSegmentName(5))),
    "a pipe that nobody writes to": (dir) => makePipe(join(dir, toSegmentName(6))),
    "what a file system keeps for itself": (dir) => mkdirSync(join(dir, "lost+found")),
    "a cursor whose name is no encoding": (dir) => writeFileSync(join(dir, "cursors", "%zz.cursor"), "?"),
    "a cursor that is a folder": (dir) => mkdirSync(join(dir, "cursors", "y.cursor")),
    "a cursor that is a pipe": (dir) => makePipe(join(dir, "cursors", "p.cursor")),
    "a cursor that is a link to nothing": (dir) => symlinkSync("nowhere", join(dir, "cursors", "z.cursor")),
    "an empty cursor": (dir) => truncateSync(join(dir, "cursors", "x.cursor"), 0),
    "half a cursor": (dir) => truncateSync(join(dir, "cursors", "x.cursor"), 300),
    "a head that is a folder": (dir) => {
      rmSync(join(dir, headName));
      mkdirSync(join(dir, headName));
    },
    "an empty head": (dir) => truncateSync(join(dir, headName), 0),
    "a second copy of a segment": (dir) =>
      writeFileSync(join(dir, toSegmentName(8)), readFileSync(join(dir, toSegmentName(2)))),
    "a copy of a segment, under a higher number and without a header that tells": (dir) => {
      const copy = readFileSync(join(dir, toSegmentName(2)));
      writeFileSync(join(dir, toSegmentName(8)), copy.fill(0, 0, 20));
    },
    "two segments that have changed places": (dir) => {
      const [two, three] = [2, 3].map((number) => readFileSync(join(dir, toSegmentName(number))));
      writeFileSync(join(dir, toSegmentName(3)), two ?? "");
      writeFileSync(join(dir, toSegmentName(2)), three ?? "");
    },
    "something that was set aside before": (dir) => writeFileSync(join(dir, "0000000008.seg.damaged"), "kept"),
  };
  for (const [name, add] of Object.entries(strange)) {
    test(name, async ({ dir }) => {
      await write(dir);
      add(dir);
      expect(startTwice(dir).lost).toEqual([]);
    });
  }

  test("a cursor of another journal, which does not count", async ({ dir }) => {
    const id = await write(dir);
    const other = { dir: join(dir, "cursors"), name: "far", journalId: "cd".repeat(16), start: toOffset(1_000_000) };
    await openCursor(other)[Symbol.asyncDispose]();
    expect(startTwice(dir).notes).toEqual([`the cursor of far is not used: it belongs to journal ${other.journalId}`]);
    expect(listCursors(other.dir, id)).toContainEqual(expect.objectContaining({ name: "far", position: 0 }));
    await using cursor = openCursor({ ...other, journalId: id, start: toOffset(7) });
    expect([cursor.origin, cursor.position]).toEqual(["damaged", 7]);
  });
});

test("what is set aside is never written over", async ({ dir }) => {
  await write(dir);
  writeFileSync(join(dir, "0000000008.seg.damaged"), "kept");
  writeFileSync(join(dir, toSegmentName(8)), readFileSync(join(dir, toSegmentName(2))));
  expect(startTwice(dir).aside).toEqual([toSegmentName(8)]);
  expect(readFileSync(join(dir, "0000000008.seg.damaged"), "utf8")).toBe("kept");
  expect(readdirSync(dir)).toContain("0000000008.seg.2.damaged");
});

/** Gives what stands at 8, the version, another value, with the right checksum. */
function raiseVersion(path: string, checksumAt: number, checksum: (bytes: Buffer) => number): void {
  const bytes = readFileSync(path);
  bytes.writeUInt16LE(2, 8);
  bytes.writeUInt32LE(checksum(bytes), checksumAt);
  writeFileSync(path, bytes);
}
const bySlot = (bytes: Buffer): number => crc32(bytes.subarray(0, 508));

describe("a start is refused, with the name of the file, and changes nothing, because", () => {
  const cases: Readonly<Record<string, readonly [file: string, code: string, change: (path: string) => void]>> = {
    "a segment is of a newer version": [
      toSegmentName(3),
      "SLUICE_JOURNAL_VERSION",
      (path) => {
        const header = {
          number: 3,
          journalId: "ab".repeat(16),
          createdMs: 0,
          baseOffset: toOffset(50),
          epoch: 1,
          streams: [],
        };
        const bytes = encodeSegmentHeader(header);
        writeFileSync(path, bytes);
        raiseVersion(path, 60, (whole) => crc32(whole.subarray(64), crc32(whole.subarray(0, 60))));
      },
    ],
    "a cursor is of a newer version": [
      "cursors/x.cursor",
      "SLUICE_JOURNAL_VERSION",
      (path) => raiseVersion(path, 508, bySlot),
    ],
    "the cursors' folder is a file": [
      "cursors",
      "SLUICE_DATA_DIR",
      (path) => {
        rmSync(path, { recursive: true });
        writeFileSync(path, "");
      },
    ],
    "a segment links to itself": [
      toSegmentName(2),
      "SLUICE_DATA_DIR",
      (path) => {
        rmSync(path);
        symlinkSync(path, path);
      },
    ],
  };
  for (const [name, [file, code, change]] of Object.entries(cases)) {
    test(name, async ({ dir }) => {
      await write(dir);
      change(join(dir, file));
      const listing = (): string[] => readdirSync(dir).map((one) => `${one} ${statSync(dir).size}`);
      const before = listing();
      expect(() => recover(dir)).toThrow(
        expect.objectContaining({ code, message: expect.stringContaining(join(dir, file)) }),
      );
      expect(listing()).toEqual(before);
    });
  }

  test("but not for a flipped byte of the version, which is damage", async ({ dir }) => {
    await write(dir);
    for (const name of [toSegmentName(2), "cursors/x.cursor", headName]) {
      const bytes = readFileSync(join(dir, name));
      bytes.writeUInt8(bytes.readUInt8(8) ^ 0x02, 8);
      writeFileSync(join(dir, name), bytes);
    }
    expect(startTwice(dir).notes).toContain(`the header of ${toSegmentName(2)} is damaged; its records are read`);
  });
});
