import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, onTestFinished, test } from "vitest";
import { createParking } from "../../src/dispatch/parked.ts";
import type { Parked } from "../../src/dispatch/parked.ts";
import { toOffset } from "../../src/reading.ts";
import { message } from "./open-dispatch.ts";

const makeParked = (offset: number, error: string): Parked => ({
  entry: { offset: toOffset(offset), kind: "accepted", stream: "climate", message: message("payload", 5) },
  error,
  attempts: 3,
});

async function openFile(): Promise<{ file: string; rows: () => readonly unknown[] }> {
  const dir = await mkdtemp(join(tmpdir(), "sluice-parked-"));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  const file = join(dir, "parked.db");
  return {
    file,
    rows() {
      using db = new DatabaseSync(file, { readOnly: true });
      return db.prepare("SELECT * FROM parked ORDER BY sink, offset").all();
    },
  };
}

test("a parked record is kept with its message and its cause, once, however often it is parked", async () => {
  const { file, rows } = await openFile();
  using parking = createParking({ file, sink: "s", gateway: "g" });
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
    },
    expect.objectContaining({ offset: 2, error: "two" }),
  ]);
});

test("several workers park into the same file, from the first record on", async () => {
  const { file, rows } = await openFile();
  using a = createParking({ file, sink: "a", gateway: "g" });
  using b = createParking({ file, sink: "b", gateway: "g" });
  a.park([makeParked(1, "x")]);
  b.park([makeParked(1, "y")]);
  a.park([makeParked(2, "z")]);
  expect(rows()).toMatchObject([
    { sink: "a", offset: 1 },
    { sink: "a", offset: 2 },
    { sink: "b", offset: 1 },
  ]);
});

test("parking throws when the file cannot be used, and parks once it can", async () => {
  const { file, rows } = await openFile();
  using parking = createParking({ file, sink: "s", gateway: "g" });
  {
    using other = new DatabaseSync(file);
    other.exec("PRAGMA user_version = 2");
  }
  expect(() => parking.park([makeParked(1, "x")])).toThrow(/parked\.db: .*newer/);
  await rm(file);
  parking.park([makeParked(1, "x")]);
  expect(rows()).toHaveLength(1);
});

test("a file that was deleted while the worker ran is made again", async () => {
  const { file, rows } = await openFile();
  using parking = createParking({ file, sink: "s", gateway: "g" });
  parking.park([makeParked(1, "x")]);
  await Promise.all(["", "-wal", "-shm"].map((suffix) => rm(file + suffix, { force: true })));
  parking.park([makeParked(2, "y")]);
  expect(rows()).toMatchObject([{ offset: 2 }]);
});
