import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NameCache } from "../../src/journal/names.ts";
import { encodeProperties } from "../../src/journal/properties.ts";
import {
  boundRecord,
  decodeRecord,
  encodeRecord,
  encodeRejection,
  maximumPacketBytes,
  maximumRecordBytes,
  maximumRejectionBytes,
  measureRecord,
  releasedFlag,
  type RecordedRejection,
  type Slot,
} from "../../src/journal/record.ts";
import {
  closeFrame,
  encodeSegmentHeader,
  frameHeaderBytes,
  maximumFrameBytes,
  noStream,
  parseFrame,
  parseSegmentHeader,
  stampFrame,
  toFrameSeed,
} from "../../src/journal/segment.ts";
import { toOffset, type Message, type MessageProperties, type QoS } from "../../src/reading.ts";
import { message } from "./fixtures.ts";

const seed = toFrameSeed("00112233445566778899aabbccddeeff");
const text = fc.string({ unit: "grapheme", maxLength: 100 });
const name = fc.oneof(fc.string({ unit: "grapheme-ascii", maxLength: 40 }), text);

/** As decoded ones are: correlation data is a Buffer, and an absent property no key. */
const anyProperties: fc.Arbitrary<MessageProperties> = fc.record(
  {
    payloadFormat: fc.constantFrom(0 as const, 1 as const),
    expiryS: fc.integer({ min: 0, max: 0xffffffff }),
    contentType: text,
    responseTopic: text,
    correlationData: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
    user: fc.array(fc.tuple(text, text), { minLength: 1, maxLength: 4 }),
  },
  { requiredKeys: [] },
);

const anyMessage: fc.Arbitrary<Message> = fc
  .record({
    topic: name,
    payload: fc.uint8Array({ maxLength: 300 }),
    clientId: name,
    deviceId: fc.option(name, { nil: undefined }),
    receivedAt: fc.integer({ min: 0, max: 0xffff }).map((delta) => 1_700_000_000_000 + delta),
    qos: fc.constantFrom<QoS>(0, 1, 2),
    packetId: fc.integer({ min: 0, max: 0xffff }),
    properties: fc.option(anyProperties, { nil: undefined }),
  })
  .map(({ deviceId, properties, ...rest }) => ({
    ...rest,
    deviceId: deviceId ?? rest.clientId,
    ...(properties === undefined ? undefined : { properties }),
  }));

const anyRejection: fc.Arbitrary<RecordedRejection | undefined> = fc.option(
  fc.record({
    reason: fc.constantFrom("invalid", "undecodable", "no-stream", "identity", "time"),
    issues: fc.array(fc.record({ path: text, message: text }), { maxLength: 5 }),
  }),
  { nil: undefined },
);

function createSlot(): Slot {
  const bytes = Buffer.alloc(maximumFrameBytes, 0xaa);
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset) };
}

const toBytes = ({ properties }: Message): Buffer | undefined =>
  properties === undefined ? undefined : encodeProperties(properties);

/** A frame of messages that come in one hour. */
function fillFrame(messages: readonly Message[], baseOffset = 0): Buffer {
  const slot = createSlot();
  let rawLength = frameHeaderBytes;
  for (const each of messages) rawLength = encodeRecord(slot, rawLength, each, 0, 0, undefined, 0, toBytes(each));
  closeFrame(slot.bytes, { rawLength, count: messages.length, baseOffset: toOffset(baseOffset), baseTimeMs: 1 });
  const frame = slot.bytes.subarray(0, slot.bytes.readUInt32LE(4));
  stampFrame(frame, { epoch: 1, commit: 2, lastOfCommit: true }, seed);
  return frame;
}

