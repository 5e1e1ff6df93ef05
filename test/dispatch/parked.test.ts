import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, onTestFinished, test } from "vitest";
import { openInbox } from "../../src/dispatch/inbox.ts";
import type { Inbox } from "../../src/dispatch/inbox.ts";
import { createParking, parkedInbox } from "../../src/dispatch/parked.ts";
import type { Parked } from "../../src/dispatch/parked.ts";
import { toOffset } from "../../src/reading.ts";
import type { MessageProperties } from "../../src/reading.ts";
import { message } from "./open-dispatch.ts";

const properties: MessageProperties = {
  contentType: "application/cbor",
  payloadFormat: 0,
  expiryS: 60,
  responseTopic: "a/b",
  correlationData: Buffer.from([0, 255]),
  user: [
    ["a", "1"],
    ["a", "2"],
  ],
};

const makeParked = (offset: number, error: string, more: Partial<ReturnType<typeof message>> = {}): Parked => ({
  entry: {
    offset: toOffset(offset),
    kind: "accepted",
    stream: "climate",
    message: { ...message("payload", 5), ...more },
  },
  error,
  attempts: 3,
});

interface OpenedFile {
  readonly file: string;
  readonly rows: () => readonly Readonly<Record<string, unknown>>[];
  /** As the command line opens it. */
  readonly inbox: () => Inbox;
}

async function openFile(): Promise<OpenedFile> {
  const dir = await mkdtemp(join(tmpdir(), "sluice-parked-"));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  const file = join(dir, "parked.db");
  return {
    file,
    rows() {
      using db = new DatabaseSync(file, { readOnly: true });
      return db.prepare("SELECT * FROM parked ORDER BY sink, offset").all();
    },
    inbox() {
      const inbox = openInbox(file, parkedInbox);
      if (inbox === undefined) throw new Error(`${file} is missing`);
      onTestFinished(() => inbox[Symbol.dispose]());
      return inbox;
    },
  };
}

const roomy = { gateway: "g", maximumBytes: 2 ** 30 };

describe("parking", () => {
  test("keeps a record with its message and its cause, once, however often it is parked", async () => {
    const { file, rows } = await openFile();
    using parking = createParking({ file, sink: "s", ...roomy });
    parking.park([makeParked(1, "first"), makeParked(2, "two")]);
    parking.park([makeParked(1, "again")]);
    expect(rows()).toEqual([
      {
        sink: "s",
        gateway: "g",
        offset: 1,
        time: expect.any(Number) as number,
        error: "again",
        stream: "climate",
        device: "d1",
        client: "d1",
        topic: "devices/d1/telemetry",
        received_at: 5,
        payload: new Uint8Array(Buffer.from("payload")),
        attempts: 3,
        qos: 1,
        properties: null,
        retry_at: null,
        tries: 0,
      },
      expect.objectContaining({ offset: 2, error: "two" }),
    ]);
  });

  test("keeps everything of a message that its codec may want to know", async () => {
    const { file, inbox } = await openFile();
    using parking = createParking({ file, sink: "s", ...roomy });
    const parked = makeParked(1, "x", { properties, qos: 2 });
    parking.park([parked]);
    expect([...inbox().items({})].map((item) => item.message)).toEqual([{ ...parked.entry.message, packetId: 0 }]);
  });

  test("is done by several workers into the same file, from the first record on", async () => {
    const { file, rows } = await openFile();
    using a = createParking({ file, sink: "a", ...roomy });
    using b = createParking({ file, sink: "b", ...roomy });
    a.park([makeParked(1, "x")]);
    b.park([makeParked(1, "y")]);
    a.park([makeParked(2, "z")]);
    expect(rows()).toMatchObject([
      { sink: "a", offset: 1 },
      { sink: "a", offset: 2 },
      { sink: "b", offset: 1 },
    ]);
  });

  test("ends when the file is as large as it may be, until an operator has made room", async () => {
    const { file, inbox, rows } = await openFile();
    using parking = createParking({ file, sink: "s", ...roomy, maximumBytes: 1024 * 1024 });
    const large = Buffer.alloc(10_000);
    const makeLarge = (offset: number): Parked => makeParked(offset, "x", { payload: large });
    parking.park(Array.from({ length: 110 }, (_, offset) => makeLarge(offset)));
    const more = (): void => parking.park([makeLarge(110)]);
    expect(more).toThrow(/parked\.db holds 1 MiB .*`parked\.bytes` allows no more.*s waits until then/);
    expect(more).toThrow(expect.objectContaining({ kind: "misconfigured" }));
    expect(rows()).toHaveLength(110);
    inbox().drop({ offset: 1 });
    expect(more).toThrow("allows no more");
    for (let offset = 2; offset < 20; offset += 1) inbox().drop({ offset });
    more();
    expect(rows()).toHaveLength(92);
  });

  test("throws when the file cannot be used, and parks once it can", async () => {
    const { file, rows } = await openFile();
    using parking = createParking({ file, sink: "s", ...roomy });
    {
      using other = new DatabaseSync(file);
      other.exec("PRAGMA user_version = 3");
    }
    expect(() => parking.park([makeParked(1, "x")])).toThrow(/parked\.db: .*newer/);
    await rm(file);
    parking.park([makeParked(1, "x")]);
    expect(rows()).toHaveLength(1);
  });

  test("makes a file again that was deleted while the worker ran", async () => {
    const { file, rows } = await openFile();
    using parking = createParking({ file, sink: "s", ...roomy });
    parking.park([makeParked(1, "x")]);
    await Promise.all(["", "-wal", "-shm"].map((suffix) => rm(file + suffix, { force: true })));
    parking.park([makeParked(2, "y")]);
    expect(rows()).toMatchObject([{ offset: 2 }]);
  });
});

