// What a sink has when it has no readings as they were sent: told by its name, and no broken promise.

import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { IncomparableError } from "../../../devices-sim/verify/row.ts";
import { parseTarget, type Target } from "../../../devices-sim/verify/target.ts";
import { checkTargets, verify } from "../../../devices-sim/verify/verify.ts";
import { files } from "../../../src/sinks/files/files.ts";
import type { SinkContext } from "../../../src/sinks/sink.ts";
import { sqlite } from "../../../src/sinks/sqlite.ts";
import { makeBatch, never, openContext } from "../../contract/entries.ts";
import { test } from "../../fixtures.ts";
import { acknowledged, ledgerOf } from "../ledger/fixtures.ts";

function targetOf(text: string): Target {
  const target = parseTarget(text);
  if (target === undefined) throw new TypeError(text);
  return target;
}

type Layout = "document" | "wide" | "narrow";

/** The real sink writes a reading into a file, whose path this resolves to. */
async function writeSqlite(layout: Layout, given?: SinkContext): Promise<string> {
  const context = given ?? (await openContext());
  await using sink = await sqlite().sink.open({ path: undefined, layout, index: "device" }, context);
  await sink.write(makeBatch([0]), never);
  return join(context.dataDir, "telemetry.db");
}

/** The same into a folder. */
async function writeFiles(format: "ndjson" | "parquet"): Promise<string> {
  const context = await openContext();
  const { sink: type } = files();
  await using sink = await type.open(type.settings.parse({ format, rotate: { bytes: 1 } }), context);
  await sink.write(makeBatch([0]), never);
  return join(context.dataDir, "files");
}

describe("a table of another layout", () => {
  test.for([
    ["wide", "readings_climate"],
    ["narrow", "metrics"],
  ] as const)("%s is told by its name, %s", async ([layout, table], { dir }) => {
    const target = targetOf(`sqlite:${await writeSqlite(layout)}`);
    const told = `${target.name}: the table ${table} has the layout ${layout}, in which no reading is whole: only the layout document can be compared`;
    await expect(checkTargets([target])).rejects.toThrow(new IncomparableError(told));
    await ledgerOf(join(dir, "ledger"), acknowledged(1).lines);
    const waiting = verify({ dir: join(dir, "ledger"), targets: [target], waitMs: 600_000 });
    await expect(waiting).rejects.toThrow(new IncomparableError(told));
  });

  test("does not matter beside the table `readings`", async ({ dir }) => {
    const context = await openContext();
    await writeSqlite("wide", context);
    const target = targetOf(`sqlite:${await writeSqlite("document", { ...context, name: "other" })}`);
    await checkTargets([target]);
    await ledgerOf(join(dir, "ledger"), acknowledged(1).lines);
    const { sinks } = await verify({ dir: join(dir, "ledger"), targets: [target], waitMs: 0 });
    expect(sinks).toMatchObject([{ lost: 1, foreign: 1 }]);
    expect(sinks[0]).not.toHaveProperty("error");
  });
});

describe("Parquet", () => {
  test("is told by the name of its first file, in a folder and alone", async () => {
    const folder = await writeFiles("parquet");
    const told =
      /^ndjson:.*: \/.*\/stream=climate\/.*\.parquet is Parquet, which is not read here: only NDJSON can be compared$/;
    await expect(checkTargets([targetOf(`ndjson:${folder}`)])).rejects.toThrow(told);
    const cause = await checkTargets([targetOf(`ndjson:${folder}`)]).catch(String);
    const file = /: (\/.*\.parquet) is/.exec(String(cause))?.[1] ?? "";
    await expect(checkTargets([targetOf(`ndjson:${file}`)])).rejects.toThrow(told);
  });

  test("does not matter beside NDJSON", async ({ dir }) => {
    await mkdir(join(dir, "both"));
    await rename(await writeFiles("parquet"), join(dir, "both", "parquet"));
    await rename(await writeFiles("ndjson"), join(dir, "both", "ndjson"));
    const target = targetOf(`ndjson:${join(dir, "both")}`);
    await checkTargets([target]);
    await ledgerOf(join(dir, "ledger"), acknowledged(1).lines);
    const { sinks } = await verify({ dir: join(dir, "ledger"), targets: [target], waitMs: 0 });
    expect(sinks).toMatchObject([{ lost: 1, foreign: 1 }]);
  });
});

test("what is not there yet may be another matter after the run", async ({ dir }) => {
  await checkTargets(
    [`sqlite:${dir}/none.db`, `ndjson:${dir}`, `ndjson:${dir}/none`, `rejects:${dir}/none.db`].map(targetOf),
  );
});
