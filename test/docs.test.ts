// The generated reference pages say what the code says.

import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { generatePages } from "../docs/generate.ts";

const folder = join(import.meta.dirname, "../docs");
const pages = await generatePages();

describe("docs/", () => {
  test.each([...pages])("%s is what the code says", async (name, text) => {
    const path = join(folder, name);
    const onDisk = existsSync(path) ? await readFile(path, "utf8") : "";
    expect(onDisk, `docs/${name} is stale: run \`npm run docs\``).toBe(text);
  });

  test("has no generated page that is not generated any more", async () => {
    const names = (await readdir(folder)).filter((name) => name.endsWith(".md"));
    const generated: string[] = [];
    for (const name of names) {
      if ((await readFile(join(folder, name), "utf8")).startsWith("<!-- Generated")) generated.push(name);
    }
    expect(generated.toSorted(), "delete the page, or generate it").toEqual([...pages.keys()].toSorted());
  });
});
