import { execFile } from "node:child_process";
import { closeSync, constants, openSync, unlinkSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

/**
 * Holds `count` threads of libuv's pool: each opens a FIFO in `dir` that nobody writes to, and open(2) does not return.
 * Disposing lets them go.
 */
export async function hangFiles(dir: string, count: number): Promise<AsyncDisposable> {
  const paths = Array.from({ length: count }, (_, index) => join(dir, `hung-${index}`));
  await promisify(execFile)("mkfifo", paths);
  const opening = paths.map((path) => open(path, "r"));
  return {
    async [Symbol.asyncDispose]() {
      // What the readers wait for is a writer; synchronous, since the pool is taken.
      for (const path of paths) closeSync(openSync(path, constants.O_RDWR | constants.O_NONBLOCK));
      for (const handle of await Promise.all(opening)) await handle.close();
      for (const path of paths) unlinkSync(path);
    },
  };
}
