import { closeSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect } from "vitest";
import { FrameFile, type Scanned } from "../../src/journal/frame-file.ts";
import {
  closeFrame,
  closedLength,
  frameHeaderBytes,
  stampFrame,
  toFrameSeed,
  type Frame,
} from "../../src/journal/segment.ts";
import { toOffset } from "../../src/reading.ts";
import { test } from "./fixtures.ts";

const seed = toFrameSeed("00112233445566778899aabbccddeeff");

/** A frame of one record whose bytes are `payload`. */
function toFrame(payload: Buffer, baseOffset: number, frameSeed = seed): Buffer {
  const rawLength = frameHeaderBytes + payload.length;
  const bytes = Buffer.alloc(rawLength + 8);
  payload.copy(bytes, frameHeaderBytes);
  closeFrame(bytes, { rawLength, count: 1, baseOffset: toOffset(baseOffset), baseTimeMs: 0 });
  stampFrame(bytes, { epoch: 1, commit: 1, lastOfCommit: true }, frameSeed);
  return bytes.subarray(0, closedLength(bytes));
}

function read<T>(dir: string, bytes: Buffer, use: (file: FrameFile) => T, searchBytes?: number): T {
  const path = join(dir, "frames");
  writeFileSync(path, bytes);
  const fd = openSync(path, "r");
  try {
    return use(new FrameFile(fd, bytes.length, seed, searchBytes));
  } finally {
    closeSync(fd);
  }
}

describe("a frame", () => {
  test("is found behind garbage, but not when its offsets lie below what was read", ({ dir }) => {
    const bytes = Buffer.concat([Buffer.alloc(64, 0x53), toFrame(Buffer.alloc(9), 10), toFrame(Buffer.alloc(9), 20)]);
    const find = (lowest: number): number | undefined => read(dir, bytes, (file) => file.find(8, lowest)?.at);
    expect([find(0), find(11), find(21)]).toEqual([64, 128, undefined]);
  });

  test("inside a payload is not found: a device does not know the journal's seed", ({ dir }) => {
    const outer = toFrame(toFrame(Buffer.from("hostile"), 0, 0), 0);
    expect(read(dir, outer, (file) => file.find(8, 0))).toBeUndefined();
    const known = toFrame(toFrame(Buffer.from("hostile"), 0), 0);
    expect(read(dir, known, (file) => file.find(8, 0)?.at)).toBe(48);
  });

  test("at the end of a file is known by what it ends with, also behind garbage and void frames", ({ dir }) => {
    const frames = [100, 30_000, 400_000, 90].map((length, index) => toFrame(Buffer.alloc(length, 1), index));
    const bytes = Buffer.concat([...frames, Buffer.from("SLFR, but none"), Buffer.alloc(2)]);
    const ends = (end: number): boolean => read(dir, bytes, (file) => file.endsWith(toOffset(end)));
    expect([ends(4), ends(3), ends(5)]).toEqual([true, true, false]);
  });
});

const frameLike = (baseOffset: number): Frame => expect.objectContaining({ baseOffset, count: 1 });

describe("a scan", () => {
  const part = fc.oneof(
    fc.record({ kind: fc.constant("frame" as const), length: fc.integer({ min: 1, max: 400 }) }),
    fc.record({
      kind: fc.constant("garbage" as const),
      words: fc.array(fc.constantFrom("\0\0\0\0\0\0\0\0", "SLFR\0\0\0\0", "xxxxSLFR", "SLFRSLFR"), {
        minLength: 1,
        maxLength: 30,
      }),
    }),
    // A copy of an earlier frame.
    fc.record({ kind: fc.constant("old" as const) }),
  );

  test("gives frames and exact damage, in order and without gaps, through a window of any size", ({ dir }) => {
    fc.assert(
      fc.property(
        fc.array(part, { maxLength: 20 }),
        fc.integer({ min: 48, max: 1500 }),
        fc.nat(7),
        (parts, window, more) => {
          const expected: Scanned[] = [];
          const pieces: Buffer[] = [];
          let at = 0;
          let offset = 5;
          const damage = (to: number): void => {
            const last = expected.at(-1);
            if (last?.kind === "damaged") expected[expected.length - 1] = { ...last, to };
            else if (to > at) expected.push({ kind: "damaged", at, to });
          };
          for (const one of [...parts, undefined]) {
            let piece: Buffer = Buffer.alloc(more, 1);
            if (one?.kind === "frame") {
              piece = toFrame(Buffer.alloc(one.length, 7), offset);
              expected.push({ kind: "frame", at, frame: frameLike(offset) });
              offset += 1;
            } else {
              if (one !== undefined)
                piece = one.kind === "old" ? toFrame(Buffer.from("old"), 4) : Buffer.from(one.words.join(""));
              damage(at + piece.length);
            }
            pieces.push(piece);
            at += piece.length;
          }
          expect(read(dir, Buffer.concat(pieces), (file) => [...file.scan(0, 5)], window)).toEqual(expected);
        },
      ),
      { numRuns: 500 },
    );
  });
});
