// Files of newline-delimited JSON: a document (see document.ts) and a line feed for each reading, in UTF-8. With a compression
// the whole file is one gzip member (RFC 1952) or one Zstandard frame (RFC 8878).

import { gzipSync, zstdCompressSync } from "node:zlib";
import { toDocuments } from "../document.ts";
import type { Contents, Format } from "./format.ts";

const compressions = {
  none: { extension: "ndjson", compress: undefined },
  gzip: { extension: "ndjson.gz", compress: gzipSync },
  zstd: { extension: "ndjson.zst", compress: zstdCompressSync },
} as const;

/** Lines are gathered to so many characters before they leave the heap of the thread for a buffer. */
const PIECE = 64 * 1024;

export function createNdjson(compression: keyof typeof compressions = "none"): Format<string> {
  const { extension, compress } = compressions[compression];
  return {
    extension,
    toRows(batch) {
      const written = toDocuments(batch);
      return written.kind === "documents" ? { kind: "rows", rows: written.documents } : written;
    },
    createContents: () => createLines(compress),
  };
}

function createLines(compress: ((bytes: Uint8Array) => Uint8Array) | undefined): Contents<string> {
  const pieces: Uint8Array[] = [];
  let lines = "";
  const gather = (): void => {
    pieces.push(Buffer.from(lines));
    lines = "";
  };
  return {
    add(document) {
      lines += `${document}\n`;
      if (lines.length >= PIECE) gather();
      return document.length + 1;
    },
    finish() {
      gather();
      return compress === undefined ? pieces : [compress(Buffer.concat(pieces))];
    },
  };
}
