import { Buffer } from "node:buffer";
import { describe, expect, test } from "vitest";
import { type Fault, type ProtocolVersion, defaultWireLimits } from "../../src/broker/frames.ts";
import { PublishView, checkPacket, checkPublish, topicOf } from "../../src/broker/packet-check.ts";
import { isPrototypeName } from "../../src/broker/packet-reader.ts";
import { type Part, bodyStartOf, bytes, counted, packet, properties, surroundings, u16, u32 } from "./wire.ts";

const limits = { ...defaultWireLimits, topicAliasMaximum: 10 };

/** The answer for a packet, which must be the same when other bytes stand around it. */
function check(whole: Buffer, version: ProtocolVersion, sessionExpiryS?: number): Fault | undefined {
  const bodyStart = bodyStartOf(whole);
  const fault = checkPacket(whole, 0, bodyStart, whole.length, version, limits, sessionExpiryS);
  for (const around of surroundings) {
    const buffer = bytes(around, whole, around);
    const start = around.length;
    const end = start + whole.length;
    expect(checkPacket(buffer, start, start + bodyStart, end, version, limits, sessionExpiryS)).toEqual(fault);
  }
  return fault;
}

type Row = [sentence: string, whole: Buffer, version: ProtocolVersion];
type Refused = [sentence: string, whole: Buffer, version: ProtocolVersion, code: number];

const takes = (rows: readonly Row[]): void =>
  test.for(rows)("takes %s", ([, whole, version]) => {
    expect(check(whole, version)).toBeUndefined();
  });

const refuses = (rows: readonly Refused[]): void =>
  test.for(rows)("refuses %s", ([, whole, version, code]) => {
    expect(check(whole, version)).toMatchObject({ code });
  });

const none = properties();
const publish = (first: number, topic: Part, ...tail: readonly Part[]): Buffer =>
  packet(first, counted(topic), ...tail);
const subscribe = (...filters: readonly Part[]): Buffer => packet(0x82, u16(1), ...filters);

