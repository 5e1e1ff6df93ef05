// What live subscribers are sent, against the parser that clients use: the same message, whatever it holds.

import { Buffer } from "node:buffer";
import * as fc from "fast-check";
import { generate, type Packet, parser as createParser } from "mqtt-packet";
import { expect, test } from "vitest";
import type { ProtocolVersion } from "../../src/broker/frames.ts";
import { FrameSplitter } from "../../src/broker/frames.ts";
import { encodeTopic, LivePacket, Shapes } from "../../src/broker/live-packet.ts";
import { decodeProperties, encodeProperties, withoutTopicAlias } from "../../src/broker/live-properties.ts";
import { checkPublish, PublishView } from "../../src/broker/packet-check.ts";

type Publish = Extract<Packet, { cmd: "publish" }>;

const text = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 200 })
  .filter((value) => !/[+#\0]/.test(value) && value.isWellFormed());
const userProperties = fc.dictionary(
  text.filter((name) => !(name in {})),
  fc.oneof(text, fc.array(text, { minLength: 2, maxLength: 3 })),
  { minKeys: 1, maxKeys: 4 },
);
const properties = fc.record(
  {
    payloadFormatIndicator: fc.boolean(),
    messageExpiryInterval: fc.nat({ max: 0xffff_ffff }),
    contentType: text,
    responseTopic: text,
    correlationData: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    userProperties,
  },
  { requiredKeys: [] },
);
const message = fc.record({
  topic: text,
  payload: fc.uint8Array({ maxLength: 40_000 }).map((bytes) => Buffer.from(bytes)),
  qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
  retain: fc.boolean(),
  properties,
});
const identifiers = fc.array(fc.integer({ min: 1, max: 268_435_455 }), { maxLength: 4 });

function parse(bytes: Buffer, protocolVersion: number): Publish {
  const packets: Packet[] = [];
  const parser = createParser({ protocolVersion });
  parser.on("packet", (packet) => packets.push(packet));
  parser.on("error", (error) => {
    throw error;
  });
  expect(parser.parse(bytes)).toBe(0);
  expect(packets).toHaveLength(1);
  return packets[0] as Publish;
}

const plain = (given: Publish["properties"]): object => {
  const { topicAlias: _alias, ...rest } = { ...given };
  return JSON.parse(JSON.stringify(rest)) as object;
};

test("a message means the same to every subscriber, in its version and with its identifiers", () => {
  const shapes = new Shapes();
  const packet = new LivePacket();
  fc.assert(
    fc.property(
      message,
      fc.nat({ max: 65_535 }),
      fc.array(
        fc.record({ version: fc.constantFrom(3 as const, 4 as const, 5 as const), identifiers, retain: fc.boolean() }),
        { minLength: 1, maxLength: 5 },
      ),
      ({ topic, payload, properties: given }, alias, subscribers) => {
        const source = generate(
          {
            cmd: "publish",
            topic,
            payload,
            qos: 0,
            retain: false,
            dup: false,
            properties: { ...given, ...(alias > 0 && { topicAlias: alias }) },
          },
          { protocolVersion: 5 },
        );
        const view = viewOf(source);
        packet.topic = encodeTopic(topic);
        packet.payload = source;
        packet.payloadStart = view.payloadStart;
        packet.payloadEnd = view.payloadEnd;
        packet.properties = view.topicAlias === 0 ? source : withoutTopicAlias(source, view);
        packet.propertiesStart = view.topicAlias === 0 ? view.propertiesStart : 0;
        packet.propertiesEnd = view.topicAlias === 0 ? view.propertiesEnd : packet.properties.length;
        packet.begin();
        const encoded = subscribers.map((subscriber) => {
          const shape = shapes.of(subscriber.version, subscriber.retain, subscriber.identifiers);
          expect(packet.encode(shape)).toBe(true);
          return { subscriber, bytes: shape.bytes, start: shape.start, end: shape.end };
        });
        // All are looked at when all are written: none may lie in another's place.
        for (const { subscriber, bytes, start, end } of encoded) {
          const got = parse(bytes.subarray(start, end), subscriber.version);
          expect(got).toMatchObject({ topic, qos: 0, retain: subscriber.retain, dup: false });
          expect(payload.equals(got.payload as Buffer)).toBe(true);
          if (subscriber.version !== 5) continue;
          const { subscriptionIdentifier, ...rest } = { ...got.properties };
          expect([subscriptionIdentifier ?? []].flat()).toEqual(subscriber.identifiers);
          expect(plain(rest)).toEqual(plain(given));
        }
      },
    ),
  );
});

test("subscribers of one shape share its bytes", () => {
  const shapes = new Shapes();
  for (const versions of [
    [3, 4],
    [5, 5],
  ] as const satisfies readonly (readonly [ProtocolVersion, ProtocolVersion])[]) {
    for (const own of [[], [7]]) expect(shapes.of(versions[0], true, own)).toBe(shapes.of(versions[1], true, own));
  }
  expect(shapes.of(4, false, [7])).toBe(shapes.of(4, false, []));
  expect(shapes.of(5, false, [7])).not.toBe(shapes.of(5, false, []));
  expect(shapes.of(5, false, [])).not.toBe(shapes.of(4, false, []));
  expect(shapes.of(5, true, [])).not.toBe(shapes.of(5, false, []));
});

test("properties are the same as bytes and as Aedes knows them, without a topic alias", () => {
  fc.assert(
    fc.property(message, fc.nat({ max: 65_535 }), ({ topic, payload, qos, retain, properties: given }, alias) => {
      const source = generate(
        {
          cmd: "publish",
          topic,
          payload,
          qos,
          retain,
          dup: false,
          ...(qos > 0 && { messageId: 9 }),
          properties: { ...given, ...(alias > 0 && { topicAlias: alias }) },
        },
        { protocolVersion: 5 },
      );
      const view = viewOf(source);
      const decoded = decodeProperties(source) ?? {};
      expect(plain(decoded)).toEqual(plain(given));
      expect(decoded).not.toHaveProperty("topicAlias");
      const bare = viewOf(
        generate(
          { cmd: "publish", topic: "t", payload: "", qos: 0, retain: false, dup: false, properties: given },
          { protocolVersion: 5 },
        ),
      );
      const without = alias > 0 ? withoutTopicAlias(source, view).length : view.propertiesEnd - view.propertiesStart;
      expect(without).toBe(bare.propertiesEnd - bare.propertiesStart);
      expect(encodeProperties(decoded)).toEqual(encodeProperties(given));
    }),
  );
});

function viewOf(source: Buffer): PublishView {
  const splitter = new FrameSplitter(1_000_000);
  splitter.push(source);
  expect(splitter.next()).toBe(true);
  const view = new PublishView();
  const limits = {
    maximumTopicLevels: 1000,
    maximumTopicBytes: 65_535,
    maximumFiltersPerSubscribe: 1,
    topicAliasMaximum: 65_535,
  };
  expect(
    checkPublish(splitter.buffer, splitter.bodyStart, splitter.end, source[0] ?? 0, 5, view, limits),
  ).toBeUndefined();
  return view;
}
