import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { offsetsIn, openBench, patiently, range, reaches, statusOf } from "./open-dispatch.ts";

test("a sink with its own position has each record exactly once, in order, although its worker is killed ten times", async () => {
  const bench = await openBench();
  // No key and no trigger hides a record that is written twice.
  await bench.configure(`import { DatabaseSync } from "node:sqlite";
      const strict = defineSink({ type: "strict", settings: z.object({}), async open() {
        const db = new DatabaseSync(join(dir, "strict.db"));
        db.exec("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, offset); CREATE TABLE IF NOT EXISTS c (offset)");
        return {
          async position() { return db.prepare("SELECT max(offset) AS at FROM c").get().at ?? undefined; },
          async write({ entries, next }) {
            db.exec("BEGIN IMMEDIATE");
            const insert = db.prepare("INSERT INTO t (offset) VALUES (?)");
            for (const { offset } of entries) { insert.run(offset); await null; }
            db.prepare("INSERT INTO c VALUES (?)").run(next);
            db.exec("COMMIT");
            return { kind: "all" };
          },
          async [Symbol.asyncDispose]() { db.close(); },
        };
      } });
      export default defineGateway({ streams: [climate], sinks: [sqlite({ path: join(dir, "a.db") }), strict()] });`);
  const dispatcher = await bench.open({ sinks: [{ name: "sqlite" }, { name: "strict" }], handlers: [] });
  for (const round of range(0, 10)) {
    const delivered = statusOf(dispatcher, "sqlite").position;
    for (let n = 0; n < 10; n += 1) await bench.append(50);
    // Some of the time while it loads, some while it writes, at an instant that differs.
    const wanted = round % 3 === 0 ? delivered : delivered + 1;
    await expect.poll(() => statusOf(dispatcher, "sqlite").position, patiently).toBeGreaterThanOrEqual(wanted);
    void bench.append(1 + Math.floor(Math.random() * 20));
    await Promise.all([dispatcher.restart("sqlite"), dispatcher.restart("strict")]);
  }
  await bench.append(1);
  const end = bench.journal.next;
  await reaches(dispatcher, "sqlite", end);
  await reaches(dispatcher, "strict", end);
  expect(end).toBeGreaterThan(5_000);
  expect(offsetsIn(join(bench.dir, "a.db"))).toEqual(range(0, end));
  using db = new DatabaseSync(join(bench.dir, "strict.db"), { readOnly: true });
  const rows = db.prepare("SELECT offset FROM t ORDER BY n").all();
  expect(rows.map((row) => Number(row["offset"]))).toEqual(range(0, end));
}, 60_000);