describe("PUBLISH", () => {
  const with5 = (...parts: readonly Part[]): Buffer => publish(0x30, "t", properties(...parts), "payload");

  test("is taken apart into a view that is used again", () => {
    const view = new PublishView();
    const first = publish(0x3d, "a/é", u16(0x1234), properties(0x23, u16(3), 0x02, u32(1)), "payload");
    expect(checkPublish(first, bodyStartOf(first), first.length, 0x3d, 5, view, limits)).toBeUndefined();
    expect(view).toMatchObject({
      qos: 2,
      retain: true,
      dup: true,
      packetId: 0x1234,
      topicAlias: 3,
      topicIsAscii: false,
    });
    expect(topicOf(first, view)).toBe("a/é");
    expect(first.toString("utf8", view.payloadStart, view.payloadEnd)).toBe("payload");
    expect(first.toString("hex", view.propertiesStart, view.propertiesEnd)).toBe("2300030200000001");

    const second = publish(0x30, "b", "x");
    expect(checkPublish(second, bodyStartOf(second), second.length, 0x30, 4, view, limits)).toBeUndefined();
    expect(view).toMatchObject({ qos: 0, retain: false, dup: false, packetId: 0, topicAlias: 0, topicIsAscii: true });
    expect(topicOf(second, view)).toBe("b");
    expect(view.payloadEnd - view.payloadStart).toBe(1);
    expect(view.propertiesStart).toBe(view.propertiesEnd);
  });

  takes([
    ["QoS 0 without a payload", publish(0x30, "t"), 4],
    ["QoS 1 in 3.1", publish(0x32, "t", u16(1), "x"), 3],
    ["a retransmission", publish(0x3a, "t", u16(1), "x"), 4],
    ["a topic of 64 levels", publish(0x30, "/".repeat(63)), 4],
    ["a topic of 1024 bytes", publish(0x30, "x".repeat(1024)), 4],
    ["a topic that is a name of Object.prototype", publish(0x30, "__proto__"), 4],
    [
      "every property",
      with5(0x01, 1, 0x02, u32(0), 0x03, counted(""), 0x08, counted("r"), 0x09, counted("c"), 0x23, u16(10)),
      5,
    ],
    ["a user property given twice", with5(0x26, counted("a"), counted(""), 0x26, counted("a"), counted("b")), 5],
    ["no topic but an alias in MQTT 5", publish(0x30, "", properties(0x23, u16(1)), "x"), 5],
  ]);

  refuses([
    ["QoS 3 [MQTT-3.3.1-4]", publish(0x36, "t", u16(1)), 4, 0x81],
    ["DUP with QoS 0 [MQTT-3.3.1-2]", publish(0x38, "t"), 4, 0x81],
    ["packet identifier 0 [MQTT-2.2.1-3]", publish(0x32, "t", u16(0)), 4, 0x82],
    ["an end within the packet identifier", publish(0x32, "t", 1), 4, 0x81],
    ["an end within the topic", packet(0x30, u16(5), "abcd"), 4, 0x81],
    ["no body", packet(0x30), 4, 0x81],
    ["one byte of a topic length", packet(0x30, 0), 4, 0x81],
    ["an empty topic in 3.1.1 [MQTT-4.7.3-1]", publish(0x30, "", "x"), 4, 0x90],
    ["an empty topic without an alias in MQTT 5 [MQTT-4.7.3-1]", publish(0x30, "", none, "x"), 5, 0x82],
    ["+ in a topic [MQTT-3.3.2-2]", publish(0x30, "a/+/b"), 4, 0x90],
    ["# in a topic [MQTT-3.3.2-2]", publish(0x30, "a#"), 4, 0x90],
    ["U+0000 in a topic [MQTT-1.5.4-2]", publish(0x30, "a\0b"), 4, 0x81],
    ["U+0000 in a topic outside ASCII [MQTT-1.5.4-2]", publish(0x30, "é\0b"), 4, 0x81],
    ["a topic that is not UTF-8 [MQTT-1.5.4-1]", publish(0x30, [0x61, 0x80]), 4, 0x81],
    ["a topic with a surrogate [MQTT-1.5.4-1]", publish(0x30, [0xed, 0xb0, 0x80]), 4, 0x81],
    ["a topic of 65 levels", publish(0x30, "/".repeat(64)), 4, 0x90],
    ["a topic of 1025 bytes", publish(0x30, "x".repeat(1025)), 4, 0x90],
    ["no properties in MQTT 5 [MQTT-2.2.2-1]", publish(0x30, "t"), 5, 0x81],
    ["properties beyond the end", publish(0x30, "t", 5, 0x01, 1), 5, 0x81],
    ["Topic Alias 0 [MQTT-3.3.2-8]", with5(0x23, u16(0)), 5, 0x94],
    ["a Topic Alias above the maximum [MQTT-3.3.2-9]", with5(0x23, u16(11)), 5, 0x94],
    ["a Topic Alias given twice", with5(0x23, u16(1), 0x23, u16(1)), 5, 0x82],
    ["a Subscription Identifier from a client [MQTT-3.3.4-6]", with5(0x0b, 1), 5, 0x81],
    ["Payload Format 2", with5(0x01, 2), 5, 0x82],
    ["Message Expiry given twice", with5(0x02, u32(1), 0x02, u32(1)), 5, 0x82],
    ["Content Type given twice, first empty", with5(0x03, counted(""), 0x03, counted("x")), 5, 0x82],
    ["Correlation Data given twice", with5(0x09, counted(""), 0x09, counted("")), 5, 0x82],
    ["Correlation Data beyond the properties' end", with5(0x09, u16(9), "x"), 5, 0x81],
    ["a Response Topic with a wildcard [MQTT-3.3.2-14]", with5(0x08, counted("a/#")), 5, 0x90],
    ["a Response Topic that is empty [MQTT-4.7.3-1]", with5(0x08, counted("")), 5, 0x90],
    ["a Content Type with U+0000 [MQTT-1.5.4-2]", with5(0x03, counted("\0")), 5, 0x81],
    ["a Reason String, which belongs in an acknowledgement", with5(0x1f, counted("x")), 5, 0x81],
    ["a user property named as one of Object.prototype", with5(0x26, counted("constructor"), counted("x")), 5, 0x83],
    ["property identifier 0", with5(0), 5, 0x81],
  ]);

  test("refuses any alias when the broker takes none", () => {
    const whole = with5(0x23, u16(1));
    const view = new PublishView();
    expect(checkPublish(whole, 2, whole.length, 0x30, 5, view, defaultWireLimits)).toMatchObject({ code: 0x94 });
  });
});

