import { Buffer } from "node:buffer";
import { describe, expect, test } from "vitest";
import { FrameSplitter, reasonCode } from "../../src/broker/frames.ts";
import { bytes, packet } from "./wire.ts";

/** Takes what is whole; each packet as [packet, body]. */
function take(splitter: FrameSplitter): string[] {
  const packets: string[] = [];
  while (splitter.next()) {
    const { buffer, start, bodyStart, end } = splitter;
    packets.push(`${buffer.toString("hex", start, bodyStart)} ${buffer.toString("hex", bodyStart, end)}`.trim());
  }
  return packets;
}

const ping = Buffer.from([0xc0, 0]);

describe("FrameSplitter", () => {
  test("gives the packets of one chunk, each a view of that chunk", () => {
    const chunk = bytes(ping, packet(0x30, 0, 1, "a", "payload"), ping);
    const splitter = new FrameSplitter(1000);
    splitter.push(chunk);
    expect(splitter.next()).toBe(true);
    expect([splitter.start, splitter.bodyStart, splitter.end]).toEqual([0, 2, 2]);
    expect(splitter.next()).toBe(true);
    expect(splitter.buffer).toBe(chunk);
    expect([splitter.start, splitter.bodyStart, splitter.end]).toEqual([2, 4, 14]);
    expect(splitter.next()).toBe(true);
    expect(splitter.next()).toBe(false);
    expect(splitter.pendingBytes).toBe(0);
  });

  test("gives the same packets whatever the cuts of the stream", () => {
    const body = Buffer.alloc(20_000, "x");
    const stream = bytes(
      ping,
      packet(0x30, 0, 1, "a", body),
      ping,
      packet(0x30, 0, 1, "b", body.subarray(0, 200)),
      ping,
    );
    const whole = new FrameSplitter(30_000);
    whole.push(stream);
    const expected = take(whole);
    expect(expected).toHaveLength(5);
    for (const size of [1, 2, 3, 5, 127, 128, 129, 4096, 20_005]) {
      const splitter = new FrameSplitter(30_000);
      const packets: string[] = [];
      for (let at = 0; at < stream.length; at += size) {
        splitter.push(stream.subarray(at, at + size));
        packets.push(...take(splitter));
      }
      expect(packets, `in pieces of ${size}`).toEqual(expected);
      expect(splitter.pendingBytes).toBe(0);
    }
  });

  test("goes on after a pause with what was pushed meanwhile, in order", () => {
    const splitter = new FrameSplitter(1000);
    splitter.push(bytes(packet(0x30, "1"), packet(0x30, "2"), 0x30));
    expect(splitter.next()).toBe(true);
    splitter.push(bytes(1, "3", packet(0x30, "4")));
    expect(take(splitter)).toEqual(["3001 32", "3001 33", "3001 34"]);
    splitter.push(bytes(0x30));
    expect(take(splitter)).toEqual([]);
    splitter.push(bytes(1));
    splitter.push(bytes("5", ping));
    expect(take(splitter)).toEqual(["3001 35", "c000"]);
  });

  test("leaves the bytes of an earlier packet alone", () => {
    const splitter = new FrameSplitter(1000);
    const seen: Buffer[] = [];
    for (const piece of [bytes(0x30, 3, "a"), bytes("aa", 0x30, 3), bytes("bbb", 0x30), bytes(3, "ccc")]) {
      splitter.push(piece);
      while (splitter.next()) seen.push(splitter.buffer.subarray(splitter.bodyStart, splitter.end));
    }
    expect(seen.map(String)).toEqual(["aaa", "bbb", "ccc"]);
  });

  test("hands out a partial packet in a buffer that ends with it", () => {
    const splitter = new FrameSplitter(1000);
    const whole = packet(0x30, "abc");
    for (const byte of whole) {
      expect(splitter.next()).toBe(false);
      splitter.push(Buffer.from([byte]));
    }
    expect(splitter.next()).toBe(true);
    expect(splitter.buffer).toEqual(whole);
    expect(splitter.end).toBe(5);
  });

  test("refuses a packet that is too large as soon as its header says so", () => {
    const splitter = new FrameSplitter(100);
    splitter.push(bytes(packet(0x30, Buffer.alloc(98)), 0x30));
    expect(take(splitter)).toHaveLength(1);
    splitter.push(bytes(99));
    expect(take(splitter)).toEqual([]);
    expect(splitter.fault).toMatchObject({ code: reasonCode.packetTooLarge });
    expect(splitter.fault?.reason).toContain("101 bytes");
    splitter.push(Buffer.alloc(99));
    expect(take(splitter)).toEqual([]);
  });

  test("refuses a remaining length of more than four bytes", () => {
    const splitter = new FrameSplitter(1000);
    splitter.push(bytes(ping, 0x30, 0xff, 0xff, 0xff, 0xff, 0x01, ping));
    expect(take(splitter)).toEqual(["c000"]);
    expect(splitter.fault?.code).toBe(reasonCode.malformedPacket);
    splitter.push(ping);
    expect(take(splitter)).toEqual([]);
  });

  test("takes a remaining length that is longer than needed, as MQTT 3.1.1 allows", () => {
    const splitter = new FrameSplitter(1000);
    splitter.push(bytes(0xc0, 0x80, 0x80, 0x80, 0x00, 0x30, 0x81, 0x00, "x"));
    expect(take(splitter)).toEqual(["c080808000", "308100 78"]);
    expect(splitter.fault).toBeUndefined();
  });

  test("reserves no more than twice what has arrived, so that a header alone costs nothing", () => {
    const splitter = new FrameSplitter(300_000);
    splitter.push(bytes(0x30, 0x80, 0x80, 0x10)); // 262,144 bytes to come
    expect(splitter.next()).toBe(false);
    expect(splitter.pendingBytes).toBe(4);
    let sent = 4;
    while (sent < 262_148) {
      const piece = Buffer.alloc(Math.min(1000, 262_148 - sent), 7);
      splitter.push(piece);
      sent += piece.length;
      expect(splitter.next()).toBe(sent === 262_148);
    }
    expect(splitter.end - splitter.bodyStart).toBe(262_144);
  });
});
