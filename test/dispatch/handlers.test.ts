// Handlers in real workers: what they do at once, what happens when they do not end, and what they remember.

import { mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import type { DispatcherOptions } from "../../src/dispatch/dispatcher.ts";
import { message, openBench, patiently, range, reaches, statusOf, totalErrors } from "./open-dispatch.ts";
import type { Bench } from "./open-dispatch.ts";

const name = "on-climate";

/** A handler of the stream `climate`, as text, with its options. */
async function openHandler(handler: string, given = "{}", options: Partial<DispatcherOptions> = {}) {
  const bench = await openBench();
  await bench.configure(`import { writeFileSync } from "node:fs";
    import { setTimeout } from "node:timers/promises";
    const say = (text) => appendFileSync(join(dir, "out"), text + "\\n");
    const once = (mark) => !existsSync(join(dir, mark)) && (writeFileSync(join(dir, mark), ""), true);
    export default defineGateway({ streams: [climate, other], handlers: [on(climate, ${handler}, ${given})] });`);
  return { bench, openDispatcher: () => bench.open({ sinks: [], handlers: [{ name }], ...options }) };
}

/** One message of each device in turn. */
async function appendOf(bench: Bench, devices: readonly string[], rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    for (const deviceId of devices) {
      const topic = `devices/${deviceId}/telemetry`;
      bench.journal.append({ ...message(`{"seq":${round}}`), topic, deviceId, clientId: deviceId }, "climate");
    }
  }
  await bench.journal.flush();
}

function stateOf(bench: Bench): Readonly<Record<string, unknown>> {
  using db = new DatabaseSync(join(bench.dataDir, "handlers", `${name}.db`), { readOnly: true });
  const rows = db.prepare("SELECT key, value FROM state ORDER BY key").all();
  return Object.fromEntries(rows.map(({ key, value }) => [key, JSON.parse(String(value)) as unknown]));
}

describe("with concurrency", () => {
  test("calls run side by side, one at a time for each device and in its order", async () => {
    const { bench, openDispatcher } = await openHandler(
      `async ({ reading }) => {
        say(">" + reading.deviceId + " " + reading.data.seq);
        await setTimeout(Math.random() * 4);
        say("<" + reading.deviceId + " " + reading.data.seq);
      }`,
      "{ concurrency: 4 }",
    );
    const devices = ["a", "b", "c", "d", "e", "f"];
    await appendOf(bench, devices, 30);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, name, 180);
    let running = 0;
    let most = 0;
    for (const line of bench.lines("out")) {
      running += line.startsWith(">") ? 1 : -1;
      most = Math.max(most, running);
    }
    expect(most).toBe(4);
    for (const device of devices) {
      const own = bench.lines("out").filter((line) => line[1] === device);
      expect(own).toEqual(range(0, 30).flatMap((seq) => [`>${device} ${seq}`, `<${device} ${seq}`]));
    }
    expect(statusOf(dispatcher, name)).toMatchObject({ delivered: 180, parked: 0, lagRecords: 0 });
  });

  test("the cursor stays behind the oldest call that has not ended, and only so much is called ahead of it", async () => {
    const { bench, openDispatcher } = await openHandler(
      `async ({ reading }) => {
        if (reading.deviceId === "slow") { await setTimeout(1_500); say("slow"); }
        else say("fast");
      }`,
      "{ concurrency: 2 }",
    );
    await appendOf(bench, ["a", "slow"], 1);
    await appendOf(bench, ["a"], 3_000);
    const dispatcher = await openDispatcher();
    await expect.poll(() => bench.lines("out").length, patiently).toBeGreaterThan(400);
    expect(statusOf(dispatcher, name).position).toBeLessThanOrEqual(1);
    await reaches(dispatcher, name, 3_002);
    // A chunk more than what stops the reading.
    expect(bench.lines("out").indexOf("slow")).toBeLessThanOrEqual(1_000);
    expect(bench.lines("out")).toHaveLength(3_002);
  });

  test("a worker that ends loses nothing, and the order of each device holds behind it", async () => {
    const { bench, openDispatcher } = await openHandler(
      `async ({ reading, offset }) => {
        say(reading.deviceId + " " + reading.data.seq);
        await setTimeout(Math.random() * 3);
        if ((offset === 70 || offset === 200) && once("died" + offset)) process.exit(3);
      }`,
      "{ concurrency: 5 }",
    );
    const devices = ["a", "b", "c", "d", "e", "f", "g"];
    await appendOf(bench, devices, 60);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, name, 420);
    for (const device of devices) {
      const own = bench.lines("out").filter((line) => line.startsWith(device));
      const seen = own.map((line) => Number(line.slice(2)));
      expect(new Set(seen)).toEqual(new Set(range(0, 60)));
      // Again from somewhere on, twice, and else one after the other.
      const steps = seen.slice(1).map((seq, index) => seq - (seen[index] ?? 0));
      expect(steps.filter((step) => step > 1)).toEqual([]);
      expect(steps.filter((step) => step < 1).length).toBeLessThanOrEqual(2);
    }
    expect(bench.parked()).toEqual([]);
  });
});

