// A pipe as a shell makes one between two programs; its reader is in the test's hand.

import { spawnSync } from "node:child_process";
import { closeSync, constants, openSync, readSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { onTestFinished } from "vitest";

export interface Pipe {
  /** The end that is written. */
  readonly fd: number;
  /** What is in it, when there is something; "" when nobody writes any more. */
  read(): Promise<string>;
  /** The reader is gone: a write fails with EPIPE. */
  leave(): void;
}

/** `blocks`: as a program finds it; otherwise the end that is written is non-blocking already. */
export function openPipe(path: string, { blocks = false } = {}): Pipe {
  spawnSync("mkfifo", [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const fd = openSync(path, blocks ? constants.O_WRONLY : constants.O_WRONLY | constants.O_NONBLOCK);
  let open = [reader, fd];
  const close = (end: number): void => {
    if (open.includes(end)) closeSync(end);
    open = open.filter((one) => one !== end);
  };
  onTestFinished(() => [reader, fd].forEach(close));
  const buffer = Buffer.alloc(64 * 1024);
  const decoder = new TextDecoder();
  return {
    fd,
    async read() {
      for (;;) {
        try {
          return decoder.decode(buffer.subarray(0, readSync(reader, buffer)), { stream: true });
        } catch (cause) {
          if ((cause as NodeJS.ErrnoException).code !== "EAGAIN") throw cause;
          await setTimeout(1);
        }
      }
    },
    leave: () => close(reader),
  };
}
