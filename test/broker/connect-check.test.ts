import { Buffer } from "node:buffer";
import { describe, expect, test } from "vitest";
import { type ConnectCheck, checkConnect } from "../../src/broker/connect-check.ts";
import { defaultWireLimits } from "../../src/broker/frames.ts";
import { type Part, bodyStartOf, bytes, counted, packet, properties, surroundings, u16, u32 } from "./wire.ts";

/** The answer for a packet, which must be the same when other bytes stand around it. */
function check(whole: Buffer): ConnectCheck {
  const bodyStart = bodyStartOf(whole);
  const facts = checkConnect(whole, 0, bodyStart, whole.length, defaultWireLimits);
  for (const around of surroundings) {
    const buffer = bytes(around, whole, around);
    const start = around.length;
    expect(checkConnect(buffer, start, start + bodyStart, start + whole.length, defaultWireLimits)).toEqual(facts);
  }
  return facts;
}

/** CONNECT: `tail` is what follows the keep alive. */
const connect = (name: string, level: number, flags: number, ...tail: readonly Part[]): Buffer =>
  packet(0x10, counted(name), level, flags, u16(60), ...tail);
const v3 = (flags: number, ...tail: readonly Part[]): Buffer => connect("MQIsdp", 3, flags, ...tail);
const v4 = (flags: number, ...tail: readonly Part[]): Buffer => connect("MQTT", 4, flags, ...tail);
const v5 = (flags: number, ...tail: readonly Part[]): Buffer => connect("MQTT", 5, flags, ...tail);
const id = counted("device-1");
const none = properties();

describe("a CONNECT that says everything", () => {
  test("gives its facts in MQTT 5", () => {
    const connectProperties = properties(
      bytes(0x11, u32(3600), 0x21, u16(20), 0x27, u32(1000), 0x22, u16(5), 0x17, 0, 0x19, 1),
      bytes(0x26, counted("a"), counted("1"), 0x26, counted("a"), counted("2"), 0x15, counted("K"), 0x16, counted("x")),
    );
    const will = properties(
      0x18,
      u32(5),
      0x01,
      1,
      0x02,
      u32(9),
      0x03,
      counted("t"),
      0x08,
      counted("r"),
      0x09,
      counted(0),
    );
    const tail = [connectProperties, id, will, counted("w/é"), counted("gone"), counted("user"), counted(0, 0xff)];
    expect(check(v5(0b1111_0110, ...tail))).toEqual({
      kind: "connect",
      version: 5,
      bridge: false,
      clientId: "device-1",
      cleanStart: true,
      keepAliveS: 60,
      username: "user",
      hasPassword: true,
      will: { topic: "w/é", qos: 2, retain: true, payloadBytes: 4, delayS: 5 },
      sessionExpiryS: 3600,
      receiveMaximum: 20,
      maximumPacketBytes: 1000,
      topicAliasMaximum: 5,
      requestProblemInformation: false,
      authenticationMethod: "K",
    });
  });

  test("gives the defaults of MQTT 5 for what is not said", () => {
    expect(check(v5(0, none, counted("")))).toMatchObject({
      clientId: "",
      cleanStart: false,
      username: undefined,
      hasPassword: false,
      will: undefined,
      sessionExpiryS: 0,
      receiveMaximum: 65_535,
      maximumPacketBytes: undefined,
      topicAliasMaximum: 0,
      requestProblemInformation: true,
    });
    expect(check(v4(2, id))).toMatchObject({ version: 4, sessionExpiryS: undefined });
  });
});

describe("checkConnect takes", () => {
  test.for<[string, Buffer]>([
    ["3.1", v3(2, id)],
    ["3.1.1 without a client id and with Clean Session 1", v4(2, counted(""))],
    [
      "3.1.1 with user name, password and will",
      v4(0b1100_0110, id, counted("w"), counted(""), counted("u"), counted("")),
    ],
    ["MQTT 5 with a password alone", v5(0x40, none, id, counted("token"))],
    ["client ids that are names of Object.prototype", v4(2, counted("__proto__"))],
    ["a long client id outside ASCII", v5(0, none, counted("ü😀".repeat(5000)))],
    ["a byte order mark in a string [MQTT-1.5.4-3]", v4(2, counted("\uFEFFx"))],
  ])("%s", ([, whole]) => {
    expect(check(whole)).toMatchObject({ kind: "connect" });
  });

  test("a mosquitto bridge, whose level has bit 7 set", () => {
    expect(check(connect("MQIsdp", 0x83, 2, id))).toMatchObject({ kind: "connect", version: 3, bridge: true });
    expect(check(connect("MQTT", 0x84, 2, id))).toMatchObject({ kind: "connect", version: 4, bridge: true });
  });
});

const will = (topic: Part, flags = 0x06): Buffer => v4(flags, id, counted(topic), counted("gone"));