describe("a call that takes too long", () => {
  test("is told by its signal, fails, and is made again; then the entry is parked", async () => {
    const { bench, openDispatcher } = await openHandler(
      `async ({ offset }, { signal }) => {
        say(">" + offset);
        // One that returns when it is told to has failed all the same.
        if (offset === 1) await new Promise((resolve) => signal.addEventListener("abort", resolve));
        say("<" + offset);
      }`,
      "{ timeoutMs: 100, retry: { attempts: 2 } }",
    );
    await bench.append(3);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, name, 3);
    expect(bench.lines("out")).toEqual([">0", "<0", ">1", "<1", ">1", "<1", ">2", "<2"]);
    const error = "the call took longer than 100 ms";
    expect(bench.parked()).toMatchObject([{ offset: 1, error, attempts: 2 }]);
    expect(statusOf(dispatcher, name)).toMatchObject({ delivered: 2, parked: 1, state: "running" });
  });

  test("and ignores its signal never runs beside its own second try, and is parked after three workers", async () => {
    const { bench, openDispatcher } = await openHandler(
      `async ({ offset }) => {
        say("begun " + offset);
        if (offset === 1) for (;;) { await setTimeout(20); say("on"); }
      }`,
      "{ timeoutMs: 100 }",
    );
    await bench.append(3);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, name, 3);
    const lines = bench.lines("out").filter((line) => line !== "on");
    expect(lines.filter((line) => line === "begun 1")).toHaveLength(3);
    expect(lines.at(-1)).toBe("begun 2");
    expect(bench.parked()).toMatchObject([
      { offset: 1, attempts: 3, error: expect.stringContaining("did not end when told to") },
    ]);
    // Nothing of it goes on.
    const before = bench.lines("out").length;
    await bench.append(1);
    await reaches(dispatcher, name, 4);
    expect(bench.lines("out").slice(before)).toEqual(["begun 3"]);
  });

  test("because the gateway takes no messages has done nothing wrong", async () => {
    const room = Promise.withResolvers<void>();
    let withdrawn = 0;
    const { bench, openDispatcher } = await openHandler(
      `async (_, { publish }) => { await publish("a", "b"); }`,
      "{ timeoutMs: 100, retry: { attempts: 2, maximumMs: 10 } }",
      {
        publish(_handler, _message, signal) {
          const over = Promise.withResolvers<void>();
          signal.addEventListener("abort", () => {
            withdrawn += 1;
            over.reject(signal.reason);
          });
          return Promise.race([room.promise, over.promise]);
        },
      },
    );
    await bench.append(1);
    const dispatcher = await openDispatcher();
    await expect.poll(() => withdrawn, patiently).toBe(4);
    expect(statusOf(dispatcher, name)).toMatchObject({
      position: 0,
      state: "retrying",
      lastError: "the gateway takes no messages now, and the call waits for that",
    });
    room.resolve();
    await reaches(dispatcher, name, 1);
    expect(bench.parked()).toEqual([]);
  });
});