describe("SUBSCRIBE", () => {
  const one = (filter: Part, options = 0): Buffer => subscribe(counted(filter), options);
  const one5 = (filter: Part, options = 0): Buffer => subscribe(none, counted(filter), options);

  for (const filter of ["#", "+", "/", "+/+", "a/#", "a/+/b", "/+", "a//b", "$SYS/#", "é/#", "x".repeat(1024)]) {
    test(`takes the filter ${filter.slice(0, 20)}`, () => {
      expect(check(one(filter), 4)).toBeUndefined();
    });
  }

  for (const filter of [
    "",
    "#/a",
    "a#",
    "a/b#",
    "##",
    "a+",
    "+a/b",
    "a/b+/c",
    "a/#/b",
    "x".repeat(1025),
    "/".repeat(64),
  ]) {
    test(`refuses the filter "${filter.slice(0, 20)}" [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]`, () => {
      expect(check(one(filter), 4)).toMatchObject({ code: 0x8f });
    });
  }

  takes([
    ["several filters and QoS", subscribe(counted("a"), 0, counted("b"), 1, counted("a"), 2), 4],
    ["all options of MQTT 5", one5("a", 0b10_1110), 5],
    [
      "a Subscription Identifier of four bytes",
      subscribe(properties(0x0b, [0xff, 0xff, 0xff, 0x7f]), counted("a"), 0),
      5,
    ],
    ["a shared subscription", one5("$share/group/a/#"), 5],
    ["what MQTT 5 takes for a shared subscription as a plain filter in 3.1.1", one("$share/+"), 4],
  ]);

  refuses([
    ["no filter [MQTT-3.8.3-2]", subscribe(), 4, 0x82],
    ["no filter in MQTT 5 [MQTT-3.8.3-2]", subscribe(none), 5, 0x82],
    ["packet identifier 0 [MQTT-2.2.1-3]", packet(0x82, u16(0), counted("a"), 0), 4, 0x82],
    ["flags that are not 2 [MQTT-3.8.1-1]", packet(0x80, u16(1), counted("a"), 0), 4, 0x81],
    ["the DUP flag of 3.1, which the parser behind refuses", packet(0x8a, u16(1), counted("a"), 0), 3, 0x81],
    ["a filter without options", subscribe(counted("a")), 4, 0x81],
    ["QoS 3", one("a", 3), 4, 0x81],
    ["options of MQTT 5 in 3.1.1", one("a", 4), 4, 0x81],
    ["reserved options [MQTT-3.8.3-5]", one5("a", 0x40), 5, 0x81],
    ["Retain Handling 3", one5("a", 0x30), 5, 0x82],
    ["No Local with a shared subscription [MQTT-3.8.3-4]", one5("$share/group/a", 4), 5, 0x82],
    ["a share name that is empty [MQTT-4.8.2-1]", one5("$share//a"), 5, 0x8f],
    ["a share name with a wildcard [MQTT-4.8.2-2]", one5("$share/+/a"), 5, 0x8f],
    ["a shared subscription without a filter [MQTT-4.8.2-2]", one5("$share/group"), 5, 0x8f],
    ["a shared subscription with an empty filter [MQTT-4.8.2-2]", one5("$share/group/"), 5, 0x8f],
    ["a filter that is not UTF-8 [MQTT-1.5.4-1]", one([0xff]), 4, 0x81],
    ["a filter with U+0000 [MQTT-1.5.4-2]", one("a\0"), 4, 0x81],
    ["Subscription Identifier 0", subscribe(properties(0x0b, 0), counted("a"), 0), 5, 0x82],
    ["two Subscription Identifiers", subscribe(properties(0x0b, 1, 0x0b, 2), counted("a"), 0), 5, 0x82],
    [
      "a Subscription Identifier of five bytes",
      subscribe(properties(0x0b, [0x80, 0x80, 0x80, 0x80, 1]), counted("a"), 0),
      5,
      0x81,
    ],
    ["a hostile filter behind a good one", subscribe(counted("a"), 0, counted("__proto__"), 0), 4, 0x8f],
    [
      "more than 100 filters",
      subscribe(...Array.from({ length: 101 }, (_, n) => Buffer.concat([counted(`${n}`), Buffer.from([0])]))),
      4,
      0x97,
    ],
  ]);

  for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty", "valueOf", "__defineGetter__"]) {
    test(`refuses the filter ${name}, which is a name of Object.prototype`, () => {
      expect(isPrototypeName(name)).toBe(true);
      expect(check(one(name), 4)).toMatchObject({ code: 0x8f });
      expect(check(packet(0xa2, u16(1), counted(name)), 4)).toMatchObject({ code: 0x8f });
    });
  }
});

describe("UNSUBSCRIBE", () => {
  takes([
    ["several filters", packet(0xa2, u16(1), counted("a"), counted("b/#")), 4],
    ["a user property", packet(0xa2, u16(1), properties(0x26, counted("a"), counted("b")), counted("a")), 5],
  ]);
  refuses([
    ["no filter [MQTT-3.10.3-2]", packet(0xa2, u16(1)), 4, 0x82],
    ["flags that are not 2 [MQTT-3.10.1-1]", packet(0xa0, u16(1), counted("a")), 4, 0x81],
    ["packet identifier 0 [MQTT-2.2.1-3]", packet(0xa2, u16(0), counted("a")), 4, 0x82],
    ["a Subscription Identifier", packet(0xa2, u16(1), properties(0x0b, 1), counted("a")), 5, 0x81],
    ["a filter that is cut off", packet(0xa2, u16(1), u16(2), "a"), 4, 0x81],
    ["a misplaced wildcard [MQTT-4.7.1-1]", packet(0xa2, u16(1), counted("#/a")), 4, 0x8f],
  ]);
});

