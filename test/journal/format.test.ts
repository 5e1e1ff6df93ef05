// The bytes on disk, as docs/journal-format.md gives them. The journal in golden/ was written by version 1 of the format:
// it is decoded here from the page alone, read by the code, and written by it again. A change of the format needs a new
// version, and a new golden journal beside this one.

import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { describe, expect } from "vitest";
import { listCursors } from "../../src/journal/cursor.ts";
import { readHead } from "../../src/journal/head.ts";
import { encodeRejection } from "../../src/journal/record.ts";
import { createRingMemory, RingDrain, RingFiller } from "../../src/journal/ring.ts";
import { encodeSegmentHeader, stampFrame, toFrameSeed } from "../../src/journal/segment.ts";
import { type Message, toOffset } from "../../src/reading.ts";
import { test } from "./fixtures.ts";
import { openStore } from "./store-harness.ts";

const golden = join(import.meta.dirname, "golden");
const segment = readFileSync(join(golden, "0000000001.seg"));
const id = segment.toString("hex", 16, 32);

const base: Message = {
  topic: "devices/d1/telemetry",
  clientId: "d1",
  deviceId: "d1",
  receivedAt: 1_700_000_000_000,
  qos: 1,
  packetId: 0,
  payload: Buffer.from('{"seq":0}'),
};
const rejection = { reason: "no-stream", issues: [{ path: "a.b", message: "no" }] } as const;
const second: Message = {
  ...base,
  receivedAt: base.receivedAt + 7,
  topic: "a/ü",
  deviceId: "sensor-9",
  qos: 2,
  packetId: 513,
  payload: Buffer.from([0xff, 0x00, 0x01]),
};
const third: Message = { ...base, receivedAt: base.receivedAt + 70_000, qos: 0, payload: Buffer.from("x") };

/** Takes fields off the front, and knows when something is left over. */
class Bytes {
  at = 0;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  take(length: number): Buffer {
    this.at += length;
    return this.#bytes.subarray(this.at - length, this.at);
  }
  text = (length: number): string => this.take(length).toString("utf8");
  u8 = (): number => this.take(1).readUInt8();
  u16 = (): number => this.take(2).readUInt16LE();
  u32 = (): number => this.take(4).readUInt32LE();
  u64 = (): number => Number(this.take(8).readBigUInt64LE());
  f64 = (): number => this.take(8).readDoubleLE();
  zeros = (to: number): boolean => this.take(to - this.at).every((byte) => byte === 0);
}

describe("the golden journal, decoded from the page,", () => {
  test("has a segment header", () => {
    const bytes = new Bytes(segment);
    expect([bytes.text(8), bytes.u16(), bytes.u16(), bytes.u32()]).toEqual(["SLUICEJ1", 1, 88, 1]);
    bytes.take(16);
    expect([bytes.f64() > 1_700_000_000_000, bytes.u64(), bytes.u32(), bytes.u16()]).toEqual([true, 0, 1, 2]);
    expect(bytes.zeros(60)).toBe(true);
    expect(bytes.u32()).toBe(crc32(segment.subarray(64, 88), crc32(segment.subarray(0, 60))));
    expect([bytes.text(bytes.u16()), bytes.text(bytes.u16()), bytes.zeros(88)]).toEqual(["climate", "wärme", true]);
  });

  test("has two frames with three records, and nothing else", () => {
    const bytes = new Bytes(segment);
    bytes.take(88);
    const seed = crc32(segment.subarray(16, 32));
    const json = '{"reason":"no-stream","issues":[{"path":"a.b","message":"no"}]}';
    const inFirst = [
      [47, 0, 1, 0, 2, 20, 0, 0, "d1", "devices/d1/telemetry", [], '{"seq":0}'],
      [35, 7, 0b1010, 0, 2, 4, 1, 513, "d1", "a/ü", ["sensor-9"], "\u{fffd}\0\u{1}"],
    ];
    const inSecond = [[106, 0, 0b10100, 0, 2, 20, 0xffff, 0, "d1", "devices/d1/telemetry", [json], "x"]];
    for (const [count, offset, timeMs, commit, rawLength, length, records] of [
      [2, 0, base.receivedAt, 1, 130, 136, inFirst],
      [1, 2, third.receivedAt, 2, 154, 160, inSecond],
    ] as const) {
      const start = bytes.at;
      expect([bytes.text(4), bytes.u32()]).toEqual(["SLFR", length]);
      expect(bytes.u32()).toBe(crc32(segment.subarray(start + 12, start + length), seed));
      expect([bytes.u32(), bytes.u64(), bytes.f64(), bytes.u32(), bytes.u32()]).toEqual([
        count,
        offset,
        timeMs,
        1,
        commit,
      ]);
      expect([bytes.u16(), bytes.u16(), bytes.u32()]).toEqual([1, 1, rawLength]);
      expect(Array.from({ length: count }, () => record(bytes))).toEqual(records);
      expect(bytes.zeros(start + length)).toBe(true);
    }
    expect(bytes.at).toBe(segment.length);
  });

  test("has a head and a cursor of two slots", () => {
    const files = [
      ["head", "SLUICEH1", [3, 2], 1],
      ["cursors/sqlite.cursor", "SLUICEC1", [0, 2], 0],
    ] as const;
    for (const [name, magic, offsets, isHead] of files) {
      const whole = readFileSync(join(golden, name));
      for (const [index, offset] of offsets.entries()) {
        const slot = whole.subarray(index * 512, index * 512 + 512);
        const bytes = new Bytes(slot);
        expect([bytes.text(8), bytes.u16(), bytes.zeros(16)]).toEqual([magic, 1, true]);
        expect([bytes.u64() % 2, bytes.u64(), bytes.f64() > 0]).toEqual([index, offset, true]);
        expect([bytes.take(16).toString("hex"), bytes.u64(), bytes.u32(), bytes.u32()]).toEqual([
          id,
          0,
          isHead,
          isHead,
        ]);
        expect([bytes.zeros(508), bytes.u32()]).toEqual([true, crc32(slot.subarray(0, 508))]);
      }
    }
  });
});

