import { EventEmitter, once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { openCheckpointer, type Checkpointer, type CheckpointerOptions } from "../../src/intake/checkpointer.ts";
import type { Journal } from "../../src/journal/journal.ts";
import { close, test } from "../journal/fixtures.ts";
import { checkpointPath, message, openIntake, type Opened, qos2 } from "./fixtures.ts";

interface Watched extends Opened {
  readonly checkpoints: Checkpointer;
  /** Resolves with the position of the next one that is written. */
  readonly written: () => Promise<number>;
  /** Resolves with the next error. */
  readonly failed: () => Promise<Error>;
}

function watch(journal: Journal, options: Partial<CheckpointerOptions> = {}): Watched {
  const opened = openIntake(journal);
  const told = new EventEmitter();
  const checkpoints = openCheckpointer({
    path: checkpointPath(journal),
    journal,
    memory: opened.restored.memory,
    position: opened.restored.position,
    maxBytes: 2 ** 30,
    onWritten: () => void told.emit("written", checkpoints.position),
    onError: (error) => void told.emit("failed", error),
    ...options,
  });
  const next = async <Told>(name: string): Promise<Told> => {
    const [first] = (await once(told, name)) as [Told];
    return first;
  };
  return { ...opened, checkpoints, written: () => next("written"), failed: () => next("failed") };
}

describe("a checkpoint is written", () => {
  test("when there are so many records behind the last, and not before", async ({ open }) => {
    const journal = await open();
    const { take, checkpoints, written } = watch(journal, { recordsApart: 3 });
    take(message("d", 1));
    take(qos2("d", 2));
    await journal.flush();
    expect(checkpoints.position).toBe(0);
    const next = written();
    take(message("d", 3));
    await journal.flush();
    expect(await next).toBe(3);
    expect(openIntake(journal).restored).toMatchObject({ position: 3, records: 0 });
    await checkpoints[Symbol.asyncDispose]();
  });

  test("when what only a start needs takes an eighth of the journal's room", async ({ open }) => {
    const journal = await open();
    const { take, written, checkpoints } = watch(journal, { maxBytes: 16 * 1024 });
    const next = written();
    take(message("d", "x".repeat(4_000)));
    await journal.flush();
    expect(await next).toBe(1);
    await checkpoints[Symbol.asyncDispose]();
  });

  test("at the end, so that the next start reads nothing", async ({ open }) => {
    const journal = await open();
    const { take, checkpoints } = watch(journal);
    take(qos2("d", 2));
    await checkpoints[Symbol.asyncDispose]();
    await close(journal);
    const opened = openIntake(await open());
    expect(opened.restored).toMatchObject({ position: 1, records: 0, unknown: [] });
    expect(opened.unfinished()).toEqual({ d: [2] });
  });

  test("not at the end when nothing has come since the last", async ({ open }) => {
    const journal = await open();
    await watch(journal).checkpoints[Symbol.asyncDispose]();
    await expect(readFile(checkpointPath(journal))).rejects.toThrow("ENOENT");
  });
});

test("a checkpoint that cannot be written is told, and its position stays: the journal keeps what a start needs", async ({
  open,
  dir,
}) => {
  const journal = await open();
  const { take, checkpoints, failed } = watch(journal, { path: join(dir, "no such folder", "c"), recordsApart: 1 });
  const first = failed();
  take(message("d", 1));
  await journal.flush();
  expect((await first).message).toMatch("ENOENT");
  expect(checkpoints.position).toBe(0);
  const last = failed();
  await checkpoints[Symbol.asyncDispose]();
  expect((await last).message).toMatch("ENOENT");
});