describe("checkConnect refuses", () => {
  test.for<[string, Buffer, number]>([
    ["a first packet that is no CONNECT [MQTT-3.1.0-1]", packet(0xc0), 0x82],
    ["flags in the fixed header [MQTT-2.1.3-1]", Buffer.concat([Buffer.from([0x11]), v4(2, id).subarray(1)]), 0x81],
    ["a protocol that is not MQTT [MQTT-3.1.2-1]", connect("HTTP", 4, 2, id), 0x81],
    ["level 3 by the name of 3.1.1", connect("MQTT", 3, 2, id), 0x84],
    ["level 4 by the name of 3.1", connect("MQIsdp", 4, 2, id), 0x84],
    ["a level that is not known [MQTT-3.1.2-2]", connect("MQTT", 6, 2, id), 0x84],
    ["a bridge of MQTT 5, which has no such level", connect("MQTT", 0x85, 2, none, id), 0x84],
    ["the reserved flag [MQTT-3.1.2-3]", v4(3, id), 0x81],
    ["Will QoS 3 [MQTT-3.1.2-12]", will("w", 0x1e), 0x81],
    ["Will QoS without a Will [MQTT-3.1.2-11]", v4(0x0a, id), 0x81],
    ["Will Retain without a Will [MQTT-3.1.2-13]", v4(0x22, id), 0x81],
    ["a password without a user name in 3.1.1 [MQTT-3.1.2-22]", v4(0x42, id, counted("p")), 0x81],
    ["a password without a user name in 3.1", v3(0x42, id, counted("p")), 0x81],
    ["no client id in 3.1", v3(2, counted("")), 0x85],
    ["no client id with Clean Session 0 in 3.1.1 [MQTT-3.1.3-8]", v4(0, counted("")), 0x85],
    ["a Will Topic that is empty [MQTT-4.7.3-1]", will(""), 0x90],
    ["a Will Topic with a wildcard [MQTT-4.7.0-1]", will("a/+"), 0x90],
    ["a Will Topic with U+0000 [MQTT-1.5.4-2]", will("a\0"), 0x81],
    ["a Will Topic of more than 64 levels", will("/".repeat(64)), 0x90],
    ["a Will Topic of more than 1024 bytes", will("x".repeat(1025)), 0x90],
    ["a client id that is not UTF-8 [MQTT-1.5.4-1]", v4(2, counted([0xc3, 0x28])), 0x81],
    ["a client id with a surrogate [MQTT-1.5.4-1]", v4(2, counted([0xed, 0xa0, 0x80])), 0x81],
    ["a client id in an overlong form [MQTT-1.5.4-1]", v4(2, counted([0xc0, 0xaf])), 0x81],
    ["a user name with U+0000 [MQTT-1.5.4-2]", v4(0x82, id, counted("u\0")), 0x81],
    ["a user name that is announced and missing", v4(0x82, id), 0x81],
    ["a will payload that is cut off", v4(6, id, counted("w"), u16(5), "abc"), 0x81],
    ["bytes after its end", v4(2, id, 0), 0x81],
    ["an end within the keep alive", packet(0x10, counted("MQTT"), 4, 2, 0), 0x81],
    ["no body", packet(0x10), 0x81],
  ])("%s", ([, whole, code]) => {
    expect(check(whole)).toMatchObject({ kind: "fault", code });
  });

  const withProperties = (...parts: readonly Part[]): Buffer => v5(2, properties(...parts), id);
  const withWill = (...parts: readonly Part[]): Buffer =>
    v5(6, none, id, properties(...parts), counted("w"), counted(""));
  test.for<[string, Buffer, number]>([
    ["Session Expiry Interval twice", withProperties(0x11, u32(1), 0x11, u32(1)), 0x82],
    ["Receive Maximum 0", withProperties(0x21, u16(0)), 0x82],
    ["Maximum Packet Size 0", withProperties(0x27, u32(0)), 0x82],
    ["Request Problem Information 2", withProperties(0x17, 2), 0x82],
    ["Request Response Information 2", withProperties(0x19, 2), 0x82],
    ["Authentication Data without a Method", withProperties(0x16, counted("x")), 0x82],
    ["a Topic Alias, which belongs in a PUBLISH", withProperties(0x23, u16(1)), 0x81],
    ["a Will Delay outside the Will's properties", withProperties(0x18, u32(1)), 0x81],
    ["Server Keep Alive, which only a server sends", withProperties(0x13, u16(1)), 0x81],
    ["an identifier that is not known", withProperties(0x7f), 0x81],
    ["a property that runs over the properties' end", v5(2, 3, 0x11, u32(1), id), 0x81],
    ["properties that run over the packet's end", packet(0x10, counted("MQTT"), 5, 2, u16(0), 100), 0x81],
    ["a property length that is not in its shortest form [MQTT-1.5.5-1]", v5(2, 0x80, 0, id), 0x81],
    ["a property length of five bytes", v5(2, 0x80, 0x80, 0x80, 0x80, 1, id), 0x81],
    [
      "a user property whose name is one of Object.prototype",
      withProperties(0x26, counted("__proto__"), counted("1")),
      0x83,
    ],
    ["a user property with U+0000 [MQTT-1.5.7-1]", withProperties(0x26, counted("a"), counted("\0")), 0x81],
    ["a Will's Payload Format 2", withWill(0x01, 2), 0x82],
    ["a Will's Response Topic with a wildcard [MQTT-3.3.2-14]", withWill(0x08, counted("#")), 0x90],
    ["a Will's Response Topic that is empty", withWill(0x08, counted("")), 0x90],
    ["a Will's Content Type that is not UTF-8 [MQTT-3.3.2-19]", withWill(0x03, counted([0xff])), 0x81],
    ["Session Expiry among the Will's properties", withWill(0x11, u32(1)), 0x81],
    ["a Will's delay given twice", withWill(0x18, u32(1), 0x18, u32(1)), 0x82],
  ])("in MQTT 5 %s", ([, whole, code]) => {
    expect(check(whole)).toMatchObject({ kind: "fault", code, version: 5 });
  });

  test.for<[string, Buffer, number | undefined]>([
    ["5 to a level above", connect("MQTT", 9, 2, id), 5],
    ["4 to a level below", connect("MQTT", 1, 2, id), 4],
    ["the client's own once it is known", v3(2, counted("")), 3],
    ["none to what is no CONNECT", packet(0xc0), undefined],
  ])("and names the version of the answer: %s", ([, whole, version]) => {
    const fault = check(whole);
    expect(fault.kind).toBe("fault");
    expect(fault.version).toBe(version);
  });
});
