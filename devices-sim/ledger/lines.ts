// The complete lines of a growing file, in blocks.

import { open, type FileHandle } from "node:fs/promises";

const BLOCK_BYTES = 1024 * 1024;

/**
 * Every complete line behind the byte `from`, many at a time. Returns the position behind the last one: where to go on when
 * the file has grown. What follows the last line feed is not a line yet.
 */
export async function* readLines(path: string, from = 0): AsyncGenerator<readonly string[], number> {
  await using file = await open(path);
  let position = from;
  let block: Buffer = Buffer.alloc(0);
  for (;;) {
    const read = await readBlock(file, position + block.length);
    if (read.length === 0) return position;
    block = block.length === 0 ? read : Buffer.concat([block, read]);
    const end = block.lastIndexOf(0x0a) + 1;
    if (end === 0) continue;
    const lines = block.toString("utf8", 0, end - 1).split("\n");
    position += end;
    block = block.subarray(end);
    yield lines;
  }
}

async function readBlock(file: FileHandle, position: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(BLOCK_BYTES), 0, BLOCK_BYTES, position);
  return buffer.subarray(0, bytesRead);
}
