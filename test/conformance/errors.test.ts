// Handling of errors: MQTT 5 section 4.13, 3.1.1 section 4.8.

import { describe, expect } from "vitest";
import { publish } from "../broker/harness.ts";
import { bytes, counted, packet, properties, u16 } from "../broker/wire.ts";
import { join, test, versions } from "./clients.ts";

const none = properties();
const id = u16(1);

/** What is wrong, the packet, and what MQTT 5 says to it. */
const cases: readonly (readonly [sentence: string, whole: Buffer, code: number])[] = [
  ["PINGREQ with flags [MQTT-2.1.3-1]", bytes(0xc1, 0), 0x81],
  ["PUBREL with flags 0 [MQTT-3.6.1-1]", packet(0x60, id), 0x81],
  ["SUBSCRIBE with flags 0 [MQTT-3.8.1-1]", packet(0x80, id, none, counted("a"), 0), 0x81],
  ["UNSUBSCRIBE with flags 0 [MQTT-3.10.1-1]", packet(0xa0, id, none, counted("a")), 0x81],
  ["a packet type that is reserved", bytes(0, 0), 0x82],
  ["a packet that only a server sends", bytes(0xd0, 0), 0x82],
  ["packet identifier 0 [MQTT-2.2.1-3]", packet(0x32, counted("a"), u16(0), none), 0x82],
  ["packet identifier 0 in SUBSCRIBE [MQTT-2.2.1-3]", packet(0x82, u16(0), none, counted("a"), 0), 0x82],
  ["packet identifier 0 in UNSUBSCRIBE [MQTT-2.2.1-3]", packet(0xa2, u16(0), none, counted("a")), 0x82],
  ["QoS 3 [MQTT-3.3.1-4]", packet(0x36, counted("a"), id, none), 0x81],
  ["DUP with QoS 0 [MQTT-3.3.1-2]", packet(0x38, counted("a"), none), 0x81],
  ["text that is not UTF-8 [MQTT-1.5.4-1]", packet(0x30, counted(0xc3, 0x28), none), 0x81],
  ["text with a surrogate [MQTT-1.5.4-1]", packet(0x30, counted(0xed, 0xa0, 0x80), none), 0x81],
  ["text with U+0000 [MQTT-1.5.4-2]", packet(0x30, counted("a\0"), none), 0x81],
  ["a wildcard in a topic name [MQTT-3.3.2-2]", packet(0x30, counted("a/#"), none), 0x90],
  ["a property that does not belong there", packet(0x30, counted("a"), properties(0x11, 0, 0, 0, 1)), 0x81],
  ["a property twice", packet(0x30, counted("a"), properties(0x01, 0, 0x01, 1)), 0x82],
  [
    "a user property that is not UTF-8 [MQTT-1.5.7-1]",
    packet(0x30, counted("a"), properties(0x26, counted("k"), counted(0xff))),
    0x81,
  ],
  [
    "a response topic with a wildcard [MQTT-3.3.2-14]",
    packet(0x30, counted("a"), properties(0x08, counted("a/+"))),
    0x90,
  ],
  [
    "a response topic that is not UTF-8 [MQTT-3.3.2-13]",
    packet(0x30, counted("a"), properties(0x08, counted(0xff))),
    0x81,
  ],
  [
    "a content type that is not UTF-8 [MQTT-3.3.2-19]",
    packet(0x30, counted("a"), properties(0x03, counted(0xff))),
    0x81,
  ],
  ["a subscription identifier of 0", packet(0x82, id, properties(0x0b, 0), counted("a"), 0), 0x82],
  ["SUBSCRIBE without a filter [MQTT-3.8.3-2]", packet(0x82, id, none), 0x82],
  ["UNSUBSCRIBE without a filter [MQTT-3.10.3-2]", packet(0xa2, id, none), 0x82],
  ["a reason code that PUBACK does not have [MQTT-3.4.2-1]", packet(0x40, id, 0x92), 0x82],
  ["a reason code that PUBREC does not have [MQTT-3.5.2-1]", packet(0x50, id, 0x01), 0x82],
  ["a reason code that PUBREL does not have [MQTT-3.6.2-1]", packet(0x62, id, 0x10), 0x82],
  ["a reason code that PUBCOMP does not have [MQTT-3.7.2-1]", packet(0x70, id, 0x80), 0x82],
  ["AUTH with flags [MQTT-3.15.1-1]", packet(0xf1, 0x18, none), 0x82],
  ["a packet that ends too early", packet(0x32, counted("a")), 0x81],
  ["a packet that goes on too long", packet(0xc0, 0), 0x81],
  ["a remaining length of five bytes [MQTT-1.5.5-1]", bytes(0x30, 0xff, 0xff, 0xff, 0xff, 1), 0x81],
  ["a property length of two bytes for 0 [MQTT-1.5.5-1]", packet(0x30, counted("a"), 0x80, 0), 0x81],
  ["a packet that is too large", bytes(0x30, 0xff, 0xff, 0x7f), 0x95],
];

describe("In MQTT 5", () => {
  test.for(cases)(
    "%s is answered by DISCONNECT with its reason and the end [MQTT-4.13.1-1] [MQTT-4.13.2-1]",
    async ([, whole, reasonCode], { openHarness }) => {
      const harness = await openHarness();
      const client = await join(harness);
      client.send(whole);
      expect(await client.next("disconnect")).toMatchObject({ reasonCode });
      await client.closed;
    },
  );
});

describe("In 3.1.1", () => {
  test.for([
    ["a packet identifier of 0", packet(0x32, counted("a"), u16(0))],
    ["QoS 3", packet(0x36, counted("a"), id)],
    ["flags that are reserved", bytes(0xc1, 0)],
    ["text that is not UTF-8", packet(0x30, counted(0xc3, 0x28))],
    ["text with U+0000", packet(0x30, counted("a\0"))],
    ["SUBSCRIBE without a filter", packet(0x82, id)],
    ["SUBSCRIBE with QoS 3", packet(0x82, id, counted("a"), 3)],
    ["SUBSCRIBE with reserved bits", packet(0x82, id, counted("a"), 4)],
    ["UNSUBSCRIBE without a filter", packet(0xa2, id)],
    ["AUTH, which it does not have", packet(0xf0, 0x18, none)],
  ] as const)("%s ends the connection without an answer", async ([, whole], { openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: 4 });
    client.send(whole);
    await client.closed;
    expect(client.packets.map(({ cmd }) => cmd)).toEqual(["connack"]);
    expect(await harness.nextEnd()).toBe("protocol");
  });
});

test.for(versions)(
  "An error of one client is nothing to the others in version %s",
  async (version, { openHarness }) => {
    const harness = await openHarness();
    const healthy = await join(harness, { clientId: "healthy", protocolVersion: version });
    const faulty = await join(harness, { clientId: "faulty", protocolVersion: version });
    faulty.send(bytes(0xc1, 0));
    await faulty.closed;
    healthy.send(publish({ messageId: 1 }));
    await healthy.next("puback");
  },
);
