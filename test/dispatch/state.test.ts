import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import type { HandlerState } from "../../src/dispatch/handler.ts";
import { openState, type StateFile } from "../../src/dispatch/state.ts";
import { toOffset } from "../../src/reading.ts";
import { test } from "../fixtures.ts";

const at = toOffset;

function open(dir: string, maximumBytes = 1_000_000, gateway = "a".repeat(32)): StateFile {
  const state = openState({ file: join(dir, "handlers", "alarm.db"), gateway, maximumBytes });
  onTestFinished(() => state[Symbol.dispose]());
  return state;
}

/** A call that resolves. */
function call(file: StateFile, work: (state: HandlerState) => void): void {
  using own = file.begin();
  work(own.state);
  file.apply(own.changes);
}

test("what a call has set is seen by the next one, and over a restart once it is checkpointed", ({ dir }) => {
  const before = open(dir);
  call(before, (state) => state.set("d1", { since: 7, tags: ["a", null] }));
  call(before, (state) => expect(state.get("d1")).toEqual({ since: 7, tags: ["a", null] }));
  before.checkpoint(at(5), [at(7), at(9)]);
  before[Symbol.dispose]();
  const after = open(dir);
  call(after, (state) => expect(state.get("d1")).toEqual({ since: 7, tags: ["a", null] }));
  expect([after.position, [5, 7, 8, 9].map((offset) => after.isDone(at(offset)))]).toEqual([
    5,
    [false, true, false, true],
  ]);
});

test("a crash takes state and position back to the last checkpoint together", ({ dir }) => {
  const before = open(dir);
  call(before, (state) => state.set("count", 1));
  before.checkpoint(at(1), []);
  call(before, (state) => state.set("count", 2));
  before[Symbol.dispose](); // without a checkpoint, as a crash
  const after = open(dir);
  call(after, (state) => expect(state.get("count")).toBe(1));
  expect(after.position).toBe(1);
  call(after, (state) => state.set("count", 2));
  after.rollback();
  call(after, (state) => expect(state.get("count")).toBe(1));
});

test("nothing of a call that fails counts, and its state is over with it", ({ dir }) => {
  const file = open(dir);
  let kept: HandlerState | undefined;
  {
    using own = file.begin();
    own.state.set("a", 1);
    kept = own.state;
  }
  call(file, (state) => expect(state.get("a")).toBeUndefined());
  expect(() => kept?.set("a", 1)).toThrow("the call has ended");
  expect(() => kept?.entries()).toThrow("the call has ended");
});

test("a handler that keeps nothing has no file", ({ dir }) => {
  const file = open(dir);
  call(file, (state) => expect([state.get("a"), state.entries()]).toEqual([undefined, []]));
  file.checkpoint(at(3), []);
  expect([file.isOpen, file.position, existsSync(join(dir, "handlers"))]).toEqual([false, undefined, false]);
});

test("entries come by prefix and in the order of their bytes, with what the call has changed itself", ({ dir }) => {
  const file = open(dir);
  call(file, (state) => {
    for (const key of ["b/2", "b/10", "a", "c", "b/\u{1F600}", "b/\uFFFD"]) state.set(key, key.length);
  });
  call(file, (state) => {
    state.delete("b/2");
    state.set("b/11", 0);
    expect(state.entries("b/")).toEqual([
      ["b/10", 4],
      ["b/11", 0],
      ["b/\uFFFD", 3],
      ["b/\u{1F600}", 4],
    ]);
    expect(state.entries().map(([key]) => key)).toEqual(["a", "b/10", "b/11", "b/\uFFFD", "b/\u{1F600}", "c"]);
  });
});

test.for<readonly [string, string, unknown, string]>([
  ["a key of 257 bytes", "é".repeat(128) + "x", 1, "at most 256 bytes"],
  ["an empty key", "", 1, "at least one character"],
  ["a key with U+0000", "a\0b", 1, "without U+0000"],
  ["a key with a lone surrogate", "\uD800", 1, "lone surrogates"],
  ["a value of more than 64 KiB", "a", "x".repeat(65_535), "65537 bytes of JSON"],
  ["undefined", "a", undefined, "use delete"],
  ["a BigInt", "a", 1n, "BigInt"],
])("%s cannot be kept", ([, key, value, message], { dir }: { dir: string }) => {
  call(open(dir), (state) => expect(() => state.set(key, value)).toThrow(message));
});

test("no more is kept than stateBytes, over a restart too, and what is deleted makes room", ({ dir }) => {
  const file = open(dir, 1_000);
  call(file, (state) => state.set("a", "x".repeat(900))); // 1 + 902 bytes
  call(file, (state) => {
    expect(() => state.set("b", "x".repeat(95))).toThrow("1001 bytes, more than the 1000 of stateBytes");
    state.set("b", "x".repeat(94));
  });
  file.checkpoint(at(1), []);
  file[Symbol.dispose]();
  const again = open(dir, 1_000);
  call(again, (state) => {
    expect(() => state.set("c", 1)).toThrow("stateBytes");
    state.delete("b");
    state.set("c", "x".repeat(94));
  });
  // Two calls at once may each have room, and not both.
  using first = again.begin();
  using second = again.begin();
  call(again, (state) => state.delete("c"));
  first.state.set("d", "x".repeat(60));
  second.state.set("e", "x".repeat(60));
  again.apply(first.changes);
  expect(() => again.apply(second.changes)).toThrow("stateBytes");
});

test("a position is of one journal, and the state is the user's", ({ dir }) => {
  const before = open(dir);
  call(before, (state) => state.set("a", 1));
  before.checkpoint(at(5), [at(7)]);
  before[Symbol.dispose]();
  const after = open(dir, 1_000, "b".repeat(32));
  expect([after.position, after.isDone(at(7))]).toEqual([undefined, false]);
  call(after, (state) => expect(state.get("a")).toBe(1));
  after.checkpoint(at(2), [at(7)]);
  expect(after.isDone(at(7))).toBe(true);
});
