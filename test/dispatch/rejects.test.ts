import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, onTestFinished, test } from "vitest";
import { openInbox } from "../../src/dispatch/inbox.ts";
import type { Inbox, Selection } from "../../src/dispatch/inbox.ts";
import { createRejects, rejectsInbox } from "../../src/dispatch/rejects.ts";
import type { RejectedEntry, Rejects } from "../../src/dispatch/rejects.ts";
import { toOffset } from "../../src/reading.ts";
import { message, openBench, patiently, reaches, statusOf } from "./open-dispatch.ts";

const rejection = { reason: "invalid", issues: [{ path: "seq", message: "expected a number" }] } as const;
const makeEntry = (offset: number, payload = "{}"): RejectedEntry => ({
  offset: toOffset(offset),
  kind: "rejected",
  stream: "climate",
  message: message(payload, offset),
  rejection,
});

interface Opened {
  readonly file: string;
  readonly open: (keep?: { readonly records: number; readonly bytes: number }) => Rejects;
  readonly inbox: () => Inbox;
  readonly offsets: (selection?: Selection) => readonly number[];
}

async function openFile(): Promise<Opened> {
  const dir = await mkdtemp(join(tmpdir(), "sluice-rejects-"));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  const file = join(dir, "rejects.db");
  const inbox = (): Inbox => {
    const opened = openInbox(file, rejectsInbox);
    if (opened === undefined) throw new Error(`${file} is missing`);
    onTestFinished(() => opened[Symbol.dispose]());
    return opened;
  };
  return {
    file,
    open(keep = { records: 100, bytes: 1_000_000 }) {
      const rejects = createRejects({ file, gateway: "g", keep });
      onTestFinished(() => rejects[Symbol.dispose]());
      return rejects;
    },
    inbox,
    offsets: (selection = {}) => [...inbox().items(selection)].map(({ offset }) => offset),
  };
}

describe("the file of rejected messages", () => {
  test("is made with the first message, and keeps what is known of each with the position", async () => {
    const { open, inbox } = await openFile();
    const rejects = open();
    expect([rejects.position(), rejects.takeMarked()]).toEqual([undefined, []]);
    expect(rejects.keep([makeEntry(3, `{"seq":"x"}`)], toOffset(9))).toBe(0);
    expect(rejects.position()).toBe(9);
    expect([...inbox().items({})]).toMatchObject([
      {
        gateway: "g",
        offset: 3,
        stream: "climate",
        error: "invalid: seq: expected a number",
        ...rejection,
        message: message(`{"seq":"x"}`, 3),
      },
    ]);
  });

  test("has each message once, also when it is copied again after a crash", async () => {
    const { open, offsets, inbox } = await openFile();
    open().keep([makeEntry(1), makeEntry(2)], toOffset(3));
    open().keep([makeEntry(1), makeEntry(2), makeEntry(3)], toOffset(4));
    expect(offsets()).toEqual([1, 2, 3]);
    expect(inbox().dropped).toBe(0);
  });

  test("lets the oldest give way, by number and by bytes, and counts them", async () => {
    const { open, offsets, inbox } = await openFile();
    const rejects = open({ records: 5, bytes: 1_000_000 });
    expect(
      rejects.keep(
        [1, 2, 3, 4].map((offset) => makeEntry(offset)),
        toOffset(5),
      ),
    ).toBe(0);
    expect(
      rejects.keep(
        [5, 6, 7].map((offset) => makeEntry(offset)),
        toOffset(8),
      ),
    ).toBe(2);
    expect(offsets()).toEqual([3, 4, 5, 6, 7]);
    const small = open({ records: 100, bytes: 3_000 });
    expect(small.keep([makeEntry(8, "x".repeat(2_000))], toOffset(9))).toBe(4);
    expect([offsets(), inbox().dropped]).toEqual([[7, 8], 6]);
  });

  test("keeps as many as it may after an operator has dropped some", async () => {
    const { open, offsets, inbox } = await openFile();
    const rejects = open({ records: 4, bytes: 1_000_000 });
    rejects.keep(
      [1, 2, 3, 4].map((offset) => makeEntry(offset)),
      toOffset(5),
    );
    expect(inbox().drop({ offset: 2 })).toBe(1);
    expect(rejects.keep([makeEntry(5)], toOffset(6))).toBe(0);
    expect(offsets()).toEqual([1, 3, 4, 5]);
  });

  test("forgets what was taken at last, and keeps the others with their new reason", async () => {
    const { open, inbox } = await openFile();
    const rejects = open();
    rejects.keep(
      [1, 2, 3].map((offset) => makeEntry(offset)),
      toOffset(4),
    );
    inbox().mark({ reason: "invalid" });
    const marked = rejects.takeMarked();
    expect(marked.map(({ offset }) => offset)).toEqual([1, 2, 3]);
    const [first, second, third] = marked;
    if (first === undefined || second === undefined || third === undefined) throw new Error("three were marked");
    rejects.settle([first, third], [{ item: second, reason: "time", issues: [{ path: "", message: "no time" }] }]);
    expect([...inbox().items({})]).toMatchObject([
      { offset: 2, reason: "time", error: "time: no time", retryAt: undefined },
    ]);
    expect(rejects.takeMarked()).toEqual([]);
  });
});