/** Every field of a record; device id and rejection in a list, when they are there. */
function record(bytes: Bytes): readonly unknown[] {
  const start = bytes.at;
  const length = bytes.u32();
  const fields = [
    length,
    bytes.u16(),
    bytes.u8(),
    bytes.u8(),
    bytes.u16(),
    bytes.u16(),
    bytes.u16(),
    bytes.u16(),
  ] as const;
  const [, , flags, , clientId, topic] = fields;
  const names = [bytes.text(clientId), bytes.text(topic)];
  const more: string[] = [];
  if ((flags & 8) !== 0) more.push(bytes.text(bytes.u16()));
  if ((flags & 16) !== 0) more.push(bytes.text(bytes.u32()));
  return [...fields, ...names, more, bytes.text(start + length - bytes.at)];
}

test("the golden journal is read as it was written", ({ dir }) => {
  cpSync(golden, dir, { recursive: true });
  expect(readHead(dir).slot).toMatchObject({ offset: 3, first: 0, segment: 1, epoch: 1, journalId: id });
  expect(listCursors(join(dir, "cursors"), id)).toMatchObject([{ name: "sqlite", position: 2, damage: undefined }]);
  const { recovered, readAll } = openStore(dir);
  expect([recovered.next, recovered.report.lost, recovered.report.notes]).toEqual([3, [], []]);
  expect(readAll().entries).toEqual([
    { offset: 0, kind: "accepted", stream: "climate", message: base },
    { offset: 1, kind: "accepted", stream: "wärme", message: second },
    { offset: 2, kind: "rejected", stream: "", message: third, rejection },
  ]);
});

test("what is written is the golden journal", () => {
  const header = { number: 1, journalId: id, createdMs: segment.readDoubleLE(32), baseOffset: toOffset(0), epoch: 1 };
  expect(encodeSegmentHeader({ ...header, streams: ["climate", "wärme"] })).toEqual(segment.subarray(0, 88));
  const memory = createRingMemory();
  const filler = new RingFiller(memory, toOffset(0));
  const rejected = encodeRejection(rejection);
  for (const [offset, { message, stream, refusal }] of [
    { message: base, stream: 0, refusal: undefined },
    { message: second, stream: 1, refusal: undefined },
    { message: third, stream: 0xffff, refusal: rejected },
  ].entries()) {
    filler.fill(message, toOffset(offset), stream, refusal);
  }
  filler.submit(toOffset(3));
  const frames = new RingDrain(memory).take();
  for (const [index, frame] of frames.entries()) {
    stampFrame(frame, { epoch: 1, commit: index + 1, lastOfCommit: true }, toFrameSeed(id));
  }
  expect(Buffer.concat(frames)).toEqual(segment.subarray(88));
});
