// What a client might send in a connection, valid in its version: a CONNECT, any packets, perhaps a DISCONNECT.

import { generate, type Packet } from "mqtt-packet";
import type { Random } from "./random.ts";

type Of<Command extends Packet["cmd"]> = Extract<Packet, { cmd: Command }>;
export type Version = 3 | 4 | 5;

export interface Sequence {
  readonly version: Version;
  readonly packets: readonly { readonly cmd: Packet["cmd"]; readonly bytes: Buffer }[];
  /** Stands behind the packets, if anything: the gateway may answer nothing any more that came with it. */
  readonly disconnect: Buffer | undefined;
}

/** Few, so that they are taken over and resumed, and now and then one that nobody had. */
const clientIds = ["a", "b", "c", "d", "e", "__proto__", "constructor", "ä/+#", "device-1", "device-2"] as const;
const names = ["a", "b", "", "news", "ä", "$x", "toString", "__proto__", "日本"] as const;
const packetIds = [1, 2, 3, 4, 255, 256, 65_535] as const;
const seconds = [0, 1, 2, 100, 0xff_ff_ff_ff] as const;
const qualities = [0, 1, 2] as const;
const receiptCodes = [0, 0x10, 0x80, 0x83, 0x87, 0x97, 0x99] as const;

/** Words for everything that a schema may see: a reading, one that is not valid, text, and bytes. */
function payloadOf(random: Random): Buffer {
  const seq = random.below(1_000);
  const readings = [
    JSON.stringify({ ts: Date.now(), seq, metrics: { temperature: seq / 10 } }),
    JSON.stringify({ ts: "now", seq, metrics: {} }),
    '{"ts":1',
    "",
    "x".repeat(random.below(3_000)),
  ] as const;
  return random.once(6) ? random.bytes(random.below(300)) : Buffer.from(random.pick(readings));
}

function topicOf(random: Random): string {
  if (random.once(2)) return `devices/${random.pick(clientIds).replaceAll(/[+#/]/g, "_")}/telemetry`;
  const topic = Array.from({ length: 1 + random.below(4) }, () => random.pick(names)).join("/");
  return topic === "" ? "/" : topic;
}

function filterOf(random: Random): string {
  if (random.once(8)) return random.pick(["#", "+/+", "devices/+/telemetry", "$SYS/#", "sluice/#", "$share/g/a"]);
  const levels = topicOf(random).split("/");
  if (random.once(3)) levels[random.below(levels.length)] = "+";
  if (random.once(3)) levels.push("#");
  const filter = levels.join("/");
  return ["toString", "__proto__", "constructor"].includes(filter) ? "plain" : filter;
}

/** Some of what MQTT 5 allows beside a message. */
const messageProperties = (random: Random): NonNullable<Of<"publish">["properties"]> => ({
  ...(random.once(3) ? { payloadFormatIndicator: random.once(2) } : undefined),
  ...(random.once(3) ? { messageExpiryInterval: random.pick(seconds) } : undefined),
  ...(random.once(3) ? { contentType: random.pick(names) } : undefined),
  ...(random.once(4) ? { responseTopic: "answers", correlationData: random.bytes(random.below(20)) } : undefined),
  ...(random.once(3) ? { userProperties: { a: ["1", "2"], ä: random.pick(names) } } : undefined),
});

function willOf(random: Random, version: Version): NonNullable<Of<"connect">["will"]> {
  const will = {
    topic: topicOf(random),
    payload: payloadOf(random),
    qos: random.pick(qualities),
    retain: random.once(3),
  };
  if (version !== 5) return will;
  const properties = {
    ...messageProperties(random),
    ...(random.once(2) ? { willDelayInterval: random.pick(seconds) } : undefined),
  };
  return { ...will, properties };
}

