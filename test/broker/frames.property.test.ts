// The checks against the parser that stands behind them in Aedes: what passes is parsed, to one packet of the same type
// with nothing doubtful in it, and what mqtt-packet writes from valid input passes.

import { Buffer } from "node:buffer";
import * as fc from "fast-check";
import mqttPacket, { type IConnectPacket, type Packet } from "mqtt-packet";
import { describe, expect, test } from "vitest";
import { checkConnect } from "../../src/broker/connect-check.ts";
import { FrameSplitter, type ProtocolVersion, packetType } from "../../src/broker/frames.ts";
import { checkPacket } from "../../src/broker/packet-check.ts";
import { isPrototypeName } from "../../src/broker/packet-reader.ts";
import { bytes, variable } from "./wire.ts";

const limits = {
  maximumTopicLevels: 64,
  maximumTopicBytes: 1024,
  maximumFiltersPerSubscribe: 100,
  topicAliasMaximum: 65_535,
};

type Outcome =
  | { readonly kind: "accepted"; readonly whole: Buffer }
  | { readonly kind: "refused"; readonly reason: string };

/** What the connection does with bytes that should be one packet. */
function examine(stream: Buffer, version: ProtocolVersion): Outcome {
  const splitter = new FrameSplitter(300_000);
  splitter.push(stream);
  if (!splitter.next()) return { kind: "refused", reason: splitter.fault?.reason ?? "incomplete" };
  const { buffer, start, bodyStart, end } = splitter;
  const whole = buffer.subarray(start, end);
  if ((buffer[start] ?? 0) >>> 4 === packetType.connect) {
    const facts = checkConnect(buffer, start, bodyStart, end, limits);
    return facts.kind === "connect" ? { kind: "accepted", whole } : { kind: "refused", reason: facts.reason };
  }
  const fault = checkPacket(buffer, start, bodyStart, end, version, limits);
  return fault === undefined ? { kind: "accepted", whole } : { kind: "refused", reason: fault.reason };
}

function parseBehind(whole: Buffer, version: ProtocolVersion): Packet {
  const packets: Packet[] = [];
  const parser = mqttPacket.parser({ protocolVersion: version });
  parser.on("packet", (packet) => packets.push(packet));
  parser.on("error", (error) => {
    throw error;
  });
  expect(parser.parse(whole)).toBe(0);
  expect(packets).toHaveLength(1);
  return packets[0] as Packet;
}

const commandOf = (whole: Buffer): string =>
  Object.entries(packetType).find(([, type]) => type === (whole[0] ?? 0) >>> 4)?.[0] ?? "none";

/** No field is missing, NaN, -1, or a list where one value belongs. */
function expectSound(packet: object): void {
  for (const [key, value] of Object.entries(packet) as [string, unknown][]) {
    if (key === "userProperties") {
      for (const text of Object.values(value as object).flat()) expect(text).toBeTypeOf("string");
    } else if (Array.isArray(value) && (key === "subscriptions" || key === "unsubscriptions")) {
      expect(value.length).toBeGreaterThan(0);
      for (const item of value as unknown[]) {
        if (typeof item === "object" && item !== null) expectSound(item);
        else expect(item).toBeTypeOf("string");
      }
    } else if (Buffer.isBuffer(value)) continue;
    else if (key === "will" || key === "properties") expectSound(value as object);
    else if (typeof value === "number") {
      expect(Number.isInteger(value)).toBe(true);
      expect(value).toBeGreaterThanOrEqual(0);
    } else if (value !== null || (key !== "payload" && key !== "topic")) {
      // A packet object starts with payload and topic null; all else must be there.
      expect(["string", "boolean"], `${key} is ${String(value)}`).toContain(typeof value);
    }
  }
}

function expectHarmless(stream: Buffer, version: ProtocolVersion): boolean {
  const outcome = examine(stream, version);
  if (outcome.kind === "refused") return false;
  const packet = parseBehind(outcome.whole, version);
  expect(packet.cmd).toBe(commandOf(outcome.whole));
  expectSound(packet);
  return true;
}

// — What is valid —

