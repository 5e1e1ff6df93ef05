// 10,000 mutations of a journal's folder, one to three at a time. For each: a start either refuses with a clear error, or
// opens, tells exactly what is gone, and yields everything else as it was written.

import {
  appendFileSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { expect, test as base } from "vitest";
import { openCursor } from "../../src/journal/cursor.ts";
import { nodeDisk, type Disk } from "../../src/journal/disk.ts";
import { headName } from "../../src/journal/head.ts";
import { verifyJournal, type Verification } from "../../src/journal/inspect.ts";
import { recover } from "../../src/journal/recovery.ts";
import { frameMagicBytes, parseFrame, toFrameSeed } from "../../src/journal/segment.ts";
import { SluiceError, toError } from "../../src/errors.ts";
import { toOffset } from "../../src/reading.ts";
import { openStore, type StoreHarness } from "./store-harness.ts";

/** What a power cut would do is not the question here. */
const fastDisk: Disk = { ...nodeDisk, sync: () => {}, syncDir: () => {} };
const inMemory = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
const mutations = 10_000;

type Mutation =
  | { readonly kind: "delete" | "empty"; readonly file: string }
  | { readonly kind: "flip" | "truncate"; readonly file: string; readonly at: number }
  | { readonly kind: "zero"; readonly file: string; readonly at: number; readonly bytes: number }
  | { readonly kind: "append"; readonly file: string; readonly bytes: number; readonly copy: boolean }
  | { readonly kind: "copy" | "rename"; readonly file: string; readonly to: string };

const test = base.extend("dir", async ({}, { onCleanup }) => {
  const dir = mkdtempSync(join(inMemory, "sluice-mutation-"));
  onCleanup(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
});

/** Segments of some 4 KiB, two cursors: one at the end, one behind. Returns how many records it has. */
async function write(dir: string, runs: number, commits: number): Promise<number> {
  let records = 0;
  mkdirSync(dir);
  for (let run = 0; run < runs; run += 1) {
    const { store, commit } = openStore(dir, fastDisk, 4096);
    for (let part = 1; part <= commits; part += 1) {
      commit(part * 3);
      records += part * 3;
      store.prepare();
    }
    store.close();
  }
  const { id: journalId } = recover(dir);
  mkdirSync(join(dir, "cursors"));
  for (const [name, position] of [["ahead", records] as const, ["behind", 5] as const]) {
    await using cursor = openCursor({ dir: join(dir, "cursors"), name, journalId, start: toOffset(0) });
    cursor.commit(toOffset(position));
  }
  return records;
}

const filesOf = (dir: string): string[] =>
  readdirSync(dir, { recursive: true, encoding: "utf8" }).filter((name) => statSync(join(dir, name)).isFile());

function anyMutation(files: readonly string[]): fc.Arbitrary<Mutation> {
  const segments = files.filter((name) => name.endsWith(".seg"));
  const file = fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...segments) }, fc.constantFrom(...files));
  // Not a double: those come mostly near 0.
  const at = fc.integer({ min: 0, max: 9_999 }).map((part) => part / 10_000);
  const target = fc.constantFrom(...segments, "0000000099.seg", "4294967295.seg", "9999999999.seg");
  return fc.oneof(
    fc.record({ kind: fc.constantFrom("delete" as const, "empty" as const), file }),
    fc.record({ kind: fc.constantFrom("flip" as const, "truncate" as const), file, at }),
    fc.record({ kind: fc.constant("zero" as const), file, at, bytes: fc.integer({ min: 1, max: 5000 }) }),
    fc.record({
      kind: fc.constant("append" as const),
      file,
      bytes: fc.integer({ min: 1, max: 3000 }),
      copy: fc.boolean(),
    }),
    fc.record({
      kind: fc.constantFrom("copy" as const, "rename" as const),
      file: fc.constantFrom(...segments),
      to: target,
    }),
  );
}

function mutate(dir: string, mutation: Mutation): void {
  const path = join(dir, mutation.file);
  if (!existsSync(path)) return;
  const { size } = statSync(path);
  switch (mutation.kind) {
    case "delete":
      return rmSync(path);
    case "empty":
      return truncateSync(path, 0);
    case "truncate":
      return truncateSync(path, Math.floor(mutation.at * size));
    case "flip":
    case "zero": {
      const bytes = readFileSync(path);
      const at = Math.floor(mutation.at * size);
      if (mutation.kind === "zero") bytes.fill(0, at, Math.min(size, at + mutation.bytes));
      else if (size > 0) bytes.writeUInt8(bytes.readUInt8(at) ^ 0x55, at);
      return writeFileSync(path, bytes);
    }
    case "append": {
      const own = readFileSync(path).subarray(0, mutation.bytes);
      return appendFileSync(path, mutation.copy ? own : Buffer.alloc(mutation.bytes, 0xa5));
    }
    case "copy":
      return copyFileSync(path, join(dir, mutation.to));
    case "rename":
      return renameSync(path, join(dir, mutation.to));
  }
}

/** Offsets of the records in every whole frame of every file, wherever it stands: what nobody may call lost. */
function survivors(dir: string, seed: number): Set<number> {
  const found = new Set<number>();
  for (const name of filesOf(dir).filter((file) => file.endsWith(".seg"))) {
    const bytes = readFileSync(join(dir, name));
    for (let at = bytes.indexOf(frameMagicBytes); at >= 0; at = bytes.indexOf(frameMagicBytes, at + 1)) {
      const frame = at % 8 === 0 ? parseFrame(bytes, at, seed) : undefined;
      for (let index = 0; index < (frame?.count ?? 0); index += 1) found.add((frame?.baseOffset ?? 0) + index);
    }
  }
  return found;
}

