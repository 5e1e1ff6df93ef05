import { readFileSync, writeFileSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { describe, expect } from "vitest";
import { readCheckpoint, writeCheckpoint } from "../../src/intake/checkpoint.ts";
import { createMemory, type Memory } from "../../src/intake/memory.ts";
import type { Journal } from "../../src/journal/journal.ts";
import { openReader } from "../../src/journal/reader.ts";
import { toSegmentName } from "../../src/journal/segment.ts";
import { toOffset, type Offset } from "../../src/reading.ts";
import { close, readAll, test } from "../journal/fixtures.ts";
import { checkpointPath, climate, message, openIntake, type Opened, qos2, receivedAt, withDedupe } from "./fixtures.ts";

const stream = withDedupe(10);

const write = (journal: Journal, { restored }: Opened): Promise<void> =>
  writeCheckpoint(checkpointPath(journal), { journalId: journal.id, position: journal.next }, restored.memory, () =>
    journal.flush(),
  );

/** Six records in three commits, with a checkpoint at offset 3. */
async function fill(journal: Journal): Promise<Opened> {
  const opened = openIntake(journal, stream);
  const { take, intake } = opened;
  for (const each of [qos2("a", 1), qos2("a", 2), message("d1", "early")]) take(each);
  await write(journal, opened);
  intake.release("a", 1, receivedAt);
  await journal.flush();
  take(qos2("b", 5));
  take(message("d1", "late"));
  await journal.flush();
  return opened;
}

const all = { a: [2], b: [5] };

const keyCount = ({ restored: { memory } }: { readonly restored: { readonly memory: Memory } }): number =>
  [...memory.windows.values()].flatMap((window) => window.generations()).reduce((sum, { size }) => sum + size, 0);

// As text: comparing maps of this size entry by entry takes a minute.
const sessionsText = ({ intake }: Opened): string =>
  [...intake.unfinished]
    .map(([clientId, ids]) => `${clientId} ${[...ids].map(String).sort().join(" ")}`)
    .sort()
    .join("\n");

const keysText = ({ restored: { memory } }: Opened): string =>
  JSON.stringify(
    memory.windows
      .get("climate")
      ?.generations()
      .map(({ offsets }) => [...offsets]),
  );

const stamp = (header: Buffer): void => void header.writeUInt32LE(crc32(header.subarray(0, 60)), 60);

describe("a start", () => {
  test("knows what was known at the end, by the checkpoint and the records behind it", async ({ open }) => {
    const before = await open();
    await fill(before);
    await close(before);
    const opened = openIntake(await open(), stream);
    expect(opened.unfinished()).toEqual(all);
    expect(opened.restored).toMatchObject({ position: 3, records: 3, unknown: [] });
    const again = [message("d1", "early"), message("d1", "late"), message("b", 5), message("d1", "new")];
    expect(again.map((each) => opened.take(each).kind)).toEqual(["duplicate", "duplicate", "duplicate", "appended"]);
  });

  test("knows it by the checkpoint alone when that is of the end", async ({ open }) => {
    const journal = await open();
    await write(journal, await fill(journal));
    const opened = openIntake(journal, stream);
    expect(opened.restored).toMatchObject({ position: 6, records: 0, unknown: [] });
    expect(opened.unfinished()).toEqual(all);
    expect(keyCount(opened)).toBe(5);
  });

  test("knows it without a checkpoint when the whole journal is there", async ({ open, dir }) => {
    const journal = await open();
    await fill(journal);
    const opened = openIntake(journal, stream, { path: join(dir, "none") });
    expect(opened.restored).toMatchObject({ position: 0, records: 6, unknown: [] });
    expect(opened.unfinished()).toEqual(all);
    expect(keyCount(opened)).toBe(5);
  });

  test("reads no more than so much without a checkpoint, and tells what it does not know", async ({ open, dir }) => {
    const journal = await open();
    await fill(journal);
    const foldBytes = journal.stats().bytes / 3;
    const opened = openIntake(journal, stream, { path: join(dir, "none"), foldBytes });
    expect(opened.restored).toMatchObject({ position: 4, records: 2 });
    expect(opened.restored.unknown).toEqual(["records from offset 0 to 4 are not looked at"]);
    expect(opened.unfinished()).toEqual({ b: [5] });
  });

  test("reads no more than so much with a checkpoint that is far behind", async ({ open }) => {
    const journal = await open();
    await fill(journal);
    const opened = openIntake(journal, stream, { foldBytes: journal.stats().bytes / 3 });
    expect(opened.restored).toMatchObject({ position: 4, records: 2 });
    expect(opened.restored.unknown).toEqual(["records from offset 3 to 4 are not looked at"]);
    expect(opened.unfinished()).toEqual({ b: [5] });
  });

  test("decodes no more than so many records for their keys", async ({ open, dir }) => {
    const journal = await open();
    await fill(journal);
    const opened = openIntake(journal, stream, { path: join(dir, "none"), keyRecords: 2 });
    expect(opened.restored.unknown).toEqual(["keys of records from offset 0 to 4 are not looked at"]);
    expect(opened.unfinished()).toEqual(all);
    expect(keyCount(opened)).toBe(2);
    expect(openIntake(journal, climate, { path: join(dir, "none"), keyRecords: 2 }).restored.unknown).toEqual([]);
  });

  test("forgets what is unfinished when records behind the checkpoint are gone: it may have been released", async ({
    open,
  }) => {
    const journal = await open();
    await fill(journal);
    // As a reader begins when the journal was trimmed up to there.
    const opened = openIntake(journal, stream, {
      openReader: (_from, onLost) => openReader(journal.share, toOffset(4), onLost),
    });
    expect(opened.unfinished()).toEqual({ b: [5] });
    expect(opened.restored.unknown).toHaveLength(1);
  });

  test("forgets what is unfinished before damaged records, and knows what is behind them", async ({ open, dir }) => {
    const journal = await open();
    await fill(journal);
    const path = join(dir, toSegmentName(1));
    const bytes = readFileSync(path);
    const second = bytes.indexOf("SLFR", bytes.indexOf("SLFR") + 1);
    bytes.writeUInt8(bytes.readUInt8(second + 60) ^ 1, second + 60);
    writeFileSync(path, bytes);
    expect(readAll(journal.share).lost).toEqual([{ kind: "damaged", from: 3, to: 4 }]);
    const opened = openIntake(journal, stream);
    expect(opened.unfinished()).toEqual({ b: [5] });
    expect(opened.restored.unknown).toEqual(["records behind the checkpoint are damaged"]);
    expect(keyCount(opened)).toBe(5);
  });

  test("knows the records that the disk shows only when it has written them again", async ({ open, dir }) => {
    const journal = await open();
    await fill(journal);
    let durable = 0;
    const listeners: ((to: Offset) => void)[] = [];
    const failing = {
      id: journal.id,
      next: journal.next,
      stats: () => journal.stats(),
      release: () => toOffset(0),
      onDurable(listener: (to: Offset) => void) {
        listeners.push(listener);
        return { [Symbol.dispose]: () => {} };
      },
    };
    const opened = openIntake(journal, stream, {
      path: join(dir, "none"),
      journal: failing,
      openReader(from, onLost) {
        const reader = openReader(journal.share, from, onLost);
        return {
          get position() {
            return reader.position;
          },
          lag: 0,
          atLimit: false,
          read: (limit) => (durable === 0 ? [] : reader.read(limit)),
          seek: () => {},
          wait: () => Promise.resolve(),
          [Symbol.dispose]: () => reader[Symbol.dispose](),
        };
      },
    });
    expect(opened.unfinished()).toEqual({});
    durable = journal.next;
    for (const listener of listeners) listener(journal.next);
    expect(opened.unfinished()).toEqual(all);
  });
});

describe("sessions beyond the limits", () => {
  test("are forgotten, the oldest first, and released for every later start", async ({ open, dir }) => {
    const journal = await open();
    const { take } = openIntake(journal, stream);
    for (const each of [qos2("old", 1), qos2("a", 1), qos2("a", 2), qos2("b", 3)]) take(each);
    await journal.flush();
    const opened = openIntake(journal, stream, { limits: { sessions: 2, maximumInflightQos2: 1 } });
    expect(opened.unfinished()).toEqual({ a: [2], b: [3] });
    expect(opened.restored.unknown).toEqual([
      "2 unfinished messages are more than limits.sessions and limits.maximumInflightQos2 allow",
    ]);
    await journal.flush();
    const entries = readAll(journal.share, 4).entries.map(({ kind, message: { clientId, packetId } }) => [
      kind,
      clientId,
      packetId,
    ]);
    expect(entries).toEqual([
      ["released", "old", 0],
      ["released", "a", 1],
    ]);
    expect(openIntake(journal, stream, { path: join(dir, "none") }).unfinished()).toEqual({ a: [2], b: [3] });
  });
});

describe("a checkpoint", () => {
  test("that is damaged anywhere, torn at any byte, or something else is no checkpoint", async ({ open, dir }) => {
    const journal = await open();
    await fill(journal);
    const whole = await readFile(checkpointPath(journal));
    const path = join(dir, "other");
    const restore = (bytes: Buffer): Opened => {
      writeFileSync(path, bytes);
      return openIntake(journal, stream, { path });
    };
    expect(restore(whole).restored.position).toBe(3);
    const changed = Array.from(whole, (byte, at) => {
      const bytes = Buffer.from(whole);
      bytes[at] = byte ^ 0x10;
      return bytes;
    });
    const torn = Array.from(whole, (_byte, length) => whole.subarray(0, length));
    const others = [Buffer.alloc(1000), Buffer.from("{}"), Buffer.concat([whole, Buffer.from([0])])];
    for (const bytes of [...changed, ...torn, ...others]) {
      const opened = restore(bytes);
      expect(opened.unfinished()).toEqual(all);
      expect(opened.restored).toMatchObject({ position: 0, records: 6 });
      expect(opened.restored.unknown).toHaveLength(1);
    }
  });

  test.for<[string, RegExp, (header: Buffer) => unknown]>([
    ["of another journal", /belongs to another journal/, (header) => header.fill(7, 16, 32)],
    ["of a newer version", /newer Sluice, in version 2/, (header) => header.writeUInt16LE(2, 8)],
    ["of more than the journal has", /is newer than the journal/, (header) => header.writeBigUInt64LE(7n, 40)],
  ])("%s is not used, and the reason told", async ([, reason, change], { open }) => {
    const journal = await open();
    await fill(journal);
    const bytes = await readFile(checkpointPath(journal));
    change(bytes);
    stamp(bytes);
    await writeFile(checkpointPath(journal), bytes);
    const { restored } = openIntake(journal, stream);
    expect(restored).toMatchObject({ position: 0, records: 6, unknown: [expect.stringMatching(reason)] });
  });

  test("that was made while messages were taken gives the same as no crash at all", async ({ open }) => {
    const journal = await open();
    const wide = withDedupe(3_000);
    const live = openIntake(journal, wide, { limits: { sessions: 1e6, maximumInflightQos2: 1e6 } });
    let count = 0;
    /** Two messages and the release of an older one, so that identifiers come and go. */
    const step = (): void => {
      count += 1;
      const [clientId, packetId] = [`c${count % 700}`, (count % 5) + 1];
      live.take(message(clientId, count, { qos: 2, packetId }));
      live.take(message("d", count));
      live.intake.release(`c${(count * 7) % 700}`, ((count * 3) % 5) + 1, receivedAt);
    };
    for (let each = 0; each < 5_000; each += 1) step();
    const begun = count;
    const writing = new AbortController();
    const finished = write(journal, live).finally(() => writing.abort());
    for (; !writing.signal.aborted; await turn()) for (let each = 0; each < 50; each += 1) step();
    await finished;
    expect(count).toBeGreaterThan(begun);
    await journal.flush();
    const again = openIntake(journal, wide, { limits: { sessions: 1e6, maximumInflightQos2: 1e6 } });
    expect(again.restored.unknown).toEqual([]);
    expect(again.restored.records).toBeGreaterThan(0);
    expect(sessionsText(again)).toBe(sessionsText(live));
    expect(sessionsText(live)).not.toBe("");
    expect(keysText(again)).toBe(keysText(live));
  });

  test("holds the keys of the moment at which it was begun", async ({ open }) => {
    const journal = await open();
    const opened = openIntake(journal, stream);
    opened.take(message("d", 1));
    const writing = write(journal, opened);
    opened.take(message("d", 2));
    await writing;
    const memory = createMemory(opened.registry.windows);
    expect(readCheckpoint(checkpointPath(journal), journal.id, journal.next, memory)).toEqual({
      kind: "found",
      position: 1,
    });
    expect(keyCount({ restored: { memory } })).toBe(1);
  });

  test("that cannot be finished leaves the one before as it was, and nothing else", async ({ open, dir }) => {
    const journal = await open();
    const opened = await fill(journal);
    const before = await readFile(checkpointPath(journal));
    const refused = writeCheckpoint(
      checkpointPath(journal),
      { journalId: journal.id, position: journal.next },
      opened.restored.memory,
      () => Promise.reject(new Error("the journal cannot write")),
    );
    await expect(refused).rejects.toThrow("the journal cannot write");
    expect(await readFile(checkpointPath(journal))).toEqual(before);
    expect((await readdir(dir)).filter((name) => name.includes("checkpoint"))).toEqual(["checkpoint"]);
  });
});