describe("a record", () => {
  test("comes back as it was written, whatever its bytes", () => {
    const slot = createSlot();
    const context = { baseTimeMs: 1_700_000_000_000, streams: ["climate", "power"], names: new NameCache() };
    fc.assert(
      fc.property(anyMessage, anyRejection, fc.constantFrom(0, 1), fc.nat(1000), (each, rejection, stream, start) => {
        const rejected = rejection && encodeRejection(rejection);
        const deltaMs = each.receivedAt - context.baseTimeMs;
        const properties = toBytes(each);
        const end = encodeRecord(slot, start, each, stream, deltaMs, rejected, 0, properties);
        expect(end - start).toBe(measureRecord(each, rejected, properties));
        expect(end - start).toBeLessThanOrEqual(boundRecord(each, rejected, properties));
        const entry = decodeRecord(slot, start, toOffset(7), context);
        expect(entry).toEqual({
          offset: 7,
          kind: rejection === undefined ? "accepted" : "rejected",
          stream: context.streams[stream],
          message: { ...each, payload: Buffer.from(each.payload) },
          ...(rejection && { rejection }),
        });
      }),
    );
  });

  test("of a release comes back as one, with client id and packet identifier", () => {
    const slot = createSlot();
    const context = { baseTimeMs: 1_700_000_000_000, streams: ["climate"], names: new NameCache() };
    const end = { ...message(1, ""), topic: "", qos: 2, packetId: 0xffff } as const;
    encodeRecord(slot, 0, end, noStream, 1, undefined, releasedFlag);
    const entry = { offset: 7, kind: "released", stream: "", message: { ...end, payload: Buffer.alloc(0) } };
    expect(decodeRecord(slot, 0, toOffset(7), context)).toEqual(entry);
  });

  test("has at most the length that a frame has room for, and a rejection beside it", () => {
    const fixed = measureRecord(message(1, ""), undefined);
    expect(measureRecord(message(1, Buffer.alloc(maximumRecordBytes - fixed)), undefined)).toBe(maximumRecordBytes);
    const tooLong = message(1, Buffer.alloc(maximumRecordBytes - fixed + 1));
    expect(() => measureRecord(tooLong, undefined)).toThrow(RangeError);
    expect(() => measureRecord({ ...message(1), clientId: "é".repeat(32_768) }, undefined)).toThrow(RangeError);
  });

  test("of a packet within maximumPacketBytes fits, however long the client and device ids are", () => {
    const [clientId, deviceId] = ["c".repeat(65_535), "d".repeat(65_535)];
    const [topic, payload] = ["devices/d/telemetry", Buffer.alloc(maximumPacketBytes - "devices/d/telemetry".length)];
    expect(measureRecord({ ...message(1), clientId, deviceId, topic, payload }, undefined)).toBe(maximumRecordBytes);
  });

  test("cuts a rejection that is too long, and it stays readable", () => {
    const anyIssue = fc.record({ path: fc.string({ unit: "binary" }), message: fc.string({ unit: "binary" }) });
    const huge = fc
      .tuple(fc.array(anyIssue, { minLength: 1, maxLength: 300 }), fc.integer({ min: 1, max: 5000 }))
      .map(([issues, times]) => issues.map(({ path, message: part }) => ({ path, message: part.repeat(times) })));
    fc.assert(
      fc.property(huge, (issues) => {
        const bytes = encodeRejection({ reason: "invalid", issues });
        expect(bytes.length).toBeLessThanOrEqual(maximumRejectionBytes);
        const { reason, issues: kept } = JSON.parse(bytes.toString()) as RecordedRejection;
        expect(reason).toBe("invalid");
        expect(kept.length).toBeGreaterThan(0);
      }),
      { numRuns: 20 },
    );
    const control = encodeRejection({
      reason: "invalid",
      issues: [{ path: "\0".repeat(1e6), message: "\0".repeat(1e6) }],
    });
    expect(control.length).toBeLessThanOrEqual(maximumRejectionBytes);
  });
});

describe("a frame", () => {
  test("is read as it was closed and stamped", () => {
    fc.assert(
      fc.property(fc.array(anyMessage, { minLength: 1, maxLength: 10 }), fc.maxSafeNat(), (messages, baseOffset) => {
        const frame = fillFrame(messages, baseOffset);
        const { length } = frame;
        expect(length % 8).toBe(0);
        const head = {
          length,
          count: messages.length,
          baseOffset,
          baseTimeMs: 1,
          epoch: 1,
          commit: 2,
          lastOfCommit: true,
        };
        expect(parseFrame(frame, 0, seed)).toMatchObject(head);
      }),
    );
  });

  test("is refused when any bit of it is wrong, cut at any byte, or of another journal", () => {
    const frame = fillFrame([message(1), message(2)]);
    for (let at = 0; at < frame.length; at += 1) {
      for (let bit = 0; bit < 8; bit += 1) {
        const flipped = Buffer.from(frame);
        flipped.writeUInt8(flipped.readUInt8(at) ^ (1 << bit), at);
        expect(parseFrame(flipped, 0, seed)).toBeUndefined();
      }
      expect(parseFrame(frame.subarray(0, at), 0, seed)).toBeUndefined();
    }
    expect(parseFrame(frame, 0, toFrameSeed("ff".repeat(16)))).toBeUndefined();
  });
});

describe("a segment header", () => {
  const anyHeader = fc.record({
    number: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
    journalId: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString("hex")),
    createdMs: fc.integer({ min: 0, max: 2 ** 45 }),
    baseOffset: fc.maxSafeNat().map(toOffset),
    epoch: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
    streams: fc.array(name, { maxLength: 20 }),
  });

  test("comes back as it was written", () => {
    fc.assert(
      fc.property(anyHeader, fc.nat(100), (header, more) => {
        const bytes = encodeSegmentHeader(header);
        const file = Buffer.concat([bytes, Buffer.alloc(more)]);
        expect(parseSegmentHeader(file)).toEqual({ kind: "header", header, length: bytes.length });
      }),
    );
  });

  test("is refused when any byte of it is wrong or missing", () => {
    const header = { number: 1, journalId: "ab".repeat(16), createdMs: 1, baseOffset: toOffset(5), epoch: 1 };
    const bytes = encodeSegmentHeader({ ...header, streams: ["climate", "power"] });
    for (let at = 0; at < bytes.length; at += 1) {
      const wrong = Buffer.from(bytes);
      wrong.writeUInt8(wrong.readUInt8(at) ^ 0x10, at);
      expect(parseSegmentHeader(wrong)).toEqual({ kind: "damaged" });
      expect(parseSegmentHeader(bytes.subarray(0, at))).toEqual({ kind: "damaged" });
    }
  });

  test("of more stream names than there is room for is a RangeError", () => {
    const streams = Array.from({ length: 1000 }, (_, index) => `${index}`.padStart(100, "x"));
    const header = { number: 1, journalId: "ab".repeat(16), createdMs: 1, baseOffset: toOffset(5), epoch: 1, streams };
    expect(() => encodeSegmentHeader(header)).toThrow(RangeError);
  });
});
