// What is in the closed files of the sink of files, read by other means than its own.

import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { parquetReadObjects } from "hyparquet";
import type { WrittenRow } from "../contract/sink.ts";

export interface ClosedFile {
  /** Relative to the folder. */
  readonly path: string;
  /** Its rows or documents, in their order. */
  readonly rows: readonly Readonly<Record<string, unknown>>[];
}

/** Every file in the folder that is not hidden, in the order of their names. */
export async function readClosed(folder: string): Promise<readonly ClosedFile[]> {
  const paths = readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => !path.startsWith(".") && statSync(join(folder, path)).isFile())
    .sort();
  return Promise.all(paths.map(async (path) => ({ path, rows: await readRows(join(folder, path)) })));
}

async function readRows(path: string): Promise<ClosedFile["rows"]> {
  const bytes = readFileSync(path);
  if (path.endsWith(".parquet")) return await readParquet(bytes);
  if (path.endsWith(".gz")) return parseLines(gunzipSync(bytes));
  if (path.endsWith(".zst")) return parseLines(zstdDecompressSync(bytes));
  return parseLines(bytes);
}

function parseLines(bytes: Uint8Array): ClosedFile["rows"] {
  const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  const lines = text.split("\n");
  if (lines.pop() !== "") throw new Error("the last line is not whole");
  return lines.map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
}

/** The reader's own takes a byte order mark at the beginning of a text away. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function readParquet(bytes: Buffer): Promise<ClosedFile["rows"]> {
  const { buffer, byteOffset, byteLength } = bytes;
  return parquetReadObjects({
    file: buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer,
    parsers: { stringFromBytes: (text: Uint8Array) => utf8.decode(text) },
    compressors: { GZIP: (input) => gunzipSync(input), ZSTD: (input) => zstdDecompressSync(input) },
  });
}

/** As the contract of a sink asks for them. */
export async function readWritten(folder: string): Promise<readonly WrittenRow[]> {
  const closed = await readClosed(folder);
  return closed
    .flatMap(({ rows }) => rows)
    .map(({ gateway, offset, device, time, data }) => ({
      gateway: String(gateway),
      offset: Number(offset),
      device: String(device),
      time: Number(time),
      data: typeof data === "string" ? (JSON.parse(data) as unknown) : data,
    }))
    .sort((a, b) => (a.gateway === b.gateway ? a.offset - b.offset : a.gateway < b.gateway ? -1 : 1));
}
