import { describe, expect } from "vitest";
import { nodeDisk } from "../../src/journal/disk.ts";
import { openReader, type LostRange } from "../../src/journal/reader.ts";
import { toOffset } from "../../src/reading.ts";
import { message, payloads, sequences, test } from "./fixtures.ts";
import { openStore } from "./store-harness.ts";

const all = { records: 1000, bytes: 2 ** 20 };
const never = new AbortController().signal;
const longMs = 60_000;

describe("read", () => {
  test("yields no more records and bytes than asked for, but at least one", ({ dir }) => {
    const { share, commit } = openStore(dir);
    commit(10);
    using reader = openReader(share, toOffset(0));
    expect(payloads(reader.read({ records: 3, bytes: 2 ** 20 }))).toEqual(sequences(0, 3));
    expect([reader.position, reader.lag]).toEqual([3, 7]);
    expect(payloads(reader.read({ records: 3, bytes: 1 }))).toEqual(sequences(3, 4));
    expect(payloads(reader.read({ records: 100, bytes: 60 }))).toEqual(sequences(4, 6));
    expect(payloads(reader.read(all))).toEqual(sequences(6, 10));
    expect(reader.read(all)).toEqual([]);
  });

  test("yields nothing at or above durable, even when the file has it", ({ dir }) => {
    const { share, commit, table } = openStore(dir);
    commit(5);
    const range = { first: table.first, last: table.last, firstOffset: toOffset(0) };
    table.publish({ ...range, durable: toOffset(2) });
    using reader = openReader(share, toOffset(0));
    expect(payloads(reader.read(all))).toEqual(sequences(0, 2));
    expect([reader.read(all), reader.position]).toEqual([[], 2]);
    table.publish({ ...range, durable: toOffset(5) });
    expect(payloads(reader.read(all))).toEqual(sequences(2, 5));
  });

  test("leaves entries that stay as they are when it goes on", ({ dir }) => {
    const { share, commit } = openStore(dir);
    using reader = openReader(share, toOffset(0));
    commit(5);
    const kept = reader.read(all);
    commit(5);
    reader.read(all);
    expect(payloads(kept)).toEqual(sequences(0, 5));
  });

  test("goes from segment to segment while they come", ({ dir }) => {
    const { share, commit, store } = openStore(dir, nodeDisk, 4096);
    using reader = openReader(share, toOffset(0));
    const read: string[] = [];
    for (let part = 0; part < 40; part += 1) {
      commit(7 + part);
      store.prepare();
      read.push(...payloads(reader.read({ records: 30, bytes: 2 ** 20 })));
    }
    read.push(...payloads(reader.read(all)), ...payloads(reader.read(all)));
    expect(store.figures.segments).toBeGreaterThan(10);
    expect(read).toEqual(sequences(0, store.durable));
  });

  test("tells what was trimmed before it came there, also from under it", ({ dir }) => {
    const { share, commit, store, trim } = openStore(dir, nodeDisk, 4096);
    const lost: LostRange[] = [];
    using reader = openReader(share, toOffset(0), (range) => lost.push(range));
    for (let part = 0; part < 10; part += 1) commit(50);
    reader.read({ records: 10, bytes: 2 ** 20 });
    trim(toOffset(300));
    const { firstOffset } = store.figures;
    const rest = payloads(reader.read(all));
    // The frame in hand is read to its end.
    expect(lost).toEqual([{ kind: "trimmed", from: 50, to: firstOffset }]);
    expect(rest).toEqual([...sequences(10, 50), ...sequences(firstOffset, 500)]);
  });
});

describe("seek", () => {
  test("goes to any offset, back and forth, and to the nearest that is there", ({ dir }) => {
    const { share, commit, store, trim } = openStore(dir, nodeDisk, 4096);
    for (let part = 0; part < 10; part += 1) commit(50);
    trim(toOffset(120));
    const { firstOffset } = store.figures;
    using reader = openReader(share, toOffset(0));
    expect(reader.position).toBe(firstOffset);
    for (const to of [499, 333, 150, 250, firstOffset]) {
      reader.seek(toOffset(to));
      expect(payloads(reader.read({ records: 1, bytes: 1 }))).toEqual(sequences(to, to + 1));
    }
    reader.seek(toOffset(10_000));
    expect([reader.position, reader.lag]).toEqual([500, 0]);
  });
});

describe("wait", () => {
  test("resolves at once when there is more, and at the next commit when there is not", async ({ dir }) => {
    const { share, commit } = openStore(dir);
    using reader = openReader(share, toOffset(0));
    commit(1);
    await reader.wait(never, longMs);
    reader.read(all);
    for (let round = 1; round < 4; round += 1) {
      const waiting = reader.wait(never, longMs);
      commit(1);
      await waiting;
      expect(payloads(reader.read(all))).toEqual(sequences(round, round + 1));
    }
  });

  test("misses no commit that comes between read and wait", async ({ dir }) => {
    const { share, commit, table } = openStore(dir);
    using reader = openReader(share, toOffset(0));
    reader.read(all);
    const { first, last, firstOffset, durable } = table;
    table.publish({ first, last, firstOffset, durable });
    await reader.wait(never, longMs);
    reader.read(all);
    commit(1);
    await reader.wait(never, longMs);
  });

  test("ends with its time or its signal, and can be called again", async ({ dir }) => {
    const { share, commit } = openStore(dir);
    using reader = openReader(share, toOffset(0));
    reader.read(all);
    await reader.wait(never, 1);
    await reader.wait(never, 1);
    const stop = new AbortController();
    const waiting = reader.wait(stop.signal, longMs);
    stop.abort();
    await waiting;
    await reader.wait(stop.signal, longMs);
    const again = reader.wait(never, longMs);
    commit(1);
    await again;
    expect(payloads(reader.read(all))).toEqual(sequences(0, 1));
  });
});

describe("read of rejected records only", () => {
  const rejection = { reason: "invalid", issues: [{ path: "seq", message: "no" }] } as const;
  const only = { ...all, only: "rejected" } as const;

  test("yields them, steps over the others, and ends at its bytes even when it has yielded none", async ({ open }) => {
    const journal = await open();
    for (let sequence = 0; sequence < 3_000; sequence += 1) {
      journal.append(message(sequence), "climate", sequence % 1_000 === 999 ? rejection : undefined);
    }
    await journal.flush();
    using reader = openReader(journal.share, toOffset(0));
    expect(reader.read({ ...only, bytes: 1_000 })).toEqual([]);
    expect(reader.position).toBeGreaterThan(0);
    expect(reader.position).toBeLessThan(50);
    expect(reader.atLimit).toBe(true);
    const found = reader.read(only);
    expect(found).toMatchObject([999, 1_999, 2_999].map((offset) => ({ offset, kind: "rejected", rejection })));
    expect([reader.position, reader.lag, reader.atLimit]).toEqual([3_000, 0, false]);
  });
});
