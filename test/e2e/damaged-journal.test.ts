// P5: what the disk has lost is said, exactly, by `sluice journal verify`, by the log and by the metrics; the rest is served.

import { readdir, truncate } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { climate, test } from "../fixtures.ts";
import { run } from "./tools.ts";

const launcher = join(import.meta.dirname, "../../bin/sluice.js");

test("acknowledged messages that the disk has lost are told by offset, file and byte", async ({ start, connect }) => {
  const gateway = await start();
  const { dataDir } = gateway;
  const journal = (command: string): ReturnType<typeof run> =>
    run("sh", ["-c", `"${process.execPath}" "${launcher}" journal ${command} --data-dir "${dataDir}"`]);
  const device = await connect(gateway, { clientId: "d1" });
  for (let seq = 1; seq <= 5; seq += 1) await device.publishAsync("devices/d1/telemetry", climate(seq), { qos: 1 });
  // On a live journal.
  expect((await journal("verify").finished).code).toBe(0);
  expect((await journal("stat").finished).stdout).toContain("lock held");
  const lines = await run("sh", [
    "-c",
    `"${process.execPath}" "${launcher}" journal dump --data-dir "${dataDir}" | head -n 1`,
  ]).finished;
  expect(JSON.parse(lines.stdout)).toMatchObject({
    offset: 0,
    stream: "climate",
    device: "d1",
    topic: "devices/d1/telemetry",
  });
  expect(lines.stderr).toBe("");

  await gateway.end("SIGKILL");
  const [segment = ""] = await readdir(join(dataDir, "journal")).then((names) =>
    names.filter((name) => name.endsWith(".seg")),
  );
  await truncate(join(dataDir, "journal", segment), 200);
  const verified = await journal("verify").finished;
  expect([verified.code, verified.stdout]).toEqual([1, expect.stringMatching(/^lost: records 0 to 4 \(5\): /)]);

  const again = await start();
  const told = await again.waitForLog(({ msg }) => msg?.startsWith("the journal has lost records 0 to 4 (5)") === true);
  expect(told).toMatchObject({ level: 50, from: 0, to: 5, records: 5 });
  expect((await again.fetch("/metrics")).text).toContain("gateway_journal_lost_records 5");
  expect(JSON.parse((await again.fetch("/")).text)).toMatchObject({ journal: { lostRecords: 5 } });
  const other = await connect(again, { clientId: "d1" });
  await other.publishAsync("devices/d1/telemetry", climate(6), { qos: 1 });
  expect((await journal("dump --from 5").finished).stdout).toMatch(/^\{"offset":5,/);
});