const text = fc.string({ unit: "binary", maxLength: 12 }).map((value) => value.toWellFormed().replaceAll("\0", ""));
const level = text.map((value) => value.replaceAll(/[/+#]/g, ""));
const topic = fc
  .array(level, { minLength: 1, maxLength: 6 })
  .map((levels) => levels.join("/"))
  .filter((value) => value !== "");
const filter = fc
  .tuple(fc.array(fc.oneof(level, fc.constant("+")), { minLength: 1, maxLength: 5 }), fc.boolean())
  .map(([levels, rest]) => [...levels, ...(rest ? ["#"] : [])].join("/"))
  .filter((value) => value !== "" && !value.startsWith("$share/") && !isPrototypeName(value));
const messageId = fc.integer({ min: 1, max: 65_535 });
const uint16 = fc.integer({ min: 0, max: 65_535 });
const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const payload = fc.uint8Array({ maxLength: 40 }).map((value) => Buffer.from(value));
const qos = fc.constantFrom(0, 1, 2);
const some = { requiredKeys: [] as [] };

const userProperties = fc.dictionary(
  text.filter((name) => !isPrototypeName(name)),
  fc.oneof(text, fc.array(text, { minLength: 1, maxLength: 3 })),
  { minKeys: 1, maxKeys: 3 },
);
const messageProperties = {
  payloadFormatIndicator: fc.boolean(),
  messageExpiryInterval: uint32,
  contentType: text,
  responseTopic: topic,
  correlationData: payload,
  userProperties,
};
const reasonProperties = fc.record({ reasonString: text, userProperties }, some);

const connect = fc.constantFrom<ProtocolVersion[]>(3, 4, 5).chain((protocolVersion) =>
  fc
    .record({
      cmd: fc.constant("connect"),
      protocolId: fc.constant(protocolVersion === 3 ? "MQIsdp" : "MQTT"),
      protocolVersion: fc.constant(protocolVersion),
      clean: fc.boolean(),
      clientId: text,
      keepalive: uint16,
      username: fc.option(text, { nil: undefined }),
      password: fc.option(payload, { nil: undefined }),
      will: fc.option(
        fc.record({
          topic,
          payload,
          qos,
          retain: fc.boolean(),
          properties: fc.record({ ...messageProperties, willDelayInterval: uint32 }, some),
        }),
        { nil: undefined },
      ),
      properties: fc.record(
        {
          sessionExpiryInterval: uint32,
          receiveMaximum: messageId,
          maximumPacketSize: messageId,
          topicAliasMaximum: uint16,
          requestResponseInformation: fc.boolean(),
          requestProblemInformation: fc.boolean(),
          userProperties,
          authenticationMethod: text,
        },
        some,
      ),
    })
    .filter((packet) => packet.clientId !== "" || (protocolVersion > 3 && packet.clean))
    .filter((packet) => packet.password === undefined || packet.username !== undefined),
);

const subscription = fc.record({
  topic: filter,
  qos,
  nl: fc.boolean(),
  rap: fc.boolean(),
  rh: fc.constantFrom(0, 1, 2),
});
const publish = fc
  .record({
    cmd: fc.constant("publish"),
    topic,
    payload,
    qos,
    retain: fc.boolean(),
    dup: fc.boolean(),
    messageId,
    properties: fc.record({ ...messageProperties, topicAlias: messageId }, some),
  })
  .map((packet) => ({ ...packet, dup: packet.dup && packet.qos > 0 }));
const acknowledge = (cmds: readonly string[], codes: readonly number[]) =>
  fc.record({
    cmd: fc.constantFrom(...cmds),
    messageId,
    reasonCode: fc.constantFrom(...codes),
    properties: reasonProperties,
  });

const anyPacket = fc.oneof(
  connect,
  publish,
  fc.record({
    cmd: fc.constant("subscribe"),
    messageId,
    subscriptions: fc.array(subscription, { minLength: 1, maxLength: 4 }),
    properties: fc.record({ subscriptionIdentifier: fc.integer({ min: 1, max: 268_435_455 }), userProperties }, some),
  }),
  fc.record({
    cmd: fc.constant("unsubscribe"),
    messageId,
    unsubscriptions: fc.array(filter, { minLength: 1, maxLength: 4 }),
  }),
  acknowledge(["puback", "pubrec"], [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
  acknowledge(["pubrel", "pubcomp"], [0, 0x92]),
  fc.record({ cmd: fc.constant("pingreq") }),
  fc.record({
    cmd: fc.constant("disconnect"),
    reasonCode: fc.constantFrom(0, 4, 0x81, 0x93),
    properties: fc.record({ sessionExpiryInterval: uint32, reasonString: text, userProperties }, some),
  }),
);

const version = fc.constantFrom<ProtocolVersion[]>(3, 4, 5);

/** As MQTT.js writes it. Before MQTT 5 there are no properties, and the version of a CONNECT is its own. */
function generate(packet: object, protocolVersion: ProtocolVersion): Buffer {
  return mqttPacket.generate(packet as Packet, { protocolVersion });
}

const versionOf = (packet: object, other: ProtocolVersion): ProtocolVersion =>
  (packet as Partial<IConnectPacket>).protocolVersion ?? other;

// — Mutations —

type Edit = readonly [place: number, kind: "set" | "insert" | "remove" | "repeat", byte: number];
const edits: fc.Arbitrary<readonly Edit[]> = fc.array(
  fc.tuple(
    fc.nat({ max: 200 }),
    fc.constantFrom("set", "insert", "remove", "repeat"),
    // Bytes that mean something somewhere are likelier than chance.
    fc.oneof(
      fc.nat({ max: 255 }),
      fc.constantFrom(0, 1, 2, 0x23, 0x2b, 0x2f, 0x26, 0x0b, 0x11, 0x7f, 0x80, 0xc0, 0xed, 0xff),
    ),
  ),
  { minLength: 1, maxLength: 4 },
);

/** Edits the packet behind its fixed header (or in it) and usually writes the right length in front again. */
function mutate(whole: Buffer, list: readonly Edit[], keepLength: boolean): Buffer {
  let at = 1;
  while ((whole[at] ?? 0) >= 0x80) at++;
  const body = keepLength ? [...whole] : [whole[0] ?? 0, ...whole.subarray(at + 1)];
  for (const [place, kind, byte] of list) {
    const index = place % Math.max(1, body.length);
    if (kind === "set") body[index] = byte;
    else if (kind === "insert") body.splice(index, 0, byte);
    else if (kind === "remove") body.splice(index, 1);
    else body.splice(index, 0, ...body.slice(index, index + 8));
  }
  if (keepLength) return Buffer.from(body);
  return bytes(body[0] ?? 0, variable(Math.max(0, body.length - 1)), body.slice(1));
}

const runs = { numRuns: 2000 };

describe("Every packet that the checks accept", () => {
  test("is parsed by mqtt-packet to one sound packet, when the bytes are arbitrary", () => {
    let accepted = 0;
    fc.assert(
      fc.property(fc.nat({ max: 255 }), fc.uint8Array({ maxLength: 24 }), version, (first, body, of) => {
        if (expectHarmless(bytes(first, variable(body.length), body), of)) accepted++;
      }),
      runs,
    );
    expect(accepted).toBeGreaterThan(0);
  });

  test("is parsed by mqtt-packet to one sound packet, when valid packets are damaged", () => {
    let accepted = 0;
    fc.assert(
      fc.property(anyPacket, version, edits, fc.boolean(), (packet, other, list, keepLength) => {
        const of = versionOf(packet, other);
        if (expectHarmless(mutate(generate(packet, of), list, keepLength), of)) accepted++;
      }),
      { numRuns: 6000 },
    );
    expect(accepted).toBeGreaterThan(50);
  });
});

test("Every packet that mqtt-packet writes from valid input is accepted", () => {
  fc.assert(
    fc.property(anyPacket, version, (packet, other) => {
      const of = versionOf(packet, other);
      const whole = generate(packet, of);
      expect(examine(whole, of)).toEqual({ kind: "accepted", whole });
    }),
    runs,
  );
});

test("FrameSplitter gives the same packets whatever the chunks and pauses", () => {
  const packets = fc.array(fc.tuple(fc.nat({ max: 255 }), fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 40_000 }))), {
    minLength: 1,
    maxLength: 8,
  });
  fc.assert(
    fc.property(
      packets,
      fc.array(fc.tuple(fc.integer({ min: 1, max: 30_000 }), fc.boolean()), { minLength: 1 }),
      (list, cuts) => {
        const wholes = list.map(([first, size]) => bytes(first, variable(size), Buffer.alloc(size, first)));
        const stream = Buffer.concat(wholes);
        const splitter = new FrameSplitter(50_000);
        const seen: Buffer[] = [];
        const take = (): void => {
          while (splitter.next()) seen.push(Buffer.from(splitter.buffer.subarray(splitter.start, splitter.end)));
        };
        for (let at = 0, turn = 0; at < stream.length; turn++) {
          const [size, pause] = cuts[turn % cuts.length] as [number, boolean];
          splitter.push(stream.subarray(at, at + size));
          at += size;
          if (!pause) take();
        }
        take();
        expect(Buffer.concat(seen).equals(stream)).toBe(true);
        expect(seen).toHaveLength(wholes.length);
      },
    ),
    { numRuns: 300 },
  );
});