describe("a file of version 1", () => {
  const version1 = `CREATE TABLE parked (
    sink TEXT NOT NULL, gateway TEXT NOT NULL, "offset" INTEGER NOT NULL, time INTEGER NOT NULL, error TEXT NOT NULL,
    stream TEXT NOT NULL, device TEXT NOT NULL, client TEXT NOT NULL, topic TEXT NOT NULL, received_at INTEGER NOT NULL,
    payload BLOB NOT NULL, attempts INTEGER NOT NULL, PRIMARY KEY (sink, gateway, "offset"));
    INSERT INTO parked VALUES ('s', 'g', 7, 1, 'old', 'climate', 'd1', 'd1', 't', 5, x'7b7d', 2);
    PRAGMA user_version = 1;`;
  const insert1 = "INSERT OR REPLACE INTO parked VALUES ('s', 'g', 8, 1, 'old', 'climate', 'd1', 'd1', 't', 5, x'', 2)";

  async function openVersion1(): Promise<OpenedFile & { readonly old: DatabaseSync }> {
    const opened = await openFile();
    const old = new DatabaseSync(opened.file);
    onTestFinished(() => old.close());
    old.exec(`PRAGMA journal_mode = WAL; ${version1}`);
    return { ...opened, old };
  }

  test("is brought to the present one by the first worker that parks, while others have it open", async () => {
    const { file, old, rows } = await openVersion1();
    using a = createParking({ file, sink: "a", ...roomy });
    using b = createParking({ file, sink: "b", ...roomy });
    a.park([makeParked(1, "x")]);
    b.park([makeParked(1, "y")]);
    expect(rows()).toMatchObject([
      { sink: "a" },
      { sink: "b" },
      { sink: "s", offset: 7, error: "old", attempts: 2, qos: 0, properties: null, retry_at: null },
    ]);
    expect(old.prepare("SELECT count(*) AS n FROM parked").get()).toEqual({ n: 3 });
  });

  test("is looked at and dropped from as it is, so that a gateway of that version goes on", async () => {
    const { old, inbox } = await openVersion1();
    const opened = inbox();
    expect([...opened.items({ sink: "s" })]).toMatchObject([{ offset: 7, error: "old", attempts: 2 }]);
    old.exec(insert1);
    expect([opened.drop({ offset: 7 }), opened.count({})]).toEqual([1, 1]);
  });

  test("takes marks once it is brought to the present one", async () => {
    const { file, inbox } = await openVersion1();
    const opened = inbox();
    expect([opened.mark({ sink: "s" }), opened.countMarked({})]).toEqual([1, 1]);
    using parking = createParking({ file, sink: "s", ...roomy });
    expect(parking.takeMarked()).toMatchObject([{ offset: 7, message: { qos: 0, deviceId: "d1" } }]);
  });
});