const toOffsets = (ranges: readonly { readonly from: number; readonly to: number }[]): Set<number> =>
  new Set(ranges.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, index) => from + index)));

/** Offsets as "3-5 9-9": so that a failure can be read. */
function toText(offsets: Iterable<number>): string {
  const ranges: [number, number][] = [];
  for (const offset of [...offsets].toSorted((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last?.[1] === offset - 1) last[1] = offset;
    else ranges.push([offset, offset]);
  }
  return ranges.map(([from, to]) => `${from}-${to}`).join(" ");
}

interface Started extends StoreHarness {
  /** What `verify` said before. */
  readonly verification: Verification;
}

/** Undefined: it was refused, with a code, by the start and by `verify`, and then nothing has changed. */
function start(dir: string): Started | undefined {
  const before = listing(dir);
  const outcome = attempt(() => {
    const verification = verifyJournal(dir);
    return { verification, ...openStore(dir, fastDisk) };
  });
  if (!(outcome instanceof Error)) return outcome;
  expect(outcome).toBeInstanceOf(SluiceError);
  expect(listing(dir)).toEqual(before);
  // Without a segment and a head there is nothing to tell of: a start makes a new journal.
  const isNothing = outcome.message.includes("there is no journal");
  expect(attempt(() => recover(dir)) instanceof SluiceError).toBe(!isNothing);
  expect(isNothing && before.some((line) => /\.seg [1-9]/.test(line))).toBe(false);
  return undefined;
}

function attempt<T>(action: () => T): T | Error {
  try {
    return action();
  } catch (error) {
    return toError(error);
  }
}

const listing = (dir: string): string[] => filesOf(dir).map((name) => `${name} ${statSync(join(dir, name)).size}`);

interface Expected {
  readonly original: ReadonlyMap<number, string>;
  /** Must be yielded. */
  readonly left: ReadonlySet<number>;
  readonly verification: Verification;
}

function checkStart(harness: StoreHarness, { original, left, verification }: Expected): void {
  const { report, next } = harness.recovered;
  harness.commit(2);
  const { entries, lost } = harness.readAll();
  const yielded = entries.map(({ offset }) => offset);
  expect(yielded).toEqual([...new Set(yielded)].toSorted((a, b) => a - b));
  for (const { offset, message } of entries.filter((entry) => entry.offset < next)) {
    expect(`${message.clientId} ${Buffer.from(message.payload).toString()}`).toBe(original.get(offset));
  }
  const there = new Set<number>(yielded);
  const gone = Array.from({ length: next }, (_, offset) => offset).filter((offset) => !there.has(offset));
  // The start may tell less than the readers, of the middle of old segments, but nothing else than what is gone.
  const told = toOffsets([...report.lost, ...lost]);
  expect(toText([...toOffsets(report.lost)].filter((offset) => there.has(offset)))).toBe("");
  // A consumer that wants what lies before the beginning tells that itself, as trimmed.
  const before = toOffsets([{ from: 0, to: verification.firstOffset }]);
  expect(toText(new Set([...before, ...told]))).toBe(toText(gone));
  expect(toText(toOffsets(verification.lost))).toBe(toText(told));
  expect([verification.end, verification.records]).toEqual([next, yielded.length - 2]);
  // What still stands in a file that counts is not gone.
  expect(toText([...left].filter((offset) => !there.has(offset)))).toBe("");
}

test("a mutated journal opens and tells exactly what is gone, or is refused", { timeout: 900_000 }, async ({ dir }) => {
  const counts = { whole: 0, lost: 0, aside: 0, refused: 0 };
  const each = join(dir, "each");
  for (const [name, runs, commits, share] of [["large", 3, 7, 0.8] as const, ["small", 1, 3, 0.2] as const]) {
    const origin = join(dir, name);
    const records = await write(origin, runs, commits);
    const seed = toFrameSeed(recover(origin).id);
    const original = new Map(Array.from({ length: records }, (_, index) => [index, `d${index} {"seq":${index}}`]));
    const anyMutations = fc.array(anyMutation(filesOf(origin)), { minLength: 1, maxLength: 3 });
    const check = (applied: readonly Mutation[]): void => {
      cpSync(origin, each, { recursive: true });
      using _removing = { [Symbol.dispose]: () => rmSync(each, { recursive: true }) };
      for (const mutation of applied) mutate(each, mutation);
      const left = survivors(each, seed);
      const harness = start(each);
      if (harness === undefined) {
        counts.refused += 1;
        return;
      }
      const { store, recovered, verification } = harness;
      const { aside, lost } = recovered.report;
      // A frame that was copied behind others does not count, nor does a file without a place.
      const isOutOfPlace = aside.length > 0 || applied.some((one) => one.kind === "append" && one.copy);
      checkStart(harness, { original, left: isOutOfPlace ? new Set() : left, verification });
      // The head alone knows the end.
      const known = applied.some(({ file }) => file === headName) ? recovered.next : records;
      expect(recovered.next).toBe(known);
      store.close();
      counts[aside.length > 0 ? "aside" : lost.length > 0 ? "lost" : "whole"] += 1;
    };
    fc.assert(fc.property(anyMutations, check), { numRuns: mutations * share });
  }
  expect(Math.min(...Object.values(counts))).toBeGreaterThan(0);
  console.log(`${mutations} mutated journals: ${JSON.stringify(counts)}`);
});
