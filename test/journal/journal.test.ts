import { execFile } from "node:child_process";
import { once } from "node:events";
import { readdir, rename, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { describe, expect } from "vitest";
import { openJournal, type Journal } from "../../src/journal/journal.ts";
import { openReader, type LostRange } from "../../src/journal/reader.ts";
import { maximumRecordBytes, type JournalEntry } from "../../src/journal/record.ts";
import { toOffset } from "../../src/reading.ts";
import { close, commit, message, payloads, readAll, sequences, test } from "./fixtures.ts";

/** Resolves when the journal's state or congestion satisfies the condition. */
async function when(journal: Journal, condition: () => boolean): Promise<void> {
  if (condition()) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  using _ = journal.onState(() => {
    if (condition()) resolve();
  });
  await promise;
}

const segmentFiles = async (dir: string): Promise<string[]> =>
  (await readdir(dir)).filter((name) => name.endsWith(".seg")).toSorted();

describe("append", () => {
  test("gives offsets one by one, at once, and durable passes them once per commit", async ({ open }) => {
    const journal = await open();
    const passed: number[] = [];
    using _ = journal.onDurable((to) => passed.push(to));
    expect([0, 1, 2].map((sequence) => journal.append(message(sequence), "climate"))).toEqual([0, 1, 2]);
    expect([journal.next, journal.durable]).toEqual([3, 0]);
    await journal.flush();
    expect(journal.durable).toBe(3);
    expect(passed).toEqual([3]);
    expect(journal.stats()).toMatchObject({ commits: 1, pendingBytes: 0 });
  });

  test("commits without being asked", async ({ open }) => {
    const journal = await open();
    const { promise, resolve } = Promise.withResolvers<number>();
    using _ = journal.onDurable(resolve);
    journal.append(message(0), "climate");
    expect(await promise).toBe(1);
  });

  test("copies the message: the socket's buffer may change right after", async ({ open }) => {
    const journal = await open();
    const socket = Buffer.from("first");
    journal.append(message(0, socket), "climate");
    socket.write("xxxxx");
    await journal.flush();
    expect(payloads(readAll(journal.share).entries)).toEqual(["first"]);
  });

  test("keeps stream, rejection, device id, QoS, packet id and time", async ({ open }) => {
    const journal = await open();
    const rejection = { reason: "invalid", issues: [{ path: "metrics.temp", message: "expected number" }] } as const;
    const whole = { ...message(7), deviceId: "other", qos: 2, packetId: 65_535 } as const;
    journal.append(whole, "power", rejection);
    journal.append(message(8), "no such stream");
    await journal.flush();
    expect(readAll(journal.share).entries).toEqual([
      { offset: 0, kind: "rejected", stream: "power", rejection, message: whole },
      { offset: 1, kind: "accepted", stream: "", message: message(8) },
    ]);
  });

  test("gives a release its place among the records, also when it is of the last commit before a start", async ({
    open,
  }) => {
    const journal = await open();
    const at = message(0).receivedAt;
    expect([journal.append(message(0), "power"), journal.release("d0", 7, at), journal.release("d0", 0, at)]).toEqual([
      0, 1, 2,
    ]);
    await close(journal);
    const { share } = await open({ streams: ["climate"] });
    const end = { topic: "", payload: Buffer.alloc(0), clientId: "d0", deviceId: "d0", receivedAt: at, qos: 2 };
    expect(readAll(share).entries).toEqual([
      { offset: 0, kind: "accepted", stream: "power", message: message(0) },
      { offset: 1, kind: "released", stream: "", message: { ...end, packetId: 7 } },
      { offset: 2, kind: "released", stream: "", message: { ...end, packetId: 0 } },
    ]);
  });

  test("keeps times exactly when the clock steps back or far ahead", async ({ open }) => {
    const journal = await open();
    const times = [1_700_000_000_000, 1_700_000_065_535, 1_700_000_065_536, 1_600_000_000_000, 1_600_000_000_001];
    for (const receivedAt of times) journal.append({ ...message(0), receivedAt }, "climate");
    await journal.flush();
    expect(readAll(journal.share).entries.map((entry) => entry.message.receivedAt)).toEqual(times);
  });

  test("refuses only a record that no frame can hold, and nothing has changed then", async ({ open }) => {
    const journal = await open();
    expect(() => journal.append(message(0, Buffer.alloc(maximumRecordBytes)), "climate")).toThrow(RangeError);
    expect(journal.next).toBe(0);
    journal.append(message(1, Buffer.alloc(maximumRecordBytes - 100)), "climate");
    journal.append(message(2), "climate");
    await journal.flush();
    expect(readAll(journal.share).entries.map((entry) => entry.message.payload.length)).toEqual([
      maximumRecordBytes - 100,
      9,
    ]);
  });

  test("takes more than the ring holds, in order, and says that it is congested meanwhile", async ({ open }) => {
    const journal = await open({ maxBytes: 2 ** 30 });
    const states: boolean[] = [];
    using watch = journal.onState(() => states.push(journal.congested));
    const payload = Buffer.alloc(200_000);
    for (let sequence = 0; sequence < 250; sequence += 1) {
      payload.writeUInt32LE(sequence);
      journal.append(message(sequence, payload), "climate");
    }
    expect(journal.congested).toBe(true);
    expect(journal.state).toBe("open");
    await journal.flush();
    await when(journal, () => !journal.congested);
    expect(states).toEqual([true, false]);
    watch[Symbol.dispose]();
    const { entries } = readAll(journal.share);
    expect(entries.map((entry) => Buffer.from(entry.message.payload).readUInt32LE())).toEqual(
      Array.from({ length: 250 }, (_, index) => index),
    );
  });
});

describe("open", () => {
  test("continues where the last run ended, with the same id and stream names", async ({ open }) => {
    const first = await open();
    await commit(first, 0, 10);
    await close(first);
    const second = await open({ streams: ["power"] });
    expect([second.id, second.next, second.durable]).toEqual([first.id, 10, 10]);
    await commit(second, 10, 12);
    const { entries, lost } = readAll(second.share);
    expect(payloads(entries)).toEqual(sequences(0, 12));
    expect(new Set(entries.slice(0, 10).map(({ stream }) => stream))).toEqual(new Set(["climate"]));
    expect(lost).toEqual([]);
  });

  test("is refused while another journal is open on the folder, in this process or another", async ({ dir, open }) => {
    const first = await open();
    const locked = expect.objectContaining({ code: "SLUICE_JOURNAL_LOCKED" });
    await expect(open()).rejects.toEqual(locked);
    await close(first);
    const second = await open();
    expect(second.id).toBe(first.id);
    const url = new URL("../../src/journal/journal.ts", import.meta.url).href;
    const script = `import(${JSON.stringify(url)})
      .then(({ openJournal }) => openJournal({ dir: ${JSON.stringify(dir)}, streams: [], maxBytes: 1e9 }))
      .then(() => "opened", (error) => error.code).then((code) => process.stdout.write(code));`;
    const child = execFile(process.execPath, ["-e", script]);
    let output = "";
    child.stdout?.on("data", (chunk: string) => (output += chunk));
    await once(child, "close");
    expect(output).toBe("SLUICE_JOURNAL_LOCKED");
  });

  test("is not kept from it by a lock file with foreign content", async ({ dir, open }) => {
    await writeFile(join(dir, "lock"), Buffer.alloc(5000, "garbage"));
    const journal = await open();
    await commit(journal, 0, 1);
    await expect(open()).rejects.toEqual(expect.objectContaining({ code: "SLUICE_JOURNAL_LOCKED" }));
  });

  test("is refused with a reason when the folder cannot be one", async ({ dir }) => {
    await writeFile(join(dir, "file"), "");
    const options = { streams: [], maxBytes: 1e9 };
    const refused = expect.objectContaining({ code: "SLUICE_DATA_DIR" });
    await expect(openJournal({ dir: join(dir, "file"), ...options })).rejects.toEqual(refused);
  });
});

describe("trim", () => {
  test("deletes segments that are wholly below, and only those", async ({ dir, open }) => {
    const journal = await open({ segmentBytes: 4096 });
    for (let part = 0; part < 20; part += 1) await commit(journal, part * 30, part * 30 + 30);
    const before = journal.stats();
    expect(before.segments).toBeGreaterThan(4);
    journal.trim(toOffset(400));
    await commit(journal, 600, 601);
    // Deleted after that commit; told with the next.
    await commit(journal, 601, 602);
    const { firstOffset, segments, bytes } = journal.stats();
    expect(firstOffset).toBeGreaterThan(0);
    expect(firstOffset).toBeLessThanOrEqual(400);
    expect(segments).toBeLessThan(before.segments);
    expect(bytes).toBeLessThan(before.bytes);
    expect(await segmentFiles(dir)).toHaveLength(segments);
    expect(payloads(readAll(journal.share, 400).entries)).toEqual(sequences(400, 602));
  });

  test("keeps the id and the offsets when nothing is left, also over restarts", async ({ open }) => {
    const first = await open({ segmentBytes: 4096 });
    await commit(first, 0, 100);
    await close(first);
    for (let restart = 0; restart < 3; restart += 1) {
      const journal = await open({ segmentBytes: 4096 });
      expect([journal.id, journal.next]).toEqual([first.id, 100]);
      journal.trim(journal.durable);
      await close(journal);
    }
  });
});

describe("full", () => {
  test("holds at maxBytes, and opens again at 90 % after a trim", async ({ open }) => {
    const maxBytes = 200_000;
    const journal = await open({ maxBytes, segmentBytes: 20_000 });
    let sequence = 0;
    while (journal.state === "open") {
      await commit(journal, sequence, sequence + 10);
      sequence += 10;
    }
    expect([journal.state, journal.congested]).toEqual(["full", true]);
    expect(journal.hint).toContain("200000");
    journal.trim(toOffset(1));
    await turn();
    expect(journal.state).toBe("full");
    journal.trim(journal.durable);
    await when(journal, () => journal.state === "open");
    expect(journal.stats().bytes).toBeLessThanOrEqual(0.9 * maxBytes);
    expect([journal.congested, journal.hint]).toEqual([false, ""]);
    await commit(journal, sequence, sequence + 1);
  });

  test("of one segment that everybody has read has a way out", async ({ open }) => {
    const journal = await open({ maxBytes: 40_000 });
    for (let sequence = 0; sequence < 900; sequence += 1) journal.append(message(sequence), "climate");
    await journal.flush();
    expect(journal.state).toBe("full");
    journal.trim(journal.durable);
    await when(journal, () => journal.state === "open");
    expect(journal.stats().bytes).toBeLessThan(1000);
    await commit(journal, 900, 910);
    expect(payloads(readAll(journal.share, 900).entries)).toEqual(sequences(900, 910));
    await close(journal);
    expect((await open({ maxBytes: 40_000 })).next).toBe(910);
  });

  test("it never is when nobody needs what comes", async ({ open }) => {
    const journal = await open({ maxBytes: 40_000 });
    journal.trim(toOffset(10_000));
    let wasFull = false;
    using watch = journal.onState(() => (wasFull ||= journal.state === "full"));
    for (let part = 0; part < 20; part += 1) {
      await commit(journal, part * 100, part * 100 + 100);
      await when(journal, () => journal.state === "open");
    }
    watch[Symbol.dispose]();
    expect(wasFull).toBe(false);
    expect(journal.stats().bytes).toBeLessThan(40_000);
  });

  test("is known from the start", async ({ open }) => {
    const first = await open();
    await commit(first, 0, 500);
    await close(first);
    const second = await open({ maxBytes: 20_000 });
    expect(second.state).toBe("full");
  });
});

describe("expire", () => {
  test("never fills up: the oldest go unread, and are told exactly", async ({ open }) => {
    const maxBytes = 100_000;
    const journal = await open({ maxBytes, whenFull: "expire" });
    const expired: number[] = [];
    let isFull = false;
    using _ = journal.onState(() => (isFull ||= journal.state !== "open"));
    using __ = journal.onNotice((notice) => {
      if (notice.kind !== "expired") return;
      expect(notice.from).toBe(expired.at(-1) ?? 150);
      expired.push(notice.to);
    });
    // A consumer has come so far, and is dead since.
    journal.trim(toOffset(150));
    for (let part = 0; part < 50; part += 1) await commit(journal, part * 50, part * 50 + 50);
    await commit(journal, 2500, 2501);
    expect(isFull).toBe(false);
    expect(expired.length).toBeGreaterThan(3);
    const { bytes, firstOffset } = journal.stats();
    expect(bytes).toBeLessThan(maxBytes);
    expect(firstOffset).toBe(expired.at(-1));
    const { entries, lost } = readAll(journal.share, 150);
    expect(payloads(entries)).toEqual(sequences(firstOffset, 2501));
    expect(lost).toEqual([]);
  });

  test("says nothing of what every consumer has read and only the next start wanted", async ({ open }) => {
    const journal = await open({ maxBytes: 100_000, whenFull: "expire" });
    const notices: unknown[] = [];
    using _ = journal.onNotice((notice) => notices.push(notice));
    for (let part = 0; part < 50; part += 1) {
      journal.trim(journal.durable, toOffset(20));
      await commit(journal, part * 50, part * 50 + 50);
    }
    expect(journal.stats().firstOffset).toBeGreaterThan(20);
    expect(journal.stats().bytes).toBeGreaterThan(50_000);
    expect(notices).toEqual([]);
  });

  test("under a reader: it passes over what is gone, tells exactly what, and reads on", async ({ open }) => {
    const journal = await open({ maxBytes: 100_000, whenFull: "expire" });
    const lost: LostRange[] = [];
    using reader = openReader(journal.share, toOffset(0), (range) => lost.push(range));
    await commit(journal, 0, 50);
    expect(reader.read({ records: 10, bytes: 2 ** 20 })).toHaveLength(10);
    for (let part = 1; part < 50; part += 1) await commit(journal, part * 50, part * 50 + 50);
    const rest: JournalEntry[] = [];
    const more = (): JournalEntry[] => reader.read({ records: 1000, bytes: 2 ** 20 });
    for (let entries = more(); entries.length > 0; entries = more()) rest.push(...entries);
    const missing = lost.reduce((sum, { from, to }) => sum + to - from, 0);
    expect(lost.map(({ kind }) => kind)).toEqual(["trimmed"]);
    expect(10 + rest.length + missing).toBe(2500);
  });
});

describe("retain", () => {
  test("keeps for replay what everybody has read, and gives it up for what comes", async ({ open }) => {
    const maxBytes = 100_000;
    const journal = await open({ maxBytes, retain: { bytes: 40_000 } });
    let isFull = false;
    using _ = journal.onState(() => (isFull ||= journal.state !== "open"));
    journal.trim(toOffset(500));
    for (let part = 0; part < 10; part += 1) await commit(journal, part * 50, part * 50 + 50);
    expect(journal.stats().firstOffset).toBe(0);
    for (let part = 10; part < 40; part += 1) {
      journal.trim(journal.durable);
      await commit(journal, part * 50, part * 50 + 50);
    }
    const { bytes, firstOffset } = journal.stats();
    expect(firstOffset).toBeGreaterThan(500);
    expect(bytes).toBeGreaterThan(30_000);
    expect(bytes).toBeLessThan(70_000);
    // Nobody reads any longer: what is retained goes first, and then the journal is full.
    for (let part = 40; journal.state === "open"; part += 1) await commit(journal, part * 50, part * 50 + 50);
    expect(isFull).toBe(true);
    expect(journal.stats().firstOffset).toBeGreaterThan(firstOffset);
    expect(journal.stats().heldBytes).toBeGreaterThan(0.7 * maxBytes);
    const { entries, lost } = readAll(journal.share, 1950);
    expect([payloads(entries)[0], lost]).toEqual(['{"seq":1950}', []]);
  });

  test("by age holds over a restart", async ({ dir, open }) => {
    const options = { segmentBytes: 4096, retain: { time: 3_600_000 } };
    const first = await open(options);
    for (let part = 0; part < 5; part += 1) await commit(first, part * 50, part * 50 + 50);
    await close(first);
    const [oldest = ""] = await segmentFiles(dir);
    const hourAgo = new Date(Date.now() - 3_700_000);
    await utimes(join(dir, oldest), hourAgo, hourAgo);
    const second = await open(options);
    second.trim(second.durable);
    await commit(second, 250, 251);
    await commit(second, 251, 252);
    const left = await segmentFiles(dir);
    expect(left).not.toContain(oldest);
    expect(left.length).toBeGreaterThan(2);
  });
});

describe("a disk with little room", () => {
  test("makes the journal full before it is full to the last byte", async ({ open }) => {
    const journal = await open({ reserveBytes: 2 ** 50 });
    await commit(journal, 0, 1);
    await when(journal, () => journal.state === "full");
    expect(journal.hint).toContain("journal.reserveBytes");
    await commit(journal, 1, 2);
    expect(payloads(readAll(journal.share).entries)).toEqual(sequences(0, 2));
  });
});

describe("a disk that refuses", () => {
  test("makes the journal failed, and it goes on by itself when the disk is back", async ({ dir, open }) => {
    const inner = join(dir, "journal");
    const journal = await open({ dir: inner, segmentBytes: 4096 });
    await commit(journal, 0, 50);
    // Without its folder the journal cannot create the next segment; what is open can still be written.
    await rename(inner, join(dir, "away"));
    const failed = when(journal, () => journal.state === "failed");
    let sequence = 50;
    const refusals: unknown[] = [];
    while (journal.state === "open") {
      await commit(journal, sequence, sequence + 50).catch((error: unknown) => refusals.push(error));
      sequence += 50;
    }
    await failed;
    expect(refusals).toEqual([expect.objectContaining({ code: "SLUICE_JOURNAL_WRITE" })]);
    expect([journal.congested, journal.hint]).toEqual([true, expect.stringContaining("ENOENT")]);
    const { durable } = journal;
    expect(durable).toBeLessThan(sequence);
    expect(journal.append(message(sequence), "climate")).toBe(sequence);
    await expect(journal.flush()).rejects.toThrow(expect.objectContaining({ code: "SLUICE_JOURNAL_WRITE" }));
    expect(journal.durable).toBe(durable);
    await rename(join(dir, "away"), inner);
    await when(journal, () => !journal.congested);
    await journal.flush();
    expect(payloads(readAll(journal.share).entries)).toEqual(sequences(0, sequence + 1));
  });

  test("does not hold up a close, which says what was not made durable", async ({ dir, open }) => {
    const inner = join(dir, "journal");
    const journal = await open({ dir: inner, segmentBytes: 4096 });
    await rename(inner, join(dir, "away"));
    for (let sequence = 0; journal.state === "open"; sequence += 60) {
      await commit(journal, sequence, sequence + 60).catch(() => {});
    }
    await expect(close(journal)).rejects.toThrow(expect.objectContaining({ code: "SLUICE_JOURNAL_WRITE" }));
    const again = await open({ dir: join(dir, "away") });
    expect(again.next).toBe(journal.durable);
  });
});

describe("close", () => {
  test("makes everything durable that was appended, and may be asked for twice", async ({ open }) => {
    const first = await open();
    for (let sequence = 0; sequence < 100; sequence += 1) first.append(message(sequence), "climate");
    await Promise.all([close(first), close(first)]);
    const second = await open();
    expect(payloads(readAll(second.share).entries)).toEqual(sequences(0, 100));
  });
});

describe("a reader in another thread", () => {
  test("follows the writer over many segments and sees each record once, in order", async ({ open }) => {
    const journal = await open({ segmentBytes: 4096, maxBytes: 2 ** 30, minCommitIntervalMs: 0 });
    const count = 20_000;
    const worker = new Worker(new URL("./follower.ts", import.meta.url), {
      workerData: { share: journal.share, count },
    });
    const answer = once(worker, "message");
    for (let sequence = 0; sequence < count; sequence += 1) {
      journal.append(message(sequence), "climate");
      while (journal.next - journal.durable > 300) await turn();
    }
    await journal.flush();
    expect(await answer).toEqual([{ read: count, outOfOrder: 0, beyondDurable: 0, lost: 0 }]);
    expect(journal.stats().segments).toBeGreaterThan(20);
    await worker.terminate();
  });
});
