// The process, as it compares its ledger with sinks.

import { appendFileSync, existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { openBroker, spawnSim } from "./fixtures.ts";

test("--ledger and --verify: the summary has what became of the run, and the command `verify` says the same later", async () => {
  await using broker = await openBroker();
  const dir = await mkdtemp(join(tmpdir(), "sluice-sim-"));
  try {
    const lines = join(dir, "out.log");
    await writeFile(lines, "");
    broker.aedes.on("publish", ({ payload }, client) => {
      // A sink, but for its first message.
      if (client && broker.arrivals.length > 1) {
        const place = {
          gateway: "g",
          offset: broker.arrivals.length,
          stream: "s",
          device: client.id,
          receivedAt: Date.now(),
        };
        appendFileSync(lines, `${JSON.stringify({ ...place, data: JSON.parse(payload.toString()) as unknown })}\n`);
      }
    });
    const fleet = ["--devices", "2", "--ramp", "10ms", "--rate", "50", "--count", "3", "--invalid", "0"];
    const proof = ["--ledger", join(dir, "ledger"), "--verify", `ndjson:${lines}`, "--verify-wait", "0s"];
    const url = ["--url", `mqtt://127.0.0.1:${broker.port}`];
    const first = await spawnSim(...url, ...fleet, ...proof, "--json").result;
    const sink = { sink: `ndjson:${lines}`, acknowledged: 6, found: 5, lost: 1 };
    expect(JSON.parse(first.stdout)).toMatchObject({ acknowledged: 6, verification: { kept: false, sinks: [sink] } });
    expect(first.code).toBe(1);
    const page = join(dir, "verified.html");
    const args = ["--ledger", join(dir, "ledger"), `ndjson:${lines}`, "--html", page];
    const later = await spawnSim("verify", ...args).result;
    expect(later.stdout).toContain("A PROMISE WAS BROKEN.");
    const html = await readFile(page, "utf8");
    expect(html).toContain("<h1>2 simulated devices</h1>");
    expect(html).toContain("A promise was broken.");
    expect(html).toContain("Time to PUBACK");
    expect(later.code).toBe(1);
    const again = await spawnSim(...url, ...fleet, ...proof).result;
    expect(again).toMatchObject({ code: 1, stdout: "" });
    expect(again.stderr).toBe(`error: ${join(dir, "ledger")} has the ledger of another run: give another folder\n`);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("a sink that cannot be compared is exit code 2: before a run, after it with its summary, and with the command `verify`", async () => {
  await using broker = await openBroker();
  const dir = await mkdtemp(join(tmpdir(), "sluice-sim-"));
  try {
    const path = join(dir, "t.db");
    // The gateway makes its table with the first message.
    broker.aedes.once("publish", () => {
      using db = new DatabaseSync(path);
      db.exec("CREATE TABLE readings_climate (gateway TEXT, rest TEXT)");
    });
    const fleet = ["--devices", "2", "--ramp", "10ms", "--rate", "50", "--count", "3", "--invalid", "0"];
    const url = ["--url", `mqtt://127.0.0.1:${broker.port}`];
    const proof = (ledger: string) => ["--ledger", join(dir, ledger), "--verify", `sqlite:${path}`];
    const told = `error: sqlite:${path}: the table readings_climate has the layout wide, in which no reading is whole: only the layout document can be compared\n`;
    const first = await spawnSim(...url, ...fleet, ...proof("one"), "--json").result;
    expect(JSON.parse(first.stdout)).toMatchObject({ acknowledged: 6 });
    expect(first.stderr).toContain(told);
    expect(first.code).toBe(2);
    const { length } = broker.arrivals;
    expect(await spawnSim(...url, ...fleet, ...proof("two")).result).toEqual({ code: 2, stderr: told, stdout: "" });
    expect(broker.arrivals).toHaveLength(length);
    expect(existsSync(join(dir, "two"))).toBe(false);
    const later = await spawnSim("verify", "--ledger", join(dir, "one"), `sqlite:${path}`, "--quiet").result;
    expect(later).toEqual({ code: 2, stderr: told, stdout: "" });
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("`verify` without a ledger is exit code 2, and with a folder that has none a clear error", async () => {
  expect(await spawnSim("verify", "sqlite:x.db").result).toMatchObject({
    code: 2,
    stderr: "error: required option '--ledger <folder>' not specified\n",
  });
  const none = await spawnSim("verify", "--ledger", "/nowhere", "sqlite:x.db").result;
  expect(none.stderr).toMatch(/^error: \/nowhere has no ledger of a run: .*ENOENT.*\n$/);
  expect(none.code).toBe(1);
});
