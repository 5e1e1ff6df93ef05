import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { nodeDisk } from "../../src/journal/disk.ts";
import { toSegmentName } from "../../src/journal/segment.ts";
import { test } from "../journal/fixtures.ts";
import { openStore } from "../journal/store-harness.ts";
import { runSluice } from "./run-sluice.ts";

const sluice = (...args: readonly string[]): ReturnType<typeof runSluice> => runSluice(["journal", ...args]);

/** Six segments with 300 records: 0 to 74, then 50 in each, and in the last 25. */
function write(dir: string): void {
  mkdirSync(dir, { recursive: true });
  const { commit, store } = openStore(dir, nodeDisk, 4096);
  for (let part = 0; part < 12; part += 1) commit(25);
  store.close();
}

describe("sluice journal", () => {
  test("ends with 0 when all is well, 1 when something is gone, 2 when there is no journal", async ({ dir }) => {
    const journal = join(dir, "journal");
    expect(await sluice("verify", "--data-dir", dir)).toMatchObject({
      code: 2,
      complaints: [expect.stringContaining(journal)],
    });
    write(journal);
    expect(await sluice("verify", "--data-dir", dir)).toMatchObject({
      code: 0,
      out: expect.stringContaining("300 records"),
    });
    expect(JSON.parse((await sluice("stat", "--json", "--data-dir", dir)).out)).toMatchObject({ records: 300 });
    expect((await sluice("stat", "--data-dir", dir)).out).toContain("lock free");
    rmSync(join(journal, toSegmentName(2)));
    const { code, out } = await sluice("verify", "--data-dir", dir);
    expect([code, out]).toEqual([
      1,
      expect.stringContaining("lost: records 75 to 124 (50): there is no 0000000002.seg"),
    ]);
  });

  test("prints lines, and refuses arguments that it does not understand", async ({ dir }) => {
    write(join(dir, "journal"));
    expect((await sluice("dump", "--data-dir", dir, "--from", "298")).out.match(/\n/g)).toHaveLength(2);
    expect((await sluice("dump", "--data-dir", dir, "--from", "-1h")).out).toBe("");
    expect((await sluice("dump", "--data-dir", dir, "--to", "2023-11-14T22:13:20.002Z")).out.match(/\n/g)).toHaveLength(
      2,
    );
    for (const args of [
      ["--from", "soon"],
      ["--limit", "-3"],
      ["--to", "2023-99-99"],
    ]) {
      expect(await sluice("dump", "--data-dir", dir, ...args)).toMatchObject({
        code: 2,
        complaints: [expect.stringMatching(/It must be/)],
      });
    }
  });
});
