import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { nodeDisk } from "../../src/journal/disk.ts";
import { recover } from "../../src/journal/recovery.ts";
import { toOffset } from "../../src/reading.ts";
import { createFaultyDisk } from "./faulty-disk.ts";
import { sequences, test } from "./fixtures.ts";
import { openStore } from "./store-harness.ts";

const files = (dir: string): string[] =>
  readdirSync(dir)
    .filter((name) => name.endsWith(".seg"))
    .toSorted();

describe("a commit", () => {
  for (const operation of ["write", "sync"] as const) {
    test(`whose ${operation} fails goes to a fresh segment, and the old pages are not synced again`, ({ dir }) => {
      const { disk, failNext, log } = createFaultyDisk();
      const { store, commit, read } = openStore(dir, disk);
      commit(3);
      const durableBytes = statSync(join(dir, "0000000001.seg")).size;
      log.length = 0;
      failNext(operation);
      commit(2);
      const failing = operation === "write" ? ["write!"] : ["write", "sync!"];
      expect(log).toEqual([...failing, "truncate", "create", "write", "sync", "syncDir", "write", "sync"]);
      expect(statSync(join(dir, "0000000001.seg")).size).toBe(durableBytes);
      expect(store.durable).toBe(5);
      commit(1);
      expect(read()).toEqual(sequences(0, 6));
    });
  }

  test("that is written short counts as failed", ({ dir }) => {
    const faulty = createFaultyDisk();
    const { store, commit } = openStore(dir, faulty.disk);
    commit(1);
    faulty.shortBy = 1;
    expect(() => commit(1)).toThrow("short write");
    expect(store.durable).toBe(1);
  });

  test("is refused after two fresh segments, leaves no trace, and can be given again", ({ dir }) => {
    const { disk, failNext } = createFaultyDisk();
    const { store, commit, read, table } = openStore(dir, disk);
    commit(3);
    failNext("sync", 3);
    expect(() => commit(2)).toThrow("EIO: sync");
    expect([store.durable, table.durable]).toEqual([3, 3]);
    expect(read()).toEqual(sequences(0, 3));
    expect(files(dir)).toEqual(["0000000001.seg"]);
  });

  test("that failed and could not be cut off is void for the next start", ({ dir }) => {
    const { disk, failNext } = createFaultyDisk();
    const { commit, store } = openStore(dir, disk);
    commit(3);
    failNext("sync");
    failNext("truncate");
    commit(2);
    commit(4);
    store.close();
    const { segments, next, report } = recover(dir);
    expect(segments.map(({ number, base, end }) => [number, base, end])).toEqual([
      [1, 0, 3],
      [2, 3, 5],
    ]);
    expect([next, report.lost, report.rewritten]).toEqual([9, [], 4]);
    expect(openStore(dir).read()).toEqual(sequences(0, 9));
  });

  test("counts only when the directory entry of its segment is synced", ({ dir }) => {
    const { disk, failNext, log } = createFaultyDisk();
    const { commit, store } = openStore(dir, disk, 4096);
    failNext("syncDir", 100);
    expect(() => {
      for (let part = 0; part < 10; part += 1) commit(30);
    }).toThrow("EIO: syncDir");
    expect(log.indexOf("syncDir!")).toBeLessThan(log.length - 1);
    const { durable } = store;
    store.close();
    expect(recover(dir).next).toBe(durable);
  });
});

describe("tries in the background", () => {
  test("use up no numbers, however long the disk refuses", ({ dir }) => {
    const { disk, failNext } = createFaultyDisk();
    const { commit } = openStore(dir, disk);
    commit(1);
    failNext("sync", 300);
    for (let attempt = 0; attempt < 100; attempt += 1) expect(() => commit(1)).toThrow("EIO");
    commit(1);
    expect(files(dir)).toEqual(["0000000001.seg", "0000000002.seg"]);
  });

  test("leave only so many files that cannot be deleted, and delete them when they can", ({ dir }) => {
    const { disk, failNext, heal } = createFaultyDisk();
    const { commit, store, trim, read } = openStore(dir, disk);
    commit(1);
    failNext("syncDir", Infinity);
    failNext("sync", 1);
    failNext("unlink", Infinity);
    for (let attempt = 0; attempt < 50; attempt += 1) expect(() => commit(1)).toThrow(/EIO|cannot be deleted/);
    expect(files(dir)).toHaveLength(17);
    heal();
    trim(toOffset(0));
    commit(1);
    expect(files(dir)).toHaveLength(store.figures.segments);
    expect(read()).toEqual(sequences(0, store.durable));
  });
});

test("a disk that deletes nothing stops no commit: what cannot be deleted counts until it is gone", ({ dir }) => {
  const { disk, failNext, heal } = createFaultyDisk();
  const { commit, store, trim } = openStore(dir, disk, 4096);
  failNext("unlink", Infinity);
  for (let part = 0; part < 60; part += 1) {
    commit(60);
    trim(store.durable);
  }
  expect(files(dir)).toHaveLength(60);
  expect(store.figures.bytes).toBe(files(dir).reduce((sum, name) => sum + statSync(join(dir, name)).size, 0));
  heal();
  trim(store.durable);
  expect(files(dir)).toHaveLength(store.figures.segments);
});

describe("the next segment", () => {
  test("is there before the open one is full", ({ dir }) => {
    const { disk, log } = createFaultyDisk();
    const { commit, store, read } = openStore(dir, disk, 4096);
    commit(30);
    store.prepare();
    expect(files(dir)).toHaveLength(1);
    commit(32);
    store.prepare();
    expect(files(dir)).toHaveLength(2);
    log.length = 0;
    commit(30);
    expect(log).toEqual(["write", "sync"]);
    expect(read()).toEqual(sequences(0, 92));
  });

  test("that the disk refuses ahead of need is created at need", ({ dir }) => {
    const { disk, failNext } = createFaultyDisk();
    const { commit, store, read } = openStore(dir, disk, 4096);
    commit(62);
    failNext("create");
    store.prepare();
    commit(30);
    expect(read()).toEqual(sequences(0, 92));
  });

  test("left over unused tells no wrong end to the next start", ({ dir }) => {
    const { commit, store } = openStore(dir, nodeDisk, 4096);
    commit(62);
    store.prepare();
    commit(1);
    const { next, garbage } = recover(dir);
    expect([next, garbage]).toEqual([63, ["0000000002.seg"]]);
  });
});

describe("trim", () => {
  test("keeps the last file that knows the journal's id and end, while the disk refuses another", ({ dir }) => {
    const { disk, failNext } = createFaultyDisk();
    const { commit, store, trim } = openStore(dir, disk);
    commit(3);
    failNext("sync", 3);
    expect(() => commit(2)).toThrow("EIO: sync");
    trim(store.durable);
    expect(files(dir)).toEqual(["0000000001.seg"]);
    expect(recover(dir).next).toBe(3);
    commit(2);
    trim(store.durable);
    expect(files(dir)).toHaveLength(1);
    expect(recover(dir)).toMatchObject({ next: 7, lastCommit: { base: 3 } });
  });
});
