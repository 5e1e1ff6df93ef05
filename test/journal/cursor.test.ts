import { openSync, readFileSync, statSync, writeFileSync, writeSync, closeSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { listCursors, openCursor, type Cursor } from "../../src/journal/cursor.ts";
import { toOffset } from "../../src/reading.ts";
import { test } from "./fixtures.ts";

const slotBytes = 512;
const start = toOffset(0);
const journalId = "ab".repeat(16);

/** Writes each position to disk, in turn. */
function flushAll(cursor: Cursor, positions: readonly number[]): void {
  for (const position of positions) {
    cursor.commit(toOffset(position));
    cursor.flush();
  }
}

function overwrite(path: string, position: number, bytes: Buffer): void {
  const fd = openSync(path, "r+");
  writeSync(fd, bytes, 0, bytes.length, position);
  closeSync(fd);
}

describe("a cursor", () => {
  test("begins at its start, and at what was flushed last when it is opened again", async ({ dir }) => {
    {
      await using cursor = openCursor({ dir, journalId, name: "sqlite", start: toOffset(7) });
      expect([cursor.position, cursor.durable, cursor.origin]).toEqual([7, 7, "new"]);
      flushAll(cursor, [10, 20, 30]);
      expect(cursor.durable).toBe(30);
      cursor.commit(toOffset(31));
      expect([cursor.position, cursor.durable]).toEqual([31, 30]);
    }
    await using again = openCursor({ dir, journalId, name: "sqlite", start });
    expect([again.position, again.durable, again.origin]).toEqual([31, 31, "kept"]);
    expect(statSync(join(dir, "sqlite.cursor")).size).toBe(4096);
  });

  test("is on disk soon after a commit, and says so", async ({ dir }) => {
    const { promise, resolve } = Promise.withResolvers<number>();
    await using cursor = openCursor({ dir, journalId, name: "a", start, intervalMs: 1, onDurable: resolve });
    cursor.commit(toOffset(5));
    cursor.commit(toOffset(6));
    expect(await promise).toBe(6);
    expect(listCursors(dir, journalId)).toMatchObject([{ name: "a", position: 6 }]);
  });

  test("may step back: the last word counts", async ({ dir }) => {
    {
      await using cursor = openCursor({ dir, journalId, name: "a", start });
      flushAll(cursor, [100, 50]);
    }
    await using again = openCursor({ dir, journalId, name: "a", start });
    expect(again.position).toBe(50);
  });

  test("loses one step and no more when a write is torn at any byte", async ({ dir }) => {
    const path = join(dir, "a.cursor");
    {
      await using cursor = openCursor({ dir, journalId, name: "a", start });
      flushAll(cursor, [100, 200]);
    }
    const before = readFileSync(path);
    {
      await using cursor = openCursor({ dir, journalId, name: "a", start });
      flushAll(cursor, [300]);
    }
    const after = readFileSync(path);
    for (let torn = 0; torn < 2 * slotBytes; torn += 1) {
      writeFileSync(path, Buffer.concat([after.subarray(0, torn), before.subarray(torn)]));
      const [{ position } = { position: -1 }] = listCursors(dir, journalId);
      expect([200, 300]).toContain(position);
      overwrite(path, slotBytes * (position === 300 ? 1 : 0), Buffer.alloc(slotBytes, 0xff));
    }
  });

  test("with two damaged slots begins again and says so", async ({ dir }) => {
    {
      await using cursor = openCursor({ dir, journalId, name: "a", start });
      flushAll(cursor, [100, 200]);
    }
    overwrite(join(dir, "a.cursor"), 0, Buffer.alloc(2 * slotBytes, 0xff));
    // It holds the whole journal, as nobody knows what its consumer has.
    expect(listCursors(dir, journalId)).toMatchObject([{ name: "a", position: 0, damage: "no slot of it is valid" }]);
    await using again = openCursor({ dir, journalId, name: "a", start: toOffset(3) });
    expect([again.position, again.origin]).toEqual([3, "damaged"]);
    expect(listCursors(dir, journalId)).toMatchObject([{ name: "a", position: 3, damage: undefined }]);
  });

  test("of any name has a file of its own in the folder", async ({ dir }) => {
    for (const name of ["../up", "handler:a/b", "ü"]) {
      await using cursor = openCursor({ dir, journalId, name, start });
      flushAll(cursor, [name.length]);
    }
    expect(
      listCursors(dir, journalId)
        .map(({ name }) => name)
        .toSorted(),
    ).toEqual(["../up", "handler:a/b", "ü"]);
    expect(listCursors(join(dir, "missing"), journalId)).toEqual([]);
  });
});
