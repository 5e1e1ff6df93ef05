// What is written of a message is read back by the parser that clients use.

import * as fc from "fast-check";
import { parser as createParser, type Packet } from "mqtt-packet";
import { expect, test } from "vitest";
import { encodePublish } from "../../src/broker/outgoing-message.ts";

const message = fc.record({
  topic: fc.string({ unit: "binary", minLength: 1, maxLength: 300 }),
  payload: fc.oneof(
    fc.string({ unit: "binary", maxLength: 200 }),
    fc.uint8Array({ maxLength: 20_000 }).map((bytes) => Buffer.from(bytes)),
  ),
  qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
  retain: fc.boolean(),
  properties: fc.constantFrom(undefined, { contentType: "a/b" }),
  subscriptionIds: fc.array(fc.integer({ min: 1, max: 268_435_455 }), { maxLength: 3 }),
  expiresAt: fc.constantFrom(undefined, 5_001),
});

test("a PUBLISH is read back as it was meant, in every version", () => {
  fc.assert(
    fc.property(
      message,
      fc.constantFrom(3 as const, 4 as const, 5 as const),
      fc.integer({ min: 1, max: 65_535 }),
      fc.boolean(),
      (given, version, packetId, repeated) => {
        const dup = repeated && given.qos > 0;
        const frame = encodePublish(given, version, packetId, dup, 1_000);
        const packets: Packet[] = [];
        const parser = createParser({ protocolVersion: version });
        parser.on("packet", (packet) => packets.push(packet));
        expect(parser.parse(frame)).toBe(0);
        expect(packets).toHaveLength(1);
        const { topic, qos, retain } = given;
        const hasProperties = version === 5 && (given.properties !== undefined || given.subscriptionIds.length > 0);
        const packet = packets[0] as Extract<Packet, { cmd: "publish" }>;
        const messageId = qos > 0 ? packetId : undefined;
        expect({ ...packet }).toMatchObject({ cmd: "publish", topic, qos, retain, dup });
        expect(packet.messageId).toBe(messageId);
        expect(Buffer.from(packet.payload)).toEqual(Buffer.from(given.payload as string));
        const { contentType, messageExpiryInterval, subscriptionIdentifier } = packet.properties ?? {};
        expect(contentType).toBe(hasProperties ? given.properties?.contentType : undefined);
        expect([subscriptionIdentifier ?? []].flat()).toEqual(hasProperties ? given.subscriptionIds : []);
        expect(messageExpiryInterval).toBe(hasProperties && given.expiresAt !== undefined ? 5 : undefined);
      },
    ),
  );
});
