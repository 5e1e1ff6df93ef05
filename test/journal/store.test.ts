import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { nodeDisk, type Disk } from "../../src/journal/disk.ts";
import { recover } from "../../src/journal/recovery.ts";
import { sequences, test } from "./fixtures.ts";
import { openStore } from "./store-harness.ts";

type Operation = "create" | "write" | "sync" | "truncate" | "unlink" | "syncDir";

/** The real disk, on which chosen calls fail. The frames of a failed sync stay in the file, as in the page cache. */
function createFaultyDisk(): { disk: Disk; failNext: (operation: Operation, times?: number) => void; log: string[] } {
  const failures = new Map<Operation, number>();
  const log: string[] = [];
  const guard = <A extends readonly unknown[], R>(operation: Operation, call: (...args: A) => R) => {
    return (...args: A): R => {
      const left = failures.get(operation) ?? 0;
      log.push(left > 0 ? `${operation}!` : operation);
      if (left === 0) return call(...args);
      failures.set(operation, left - 1);
      throw new Error(`EIO: ${operation}`);
    };
  };
  const disk: Disk = {
    create: guard("create", nodeDisk.create),
    write: guard("write", nodeDisk.write),
    sync: guard("sync", nodeDisk.sync),
    close: nodeDisk.close,
    truncate: guard("truncate", nodeDisk.truncate),
    unlink: guard("unlink", nodeDisk.unlink),
    syncDir: guard("syncDir", nodeDisk.syncDir),
    space: nodeDisk.space,
  };
  return { disk, failNext: (operation, times = 1) => failures.set(operation, times), log };
}

const files = (dir: string): string[] => readdirSync(dir).toSorted();

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
    let short = false;
    const disk: Disk = {
      ...nodeDisk,
      write: (fd, buffers, position) => nodeDisk.write(fd, buffers, position) - (short ? 1 : 0),
    };
    const { store, commit } = openStore(dir, disk);
    commit(1);
    short = true;
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
    expect([next, report.damaged, report.rewritten]).toEqual([9, [], 4]);
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
    expect(recover(dir)).toMatchObject({ next: 7, lastCommit: { base: 5 } });
  });
});
