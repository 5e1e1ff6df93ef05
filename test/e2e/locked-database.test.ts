// P3: a sink that cannot write blocks nobody and loses nothing. Another process holds the SQLite database for 30 s.

import { createHistogram } from "node:perf_hooks";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { expect } from "vitest";
import { climate, test } from "../fixtures.ts";
import { needs, run } from "./tools.ts";

const LOCKED_MS = 30_000;
const BEFORE_MS = 15_000;
const DEVICES = 50;

test("the database is locked for 30 s: PUBACKs come as before, nothing is lost, the rows follow", async ({
  start,
  connect,
  skip,
}) => {
  needs(skip, "python3");
  const gateway = await start();
  const path = join(gateway.dataDir, "telemetry.db");
  await gateway.waitForLog((line) => line["consumer"] === "sqlite" && line["state"] === "running");
  const devices = await Promise.all(
    Array.from({ length: DEVICES }, (_, index) => connect(gateway, { clientId: `d${index}` })),
  );
  const acknowledged = devices.map(() => 0);
  let latency = createHistogram();
  const stop = new AbortController();
  const running = devices.map(async (device, index) => {
    while (!stop.signal.aborted) {
      const seq = (acknowledged[index] ?? 0) + 1;
      const since = performance.now();
      await device.publishAsync(`devices/d${index}/telemetry`, climate(seq), { qos: 1 });
      latency.record(Math.max(1, Math.round((performance.now() - since) * 1000)));
      acknowledged[index] = seq;
      await delay(50);
    }
  });
  await delay(BEFORE_MS);
  const before = latency;
  latency = createHistogram();

  const lock = run("python3", ["-c", locker, path, String(LOCKED_MS / 1000)]);
  await lock.line((line) => line === "locked");
  const rowsAtLock = countRows(path);
  const sentAtLock = acknowledged.reduce((sum, count) => sum + count, 0);
  expect(await lock.finished).toMatchObject({ code: 0 });
  const during = latency;
  const sentAtUnlock = acknowledged.reduce((sum, count) => sum + count, 0);
  stop.abort();
  await Promise.all(running);

  const total = acknowledged.reduce((sum, count) => sum + count, 0);
  expect(sentAtUnlock - sentAtLock).toBeGreaterThan(DEVICES * 100);
  while (countRows(path) < total) await delay(100);
  using database = new DatabaseSync(path, { readOnly: true });
  const select = database.prepare("SELECT data ->> 'seq' AS seq FROM readings WHERE device = ? ORDER BY offset");
  for (const [index, count] of acknowledged.entries()) {
    const stored = select.all(`d${index}`).map((row) => Number(row["seq"]));
    expect(stored).toEqual(Array.from({ length: count }, (_, at) => at + 1));
  }
  const retried = gateway.log.filter((line) => line["consumer"] === "sqlite" && line["state"] === "retrying");
  expect(retried.length).toBeGreaterThan(0);
  // Printed, not asserted: a timing depends on the machine.
  console.log(
    `PUBACK p99 before ${ms(before.percentile(99))} ms, while locked ${ms(during.percentile(99))} ms; ` +
      `${sentAtUnlock - sentAtLock} acknowledged while locked, ${rowsAtLock} rows at its begin, ${total} in the end`,
  );
});

const ms = (us: number): string => (us / 1000).toFixed(1);

const locker = `
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
database.execute("ROLLBACK")
`;

function countRows(path: string): number {
  using database = new DatabaseSync(path, { readOnly: true });
  return Number(database.prepare("SELECT count(*) AS rows FROM readings").get()?.["rows"]);
}
