// What is remembered of the PUBLISH before changes nothing, and what is made of its properties is what the parser behind makes.

import { Buffer } from "node:buffer";
import * as fc from "fast-check";
import mqttPacket, { type IPublishPacket, type Packet } from "mqtt-packet";
import { expect, test } from "vitest";
import { toMessageProperties } from "../../src/broker/message-properties.ts";
import { checkPublish, PublishView, propertiesOf } from "../../src/broker/packet-check.ts";
import { isPrototypeName } from "../../src/broker/packet-reader.ts";
import { inFull } from "../../src/broker/topic-aliases.ts";
import { bodyStartOf } from "./wire.ts";

const limits = {
  maximumTopicLevels: 64,
  maximumTopicBytes: 1024,
  maximumFiltersPerSubscribe: 100,
  topicAliasMaximum: 16,
};

const text = fc.string({ unit: "grapheme", maxLength: 12 }).filter((value) => !value.includes("\0"));
const topic = fc.stringMatching(/^[a-z/é]{1,12}$/);
const given = {
  payloadFormatIndicator: fc.boolean(),
  messageExpiryInterval: fc.nat({ max: 0xffff_ffff }),
  contentType: fc.oneof(text, fc.constant("x".repeat(600))),
  responseTopic: topic,
  correlationData: fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes)),
  userProperties: fc.dictionary(
    text.filter((name) => !isPrototypeName(name)),
    fc.oneof(text, fc.array(text, { minLength: 2, maxLength: 3 })),
    { noNullPrototype: true, minKeys: 1, maxKeys: 3 },
  ),
};
const withAlias = { ...given, topicAlias: fc.integer({ min: 1, max: 16 }) };

const publish = (properties: typeof given | typeof withAlias): fc.Arbitrary<IPublishPacket> =>
  fc.record({
    cmd: fc.constant("publish"),
    messageId: fc.constant(7),
    dup: fc.constant(false),
    retain: fc.constant(false),
    topic,
    payload: text,
    qos: fc.constantFrom(0, 1, 2),
    properties: fc.record(properties, { requiredKeys: [] }),
  });

const generate = (packet: Packet): Buffer => mqttPacket.generate(packet, { protocolVersion: 5 });

function parse(whole: Buffer): IPublishPacket {
  const packets: Packet[] = [];
  const parser = mqttPacket.parser({ protocolVersion: 5 });
  parser.on("packet", (packet) => packets.push(packet));
  expect(parser.parse(Buffer.from(whole))).toBe(0);
  expect(packets).toHaveLength(1);
  return packets[0] as IPublishPacket;
}

function check(whole: Buffer, view: PublishView): unknown {
  const fault = checkPublish(whole, bodyStartOf(whole), whole.length, whole[0] ?? 0, 5, view, limits);
  if (fault !== undefined) return fault;
  const { memory: _, ...places } = view;
  return { ...places, properties: propertiesOf(whole, view) };
}

test("a view that remembers finds the same in a packet as a new one", () => {
  const packets = fc.array(publish(withAlias), { minLength: 1, maxLength: 3 });
  // Few different ones, many times, each perhaps with one byte changed.
  const sequence = fc.array(
    fc.record({ which: fc.nat(), damage: fc.option(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { freq: 2 }) }),
    { minLength: 2, maxLength: 12 },
  );
  fc.assert(
    fc.property(packets, sequence, (list, steps) => {
      const remembering = new PublishView();
      for (const { which, damage } of steps) {
        const whole = generate(list[which % list.length] as Packet);
        const bodyStart = bodyStartOf(whole);
        if (damage !== null) whole[bodyStart + (damage[0] % (whole.length - bodyStart))] = damage[1];
        expect(check(whole, remembering)).toEqual(check(whole, new PublishView()));
      }
    }),
    { numRuns: 1000 },
  );
});

test("properties are what the parser behind reads", () => {
  fc.assert(
    fc.property(publish(given), (packet) => {
      const whole = generate(packet);
      expect(check(whole, new PublishView())).toMatchObject({ payloadEnd: whole.length });
      const view = new PublishView();
      check(whole, view);
      const { user, ...read } = propertiesOf(whole, view) ?? {};
      const { user: _, ...parsed } = toMessageProperties(parse(whole).properties) ?? {};
      expect(read).toEqual(parsed);
      // Of user properties without name and value the parser loses some.
      expect(user).toEqual(toMessageProperties(packet.properties)?.user);
    }),
    { numRuns: 1000 },
  );
});

test("a packet without its alias is the same packet with its topic", () => {
  fc.assert(
    fc.property(publish(withAlias), fc.integer({ min: 1, max: 16 }), fc.boolean(), (packet, alias, isEmpty) => {
      const whole = generate({
        ...packet,
        topic: isEmpty ? "" : packet.topic,
        properties: { ...packet.properties, topicAlias: alias },
      });
      const view = new PublishView();
      expect(check(whole, view)).toMatchObject({ topicAlias: alias });
      const stripped = inFull(whole, 0, view, Buffer.from(packet.topic));
      const { topicAlias: _, ...others } = packet.properties ?? {};
      expect(parse(stripped)).toEqual(parse(generate({ ...packet, properties: others })));
    }),
    { numRuns: 1000 },
  );
});
