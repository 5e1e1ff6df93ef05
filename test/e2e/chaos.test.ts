// P1 to P7 at once: `npm run chaos` in its shortest form.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execPath } from "node:process";
import { expect } from "vitest";
import { test } from "../fixtures.ts";
import { needs, run } from "./tools.ts";

const chaos = join(import.meta.dirname, "../chaos/main.ts");
const MINUTES = "0.7";

test("a gateway and every sink's server are killed, a disk is full, a subscriber and servers freeze, all devices come back at once: every sink has everything", async ({
  dir,
  skip,
  onTestFinished,
}) => {
  needs(skip, "mount", "mkfs.ext4");
  const page = join(dir, "chaos.html");
  const { child, finished } = run(execPath, [chaos, "--minutes", MINUTES, "--html", page]);
  onTestFinished(() => void child.kill("SIGTERM"));
  const { code, stdout, stderr } = await finished;
  console.log(stdout);
  expect({ code, stderr }, stdout).toEqual({ code: 0, stderr: "" });
  for (const happened of [
    "the gateway is killed",
    "is killed, and started again",
    "the server of kafka is frozen",
    "the gateway says that it holds",
    "a subscriber to # stops reading",
    "all devices lose their connection",
  ])
    expect(stdout).toContain(happened);
  expect(stdout).toMatch(/^sink +acknowledged +found +lost +duplicated +reordered +corrupted +spoilt stored$/m);
  for (const sink of ["redis", "http", "influx", "parquet"])
    expect(stdout).toMatch(new RegExp(`^${sink} +\\d+ +\\d+ +0 +0 +`, "m"));
  expect(stdout).toMatch(/the gateway kept [1-9]\d* messages from the frozen subscriber$/m);
  expect(stdout).toMatch(/^chaos: all zeros, seed \d+$/m);
  expect(await readFile(page, "utf8")).toContain("the gateway says that it holds");
});