describe.for([
  ["PUBACK", 0x40, 0x10],
  ["PUBREC", 0x50, 0x99],
  ["PUBREL", 0x62, 0x92],
  ["PUBCOMP", 0x70, 0x92],
] as const)("%s", ([, first, code]) => {
  const reason = properties(0x1f, counted("why"), 0x26, counted("a"), counted("b"));
  takes([
    ["a packet identifier", packet(first, u16(1)), 4],
    ["a packet identifier alone in MQTT 5", packet(first, u16(1)), 5],
    ["a reason without properties", packet(first, u16(1), code), 5],
    ["a reason with properties", packet(first, u16(1), code, reason), 5],
  ]);
  refuses([
    ["packet identifier 0 [MQTT-2.2.1-3]", packet(first, u16(0)), 4, 0x82],
    ["other flags [MQTT-2.1.3-1]", packet(first ^ 2, u16(1)), 4, 0x81],
    ["no body", packet(first), 4, 0x81],
    ["a reason before MQTT 5", packet(first, u16(1), 0), 4, 0x81],
    ["a reason that is not its own", packet(first, u16(1), 0x04), 5, 0x82],
    ["bytes after its end", packet(first, u16(1), 0, 0, 0), 5, 0x81],
    [
      "a Reason String given twice",
      packet(first, u16(1), 0, properties(0x1f, counted("a"), 0x1f, counted("b"))),
      5,
      0x82,
    ],
    ["a Topic Alias", packet(first, u16(1), 0, properties(0x23, u16(1))), 5, 0x81],
  ]);
});

describe("PINGREQ", () => {
  takes([["an empty body", packet(0xc0), 4]]);
  refuses([
    ["a body", packet(0xc0, 0), 4, 0x81],
    ["flags [MQTT-2.1.3-1]", packet(0xc1), 4, 0x81],
  ]);
});

describe("DISCONNECT", () => {
  takes([
    ["an empty body", packet(0xe0), 4],
    ["an empty body in MQTT 5", packet(0xe0), 5],
    ["a reason alone", packet(0xe0, 0x04), 5],
    ["a reason and properties", packet(0xe0, 0x98, properties(0x11, u32(5), 0x1f, counted("bye"))), 5],
  ]);
  refuses([
    ["a body in 3.1", packet(0xe0, 0), 3, 0x81],
    ["a body in 3.1.1", packet(0xe0, 0), 4, 0x81],
    ["flags [MQTT-3.14.1-1]", packet(0xe2), 4, 0x81],
    ["a reason that only a server gives [MQTT-3.14.2-1]", packet(0xe0, 0x8b, none), 5, 0x82],
    ["Session Expiry given twice", packet(0xe0, 0, properties(0x11, u32(5), 0x11, u32(5))), 5, 0x82],
    ["a Server Reference", packet(0xe0, 0, properties(0x1c, counted("x"))), 5, 0x81],
    ["bytes after its end", packet(0xe0, 0, none, 0), 5, 0x81],
  ]);

  test("may not raise the Session Expiry from 0, MQTT 5 section 3.14.2.2.2", () => {
    const whole = packet(0xe0, 0, properties(0x11, u32(5)));
    expect(check(whole, 5, 0)).toMatchObject({ code: 0x82 });
    expect(check(whole, 5, 1)).toBeUndefined();
    expect(check(packet(0xe0, 0, properties(0x11, u32(0))), 5, 0)).toBeUndefined();
  });
});

describe("AUTH", () => {
  const method = [0x15, ...counted("K")];
  takes([["a reason and a method", packet(0xf0, 0x18, properties(method, 0x16, counted("data"))), 5]]);
  refuses([
    ["MQTT 3.1.1", packet(0xf0, 0x18, properties(method)), 4, 0x82],
    ["an empty body, which means Success and is for servers", packet(0xf0), 5, 0x81],
    ["a reason without properties", packet(0xf0, 0x18), 5, 0x81],
    ["a reason that only a server gives [MQTT-3.15.2-1]", packet(0xf0, 0, properties(method)), 5, 0x82],
    ["no method", packet(0xf0, 0x18, none), 5, 0x82],
    ["flags [MQTT-3.15.1-1]", packet(0xf1, 0x18, properties(method)), 5, 0x81],
  ]);
});

describe("Packets that no client may send", () => {
  refuses([
    ["type 0", packet(0x00), 4, 0x82],
    ["a second CONNECT [MQTT-3.1.0-2]", packet(0x10, counted("MQTT"), 4, 2, u16(0), counted("x")), 4, 0x82],
    ["CONNACK", packet(0x20, 0, 0), 4, 0x82],
    ["SUBACK", packet(0x90, u16(1), 0), 4, 0x82],
    ["UNSUBACK", packet(0xb0, u16(1)), 4, 0x82],
    ["PINGRESP", packet(0xd0), 4, 0x82],
  ]);
});
