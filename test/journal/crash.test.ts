import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { close, message, readAll, test } from "./fixtures.ts";

const cycles = 6;

test(
  "SIGKILL at any instant loses no record that was acknowledged (P2)",
  { timeout: 180_000 },
  async ({ dir, open }) => {
    let acknowledged = 0;
    for (let cycle = 0; cycle < cycles; cycle += 1) {
      const child = fork(fileURLToPath(new URL("./appender.ts", import.meta.url)), [dir]);
      const ended = once(child, "exit");
      // Killed from within the arrival of an acknowledgement: the next commit is being written then.
      let left = 20 + Math.floor(Math.random() * 60);
      child.on("message", (to: number) => {
        acknowledged = Math.max(acknowledged, to);
        left -= 1;
        if (left === 0) child.kill("SIGKILL");
      });
      expect(await ended).toEqual([null, "SIGKILL"]);

      const journal = await open({ streams: ["climate"], maxBytes: 2 ** 30 });
      expect(journal.next).toBeGreaterThanOrEqual(acknowledged);
      expect(journal.recovered.lost).toEqual([]);
      const { entries, lost } = readAll(journal.share);
      expect(lost).toEqual([]);
      expect(entries).toHaveLength(journal.next);
      for (const [index, { offset, message: read }] of entries.entries()) {
        if (offset !== index || read.clientId !== `d${index}`) throw new Error(`offset ${offset} at ${index}`);
      }
      expect(entries.at(-1)?.message.receivedAt).toBe(message(journal.next - 1).receivedAt);
      acknowledged = journal.next;
      await close(journal);
    }
    expect(acknowledged).toBeGreaterThan(cycles * 20);
  },
);
