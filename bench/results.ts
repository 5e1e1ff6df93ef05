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

const page = "docs/benchmarks.md";

/** Replaces the figures of a benchmark in docs/benchmarks.md. */
export async function writeSection(name: string, text: string): Promise<void> {
  const { before, after } = await readSection(name);
  await writeFile(root(page), `${before}${text}\n${after}`);
}

/** What stands before and after the figures. Rejects when the page has no place for them: ask before a long run. */
export async function readSection(name: string): Promise<{ readonly before: string; readonly after: string }> {
  const text = await readFile(root(page), "utf8");
  const [begin, end] = [`<!-- ${name}: written by the benchmark -->\n`, `<!-- /${name} -->`];
  const [from, to] = [text.indexOf(begin) + begin.length, text.indexOf(end)];
  if (from < begin.length || to < from) throw new Error(`${page} has no section ${name}`);
  return { before: text.slice(0, from), after: text.slice(to) };
}