describe("the inbox", () => {
  const keep = { records: 100, bytes: 1_000_000 };
  const rejected = { stream: "climate", ...rejection };

  async function openInboxBench(takeAgain?: Parameters<Awaited<ReturnType<typeof openBench>>["open"]>[0]["takeAgain"]) {
    const bench = await openBench();
    const file = join(bench.dataDir, "rejects.db");
    return {
      bench,
      openDispatcher: (rejects = keep) =>
        bench.open({
          sinks: [],
          handlers: [],
          config: { file: join(bench.dir, "gateway.ts"), dataDir: bench.dataDir, sinks: [], handlers: [], rejects },
          ...(takeAgain && { takeAgain }),
        }),
      mark: () => {
        using inbox = openInbox(file, rejectsInbox);
        return inbox?.mark({});
      },
      found: () => {
        using inbox = openInbox(file, rejectsInbox);
        return [...(inbox?.items({}) ?? [])];
      },
    };
  }

  test("copies rejected messages out of the journal, and lets it be trimmed", async () => {
    const { bench, openDispatcher, found } = await openInboxBench();
    await bench.append(2_500);
    await bench.appendOne("not json", rejected);
    await bench.append(10);
    const dispatcher = await openDispatcher();
    const told: number[] = [];
    dispatcher.onCursor((least) => told.push(least));
    await reaches(dispatcher, "rejects", 2_511);
    expect(found()).toMatchObject([
      { offset: 2_500, reason: "invalid", message: { clientId: "d1", topic: "devices/d1/telemetry" } },
    ]);
    await expect.poll(() => told.at(-1), patiently).toBe(2_511);
    expect(statusOf(dispatcher, "rejects")).toMatchObject({
      kind: "inbox",
      state: "running",
      delivered: 1,
      passed: 2_510,
      expired: 0,
    });
  });

  test("does not bring back what an operator has dropped, though its worker was ended at any time", async () => {
    const { bench, openDispatcher, found } = await openInboxBench();
    await bench.appendOne("one", rejected);
    const dispatcher = await openDispatcher();
    await expect.poll(() => found().length, patiently).toBe(1);
    using inbox = openInbox(join(bench.dataDir, "rejects.db"), rejectsInbox);
    inbox?.drop({});
    await dispatcher.restart("rejects");
    await bench.appendOne("two", rejected);
    await expect.poll(() => found().map(({ offset }) => offset), patiently).toEqual([1]);
    await reaches(dispatcher, "rejects", 2);
    expect(found().map(({ offset }) => offset)).toEqual([1]);
  });

  test("says when the oldest give way", async () => {
    const { bench, openDispatcher, found } = await openInboxBench();
    for (const payload of ["a", "b", "c"]) await bench.appendOne(payload, rejected);
    const dispatcher = await openDispatcher({ records: 2, bytes: 1_000_000 });
    await reaches(dispatcher, "rejects", 3);
    expect(found().map(({ offset }) => offset)).toEqual([1, 2]);
    expect(bench.logged).toEqual(["1 of the oldest rejected messages gave way to newer ones: `rejects` keeps no more"]);
  });

  test("has marked messages taken again, and keeps those that are rejected again", async () => {
    const asked: string[] = [];
    const { bench, openDispatcher, mark, found } = await openInboxBench((messages) => {
      const payloads = messages.map(({ payload }) => Buffer.from(payload).toString());
      asked.push(...payloads);
      return Promise.resolve(
        payloads.map((payload) =>
          payload === "good"
            ? ({ kind: "taken" } as const)
            : ({ kind: "rejected", reason: "undecodable", issues: [{ path: "", message: "no JSON" }] } as const),
        ),
      );
    });
    await bench.appendOne("good", rejected);
    await bench.appendOne("bad", rejected);
    await bench.appendOne("forged", { ...rejected, reason: "identity" });
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, "rejects", 3);
    expect(mark()).toBe(3);
    await expect.poll(() => found().length, patiently).toBe(2);
    expect(asked).toEqual(["good", "bad"]);
    expect(found()).toMatchObject([
      { offset: 1, error: "undecodable: no JSON", retryAt: undefined },
      { offset: 2, reason: "identity", retryAt: undefined },
    ]);
  });

  test("keeps the marks while the gateway cannot take them", async () => {
    let fails = true;
    const { bench, openDispatcher, mark, found } = await openInboxBench((messages) =>
      fails ? Promise.reject(new Error("the disk is full")) : Promise.resolve(messages.map(() => ({ kind: "taken" }))),
    );
    await bench.appendOne("good", rejected);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, "rejects", 1);
    mark();
    await expect.poll(() => statusOf(dispatcher, "rejects").lastError, patiently).toBe("the disk is full");
    expect(found()).toMatchObject([{ retryAt: expect.any(Number) as number }]);
    fails = false;
    await expect.poll(found, patiently).toEqual([]);
    await expect.poll(() => statusOf(dispatcher, "rejects").state, patiently).toBe("running");
  });

  test("whose file cannot be used holds the journal and says so, and goes on when it can", async () => {
    const { bench, openDispatcher, found } = await openInboxBench();
    const file = join(bench.dataDir, "rejects.db");
    {
      using other = new DatabaseSync(file);
      other.exec("PRAGMA user_version = 9");
    }
    await bench.appendOne("one", rejected);
    const dispatcher = await openDispatcher();
    await expect.poll(() => statusOf(dispatcher, "rejects").lastError, patiently).toMatch(/rejects\.db: .*newer/);
    expect(statusOf(dispatcher, "rejects")).toMatchObject({ state: "retrying", position: 0 });
    await rm(file);
    await expect.poll(() => found().length, patiently).toBe(1);
  });
});
