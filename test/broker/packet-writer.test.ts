import { Buffer } from "node:buffer";
import mqttPacket from "mqtt-packet";
import { describe, expect, test } from "vitest";
import { packetType } from "../../src/broker/frames.ts";
import {
  encodeAckWithReason,
  encodeConnackRefusal,
  encodeDisconnect,
  ackBytes,
  writeAck,
} from "../../src/broker/packet-writer.ts";

/** What a client's parser makes of the bytes; exactly one packet. */
function parse(bytes: Buffer, protocolVersion: 3 | 4 | 5): Record<string, unknown> {
  const packets: unknown[] = [];
  const parser = mqttPacket.parser({ protocolVersion });
  parser.on("packet", (packet) => packets.push(packet));
  parser.on("error", (error) => {
    throw error;
  });
  expect(parser.parse(bytes)).toBe(0);
  expect(packets).toHaveLength(1);
  return { ...(packets[0] as Record<string, unknown>) };
}

const { puback, pubcomp, pubrec, pubrel } = packetType;

describe("writeAck", () => {
  test.for([
    [puback, "puback"],
    [pubrec, "pubrec"],
    [pubrel, "pubrel"],
    [pubcomp, "pubcomp"],
  ] as const)("writes type %i as a client reads it", ([type, cmd]) => {
    const buffer = Buffer.alloc(20, 0xff);
    for (const version of [3, 4, 5] as const) {
      const end = writeAck(buffer, 3, type, 0xabcd, version, 0);
      expect(end).toBe(7);
      expect(parse(buffer.subarray(3, end), version)).toMatchObject({ cmd, messageId: 0xabcd });
    }
  });

  test("says a reason in MQTT 5 only", () => {
    const buffer = Buffer.alloc(ackBytes(5, 1));
    expect(writeAck(buffer, 0, puback, 7, 4, 0x99)).toBe(4);
    expect(writeAck(buffer, 0, puback, 7, 5, 0x99)).toBe(5);
    expect(parse(buffer, 5)).toMatchObject({ cmd: "puback", messageId: 7, reasonCode: 0x99 });
  });
});

describe("encodeAckWithReason", () => {
  test("tells why", () => {
    const ack = parse(encodeAckWithReason(puback, 9, 0x99, { reason: "metrics.temp: expected number" }), 5);
    expect(ack).toMatchObject({
      messageId: 9,
      reasonCode: 0x99,
      properties: { reasonString: "metrics.temp: expected number" },
    });
  });

  test("leaves the reason out when the client takes no packet of that size [MQTT-3.4.2-2]", () => {
    const whole = encodeAckWithReason(pubrec, 9, 0x99, { reason: "reason" });
    expect(encodeAckWithReason(pubrec, 9, 0x99, { reason: "reason" }, whole.length)).toEqual(whole);
    expect(parse(encodeAckWithReason(pubrec, 9, 0x99, { reason: "reason" }, whole.length - 1), 5)).toMatchObject({
      cmd: "pubrec",
      reasonCode: 0x99,
    });
  });

  test("cuts a long reason between characters and drops what MQTT strings cannot hold [MQTT-1.5.4-2]", () => {
    const { properties } = parse(encodeAckWithReason(puback, 9, 0x99, { reason: `\0a${"é".repeat(3000)}\ud800` }), 5);
    const { reasonString } = properties as { reasonString: string };
    expect(reasonString).toMatch(/^aé+$/);
    expect(Buffer.byteLength(reasonString)).toBe(1023);
  });
});

describe("encodeDisconnect", () => {
  test("says the reason in MQTT 5", () => {
    expect(parse(encodeDisconnect(5, 0x82), 5)).toMatchObject({ cmd: "disconnect", reasonCode: 0x82 });
    const told = parse(encodeDisconnect(5, 0x82, "PUBLISH: packet identifier is 0"), 5);
    expect(told["properties"]).toEqual({ reasonString: "PUBLISH: packet identifier is 0" });
    expect(encodeDisconnect(5, 0x82, "long", 8)).toEqual(encodeDisconnect(5, 0x82));
  });

  test("is nothing before MQTT 5, where a server has no DISCONNECT", () => {
    expect(encodeDisconnect(4, 0x82)).toHaveLength(0);
    expect(encodeDisconnect(3, 0x82, "reason")).toHaveLength(0);
  });
});

describe("encodeConnackRefusal", () => {
  test("gives MQTT 5 its reason code", () => {
    expect(parse(encodeConnackRefusal(5, 0x84), 5)).toMatchObject({
      cmd: "connack",
      reasonCode: 0x84,
      sessionPresent: false,
    });
  });

  test.for([
    [0x84, 1],
    [0x85, 2],
    [0x89, 3],
    [0x86, 5],
    [0x87, 5],
  ] as const)("gives 3.1.1 for reason code %i the return code %i", ([code, returnCode]) => {
    expect(parse(encodeConnackRefusal(4, code), 4)).toMatchObject({ cmd: "connack", returnCode });
    expect(parse(encodeConnackRefusal(3, code), 3)).toMatchObject({ cmd: "connack", returnCode });
  });

  test("is nothing for a malformed CONNECT of 3.1.1, which is answered by closing [MQTT-3.1.4-1]", () => {
    expect(encodeConnackRefusal(4, 0x81)).toHaveLength(0);
  });
});
