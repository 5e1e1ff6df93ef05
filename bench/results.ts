// Where the figures go: bench/results/<name>.json, and the benchmark's section in docs/benchmarks.md.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const root = (relative: string): string => fileURLToPath(new URL(`../${relative}`, import.meta.url));

/** Returns the file, relative to the project. */
export async function writeResult(name: string, result: object): Promise<string> {
  const file = `bench/results/${name}.json`;
  await mkdir(root("bench/results"), { recursive: true });
  await writeFile(root(file), `${JSON.stringify({ name, ...result }, undefined, 2)}\n`);
  return file;
}

/** Replaces the figures in docs/benchmarks.md. */
export async function writeSection(name: string, text: string): Promise<void> {
  const file = root("docs/benchmarks.md");
  const before = await readFile(file, "utf8");
  const [begin, end] = [`<!-- ${name}: written by the benchmark -->\n`, `<!-- /${name} -->`];
  const [from, to] = [before.indexOf(begin) + begin.length, before.indexOf(end)];
  if (from < begin.length || to < from) throw new Error(`docs/benchmarks.md has no section ${name}`);
  await writeFile(file, `${before.slice(0, from)}${text}\n${before.slice(to)}`);
}