describe("an entry that ends its worker each time", () => {
  test.each([
    ["by process.exit", "process.exit(7)", "its worker ended with exit code 7"],
    ["by an error that nobody catches", "Promise.reject(new Error('lost'))", "lost"],
    ["by a loop without end", "for (;;);", "a loop without end"],
    ["by memory without end", "let all; for (;;) all = [all];", "memory"],
    [
      "by memory that grows between its callbacks",
      // It stays between the worker's own bound, 85 %, and that of Node.
      `const all = [];
        const { getHeapStatistics } = await import("node:v8");
        setInterval(() => {
          if (getHeapStatistics().used_heap_size < 0.87 * 256 * 2 ** 20) all.push(new Array(32_000).fill(0));
        }, 1)`,
      "its memory is nearly used up",
      256,
    ],
  ] as [how: string, code: string, reason: string, heapMb?: number][])(
    "%s is parked, and the next one follows",
    async (_how, code, reason, heapMb = 64) => {
      const { bench, openDispatcher } = await openHandler(
        `async ({ offset }) => {
        say(offset);
        if (offset === 1) { ${code}; await new Promise(() => {}); }
      }`,
        "{ concurrency: 2 }",
        { silentMs: 3_000, heapMb },
      );
      await bench.append(4);
      const dispatcher = await openDispatcher();
      await reaches(dispatcher, name, 4);
      expect(bench.lines("out").filter((line) => line === "1")).toHaveLength(3);
      const [parked] = bench.parked();
      expect(bench.parked()).toMatchObject([{ offset: 1, attempts: 3 }]);
      expect(parked?.["error"]).toMatch(/^its worker ended each of the 3 times that it was called, the last time: /);
      expect(parked?.["error"]).toContain(reason);
      expect(totalErrors(statusOf(dispatcher, name))).toBeGreaterThanOrEqual(3);
    },
  );

  test("is found among those that were in hand with it, and they are not parked", async () => {
    const { bench, openDispatcher } = await openHandler(
      `async ({ reading, offset }) => {
        say(reading.deviceId);
        await setTimeout(reading.deviceId === "d" ? 20 : 100);
        if (reading.deviceId === "d") process.exit(1);
      }`,
      "{ concurrency: 4 }",
    );
    await appendOf(bench, ["a", "b", "c", "d", "e"], 1);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, name, 5);
    expect(bench.parked()).toMatchObject([{ device: "d", attempts: 3 }]);
    expect(new Set(bench.lines("out"))).toEqual(new Set(["a", "b", "c", "d", "e"]));
  });

  test("is not held against one whose worker was restarted or stopped on purpose", async () => {
    const { bench, openDispatcher } = await openHandler(
      `async (_entry, { signal }) => {
        say("begun");
        while (!existsSync(join(dir, "go"))) await setTimeout(5);
      }`,
    );
    await bench.append(1);
    const begun = async (count: number): Promise<void> => {
      await expect.poll(() => bench.lines("out").length, patiently).toBe(count);
    };
    const first = await openDispatcher();
    for (const count of [1, 2, 3]) {
      await begun(count);
      await first.restart(name);
    }
    await begun(4);
    await first.stop(AbortSignal.timeout(50));
    for (const count of [5, 6]) {
      const next = await openDispatcher();
      await begun(count);
      await next.stop(AbortSignal.timeout(50));
    }
    const last = await openDispatcher();
    await begun(7);
    writeFileSync(join(bench.dir, "go"), "");
    await reaches(last, name, 1);
    expect(bench.parked()).toEqual([]);
  });
});

