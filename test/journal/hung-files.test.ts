import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { test } from "./fixtures.ts";

const threads = 4;
const commits = 200;

test("four hung file operations elsewhere in the process do not hold a commit", async ({ dir, onTestFinished }) => {
  const appender = fileURLToPath(new URL("./hung-appender.ts", import.meta.url));
  const child = fork(appender, [dir, String(threads), String(commits)], {
    env: { ...process.env, UV_THREADPOOL_SIZE: String(threads) },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const ended = once(child, "exit");
  // A commit that waits for the pool waits for ever: no message comes.
  const [told] = await Promise.race([once(child, "message"), ended]);
  expect(told).toEqual({ commits, settledMeanwhile: false });
  expect(await ended).toEqual([0, null]);
});
