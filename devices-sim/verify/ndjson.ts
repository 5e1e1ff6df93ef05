// Lines of JSON: one file, such as what the stdout sink wrote into a pipe, or a folder of the files sink with all below it. Lines that
// are no documents are passed over: a log, or a line that was cut short and came again.

import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Readable } from "node:stream";
import { createInterface } from "node:readline";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { readLines } from "../ledger/lines.ts";
import { parseDocument } from "./documents.ts";
import { IncomparableError, type Row, type Source } from "./row.ts";

const PAGE = 10_000;

export function openNdjson(path: string): Source {
  /** Up to which byte each file was read. */
  const positions = new Map<string, number>();

  async function* readFile(file: string): AsyncGenerator<readonly string[]> {
    const before = positions.get(file);
    if (before !== undefined && isCompressed(file)) return;
    if (isCompressed(file)) yield* decompress(file);
    positions.set(file, isCompressed(file) ? 0 : yield* readLines(file, before));
  }

  let once = false;

  async function findLines(): Promise<readonly string[]> {
    const isFolder = (await stat(path)).isDirectory();
    // A folder is of the files sink, and each reading in exactly one file; standard output gets it at least once.
    once = isFolder;
    const found = isFolder ? await findFiles(path) : [path];
    const lines = found.filter((file) => !isParquet(file));
    if (lines.length === 0 && found[0] !== undefined) {
      throw new IncomparableError(`${found[0]} is Parquet, which is not read here: only NDJSON can be compared`);
    }
    return lines;
  }

  return {
    get once() {
      return once;
    },
    async *read() {
      for (const file of await findLines()) {
        for await (const lines of readFile(file)) yield lines.flatMap((line): Row[] | Row => parseDocument(line) ?? []);
      }
    },
    async check() {
      await findLines();
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

const isParquet = (file: string): boolean => file.endsWith(".parquet");

const isCompressed = (file: string): boolean => /\.(?:gz|zst)$/.test(file);

/** Of both formats, in the order of their names, which have the offsets in them. Hidden folders have files that are not closed. */
async function findFiles(folder: string): Promise<readonly string[]> {
  const found: string[] = [];
  const folders = [folder];
  for (let current = folders.pop(); current !== undefined; current = folders.pop()) {
    for (const entry of await readdir(current, { withFileTypes: true })) {
      const path = join(current, entry.name);
      if (entry.isDirectory() && !entry.name.startsWith(".")) folders.push(path);
      else if (entry.isFile() && /\.(?:ndjson(?:\.gz|\.zst)?|parquet)$/.test(entry.name)) found.push(path);
    }
  }
  return found.toSorted((a, b) => (basename(a) < basename(b) ? -1 : 1));
}

async function* decompress(file: string): AsyncGenerator<readonly string[]> {
  const raw = createReadStream(file);
  const stream: Readable = raw.pipe(file.endsWith(".gz") ? createGunzip() : createZstdDecompress());
  raw.on("error", (error) => stream.destroy(error));
  let lines: string[] = [];
  for await (const line of createInterface({ input: stream })) {
    lines.push(line);
    if (lines.length < PAGE) continue;
    yield lines;
    lines = [];
  }
  yield lines;
}