describe("state", () => {
  test.each([1, 4])("counts each entry once, whenever a worker ends (concurrency %i)", async (concurrency) => {
    const { bench, openDispatcher } = await openHandler(
      `async ({ reading, offset }, { state }) => {
        const { deviceId } = reading;
        const count = (state.get(deviceId) ?? 0) + 1;
        state.set(deviceId, count);
        state.set(deviceId + "/last", reading.data.seq);
        await setTimeout(Math.random() * 3);
        if (offset % 50 === 30 && once("died" + offset)) {
          await setTimeout(150 + Math.random() * 150);
          process.exit(3);
        }
      }`,
      `{ concurrency: ${concurrency} }`,
    );
    await appendOf(bench, ["a", "b", "c", "d"], 60);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, name, 240);
    const each = ["a", "b", "c", "d"].flatMap((device) => [
      [device, 60],
      [`${device}/last`, 59],
    ]);
    expect(stateOf(bench)).toEqual(Object.fromEntries(each));
    await dispatcher.stop(AbortSignal.timeout(10_000));
    expect(bench.lines("out")).toEqual([]);
  });

  test("of a call that fails is as before the call, and of one that keeps too much too", async () => {
    const { bench, openDispatcher } = await openHandler(
      `async ({ offset }, { state }) => {
        state.set("calls", (state.get("calls") ?? 0) + 1);
        state.set("entry/" + offset, "x".repeat(offset === 2 ? 2_000 : 10));
        if (offset === 1) throw new Error("no");
      }`,
      "{ retry: { attempts: 2 }, stateBytes: 1_024 }",
    );
    await bench.append(4);
    const dispatcher = await openDispatcher();
    await reaches(dispatcher, name, 4);
    expect(stateOf(bench)).toEqual({ calls: 2, "entry/0": "xxxxxxxxxx", "entry/3": "xxxxxxxxxx" });
    expect(bench.parked()).toMatchObject([
      { offset: 1, error: "no" },
      { offset: 2, error: expect.stringContaining("more than the 1024 of stateBytes") },
    ]);
  });

  test("that cannot be written holds the handler, and is whole when it can", async () => {
    const { bench, openDispatcher } = await openHandler(
      `async (_entry, { state }) => {
        state.set("count", (state.get("count") ?? 0) + 1);
      }`,
    );
    await bench.append(10);
    const first = await openDispatcher();
    await reaches(first, name, 10);
    using other = new DatabaseSync(join(bench.dataDir, "handlers", `${name}.db`));
    other.exec("BEGIN IMMEDIATE");
    await bench.append(10);
    await expect.poll(() => statusOf(first, name).lastError, patiently).toContain("database is locked");
    expect(statusOf(first, name)).toMatchObject({ position: 10, state: "retrying" });
    other.exec("ROLLBACK");
    await reaches(first, name, 20);
    expect(stateOf(bench)).toEqual({ count: 20 });
    expect(statusOf(first, name)).toMatchObject({ delivered: 20, parked: 0 });
  });
});

test("when nothing can be parked all that is not durable is done again, and its state is as before", async () => {
  const { bench, openDispatcher } = await openHandler(
    `async ({ offset }, { state }) => {
      state.set("count", (state.get("count") ?? 0) + 1);
      if (offset === 3) throw new Error("no");
    }`,
    "{ retry: { attempts: 1 }, concurrency: 2 }",
  );
  await bench.append(5);
  mkdirSync(join(bench.dataDir, "parked.db"));
  const dispatcher = await openDispatcher();
  await expect.poll(() => totalErrors(statusOf(dispatcher, name)), patiently).toBeGreaterThan(6);
  rmdirSync(join(bench.dataDir, "parked.db"));
  await reaches(dispatcher, name, 5);
  expect(stateOf(bench)).toEqual({ count: 4 });
  expect(bench.parked()).toMatchObject([{ offset: 3 }]);
});

test("a handler that is new begins with what comes next when it is told to", async () => {
  const { bench, openDispatcher } = await openHandler("async ({ offset }) => say(offset)", `{ from: "now" }`);
  await bench.append(3);
  const dispatcher = await openDispatcher();
  await expect.poll(() => statusOf(dispatcher, name).state, patiently).toBe("running");
  await bench.append(2);
  await reaches(dispatcher, name, 5);
  expect(bench.lines("out")).toEqual(["3", "4"]);
});

test("an entry that was in hand when nobody waited any longer comes again", async () => {
  const { bench, openDispatcher } = await openHandler(
    `async ({ offset }, { signal }) => {
      say("begun " + offset);
      // Returns in good order, and has done nothing.
      if (once("waited")) await new Promise((resolve) => signal.addEventListener("abort", resolve));
      else say("done " + offset);
    }`,
  );
  await bench.append(1);
  const first = await openDispatcher();
  await expect.poll(() => bench.lines("out").length, patiently).toBe(1);
  await first.stop(AbortSignal.timeout(50));
  const second = await openDispatcher();
  await reaches(second, name, 1);
  expect(bench.lines("out")).toEqual(["begun 0", "begun 0", "done 0"]);
});