function connectOf(random: Random, version: Version): Packet {
  const clientId = random.once(4) ? `once-${random.next()}` : random.pick(clientIds);
  const properties = {
    ...(random.once(2) ? { sessionExpiryInterval: random.pick(seconds) } : undefined),
    ...(random.once(3) ? { receiveMaximum: 1 + random.below(20) } : undefined),
    ...(random.once(3) ? { maximumPacketSize: 50 + random.below(2_000) } : undefined),
    ...(random.once(3) ? { topicAliasMaximum: random.below(10) } : undefined),
    ...(random.once(3) ? { requestProblemInformation: random.once(2) } : undefined),
    ...(random.once(3) ? { requestResponseInformation: random.once(2) } : undefined),
    ...(random.once(3) ? { userProperties: { a: "b" } } : undefined),
  };
  return {
    cmd: "connect",
    protocolId: version === 3 ? "MQIsdp" : "MQTT",
    protocolVersion: version,
    clientId,
    clean: random.once(2),
    keepalive: random.pick([0, 1, 60, 65_535]),
    ...(random.once(3) ? { will: willOf(random, version) } : undefined),
    ...(random.once(4) ? { username: random.pick(names), password: random.bytes(5) } : undefined),
    ...(version === 5 ? { properties } : undefined),
  };
}

function subscriptionOf(random: Random, version: Version): Of<"subscribe">["subscriptions"][number] {
  const topic = filterOf(random);
  const options = {
    nl: !topic.startsWith("$share") && random.once(3),
    rap: random.once(3),
    rh: random.pick([0, 1, 2]),
  };
  return { topic, qos: random.pick(qualities), ...(version === 5 ? options : undefined) };
}

type Make = (random: Random, version: Version, messageId: number) => Packet;

/** One of each packet that a connected client may send. AUTH is none: the gateway takes no authentication method. */
const makers: readonly [Make, ...Make[]] = [
  (random, version, messageId) => {
    const qos = random.pick(qualities);
    const properties = version === 5 ? { properties: messageProperties(random) } : undefined;
    const common = {
      cmd: "publish",
      topic: topicOf(random),
      payload: payloadOf(random),
      retain: random.once(5),
    } as const;
    return { ...common, qos, dup: qos > 0 && random.once(5), messageId, ...properties };
  },
  (random, version, messageId) => ({
    cmd: "subscribe",
    messageId,
    subscriptions: Array.from({ length: 1 + random.below(4) }, () => subscriptionOf(random, version)),
    ...(version === 5 && random.once(3)
      ? { properties: { subscriptionIdentifier: 1 + random.below(300) } }
      : undefined),
  }),
  (random, _version, messageId) => ({
    cmd: "unsubscribe",
    messageId,
    unsubscriptions: Array.from({ length: 1 + random.below(3) }, () => filterOf(random)),
  }),
  (random, version, messageId) => ({
    cmd: "puback",
    messageId,
    ...(version === 5 ? { reasonCode: random.pick(receiptCodes) } : undefined),
  }),
  (random, version, messageId) => ({
    cmd: "pubrec",
    messageId,
    ...(version === 5 ? { reasonCode: random.pick(receiptCodes) } : undefined),
  }),
  (random, version, messageId) => ({
    cmd: "pubrel",
    messageId,
    ...(version === 5 ? { reasonCode: random.pick([0, 0x92]) } : undefined),
  }),
  (random, version, messageId) => ({
    cmd: "pubcomp",
    messageId,
    ...(version === 5 ? { reasonCode: random.pick([0, 0x92]) } : undefined),
  }),
  () => ({ cmd: "pingreq" }),
];

function disconnectOf(random: Random, version: Version): Packet {
  return version === 5 ? { cmd: "disconnect", reasonCode: random.pick([0, 4, 0x80]) } : { cmd: "disconnect" };
}

/** PINGREQ is the last packet: its PINGRESP says that everything before was taken. */
export function makeSequence(random: Random): Sequence {
  const version = random.pick([3, 4, 5, 5] as const);
  const packets = [connectOf(random, version)];
  for (let left = random.below(16); left > 0; left -= 1) {
    // PUBLISH more often than the others: it has the most ways.
    const make = random.once(3) ? makers[0] : random.pick(makers);
    packets.push(make(random, version, random.pick(packetIds)));
  }
  packets.push({ cmd: "pingreq" });
  const encode = (packet: Packet): Buffer => generate(packet, { protocolVersion: version });
  return {
    version,
    packets: packets.map((packet) => ({ cmd: packet.cmd, bytes: encode(packet) })),
    disconnect: random.once(2) ? encode(disconnectOf(random, version)) : undefined,
  };
}