async function openFilled(): Promise<OpenedFile> {
  const opened = await openFile();
  for (const sink of ["a", "b"]) {
    using parking = createParking({ file: opened.file, sink, ...roomy });
    parking.park(Array.from({ length: 1_100 }, (_, offset) => makeParked(offset, "x")));
  }
  return opened;
}

describe("the command line's view of it", () => {
  test("is read in pages, each record once and in order", async () => {
    const { inbox } = await openFilled();
    const found = [...inbox().items({})].map(({ sink, offset }) => `${sink}${offset}`);
    expect(found).toEqual(
      ["a", "b"].flatMap((sink) => Array.from({ length: 1_100 }, (_, offset) => `${sink}${offset}`)),
    );
    expect([...inbox().items({ sink: "b", offset: 7 })]).toHaveLength(1);
    expect(inbox().sinks).toEqual(["a", "b"]);
  });

  test("keeps no gateway from cutting the file's log while a reader takes its time", async () => {
    const { file, inbox } = await openFilled();
    const items = inbox().items({})[Symbol.iterator]();
    items.next();
    using parking = createParking({ file, sink: "a", ...roomy });
    parking.park([makeParked(5_000, "x")]);
    using other = new DatabaseSync(file);
    expect(other.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get()).toMatchObject({ busy: 0 });
  });

  test("drops more than it deletes in one transaction", async () => {
    const { file, inbox } = await openFile();
    using parking = createParking({ file, sink: "a", ...roomy });
    parking.park(Array.from({ length: 10_001 }, (_, offset) => makeParked(offset, "x")));
    expect([inbox().drop({ sink: "b" }), inbox().drop({}), inbox().count({})]).toEqual([0, 10_001, 0]);
  });
});

describe("marked records", () => {
  test("are found by their own worker, in order, one gateway id after the other", async () => {
    const { file, inbox } = await openFile();
    using earlier = createParking({ file, sink: "s", ...roomy, gateway: "f" });
    using parking = createParking({ file, sink: "s", ...roomy });
    using other = createParking({ file, sink: "other", ...roomy });
    earlier.park([makeParked(5, "x")]);
    parking.park([3, 1, 2].map((offset) => makeParked(offset, "x")));
    other.park([makeParked(4, "x")]);
    expect(parking.takeMarked()).toEqual([]);
    expect(inbox().mark({ sink: "s" })).toBe(4);
    expect(other.takeMarked()).toEqual([]);
    const first = parking.takeMarked();
    expect(first.map(({ gateway, offset }) => [gateway, offset])).toEqual([["f", 5]]);
    parking.settle("f", [toOffset(5)], []);
    expect(parking.takeMarked().map(({ gateway, offset }) => [gateway, offset])).toEqual([
      ["g", 1],
      ["g", 2],
      ["g", 3],
    ]);
    parking.settle("g", [toOffset(1), toOffset(3)], [{ offset: toOffset(2), error: "still", attempts: 4 }]);
    expect(parking.takeMarked()).toEqual([]);
    expect([...inbox().items({ sink: "s" })]).toMatchObject([{ offset: 2, error: "still", attempts: 4 }]);
  });

  test("come alone after the worker has ended in the middle, and no more than three times", async () => {
    const { file, inbox } = await openFile();
    const next = (): readonly number[] => {
      using parking = createParking({ file, sink: "s", ...roomy });
      return parking.takeMarked().map(({ offset }) => offset);
    };
    {
      using parking = createParking({ file, sink: "s", ...roomy });
      parking.park([1, 2].map((offset) => makeParked(offset, "bad")));
    }
    inbox().mark({});
    expect([next(), next(), next(), next()]).toEqual([[1, 2], [1], [1], [2]]);
    expect([...inbox().items({ offset: 1 })]).toMatchObject([
      { error: expect.stringMatching(/^its worker ended each of the 3 times .*: bad$/), retryAt: undefined },
    ]);
  });
});
