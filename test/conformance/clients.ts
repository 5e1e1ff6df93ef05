// What the conformance tests share: clients on bare sockets that are connected, subscribed and read to the end.

import type { Packet } from "mqtt-packet";
import { type Harness, publish, type RawClient, test as base } from "../broker/harness.ts";

export { base as test };

export type Of<Command extends Packet["cmd"]> = Extract<Packet, { cmd: Command }>;
type Publish = Of<"publish">;
type Subscription = Of<"subscribe">["subscriptions"][number];

/** The versions that differ on the wire; 3.1 is 3.1.1 with another name, and has tests of its own where it is not. */
export const versions = [4, 5] as const;

/** A connected client; the journal commits at once. */
export async function join(harness: Harness, connect: Partial<Of<"connect">> = {}): Promise<RawClient> {
  harness.autoCommit = true;
  const client = await harness.open();
  await client.connect({ protocolVersion: 5, ...connect });
  return client;
}

/** A client of a session that outlives its connection, as either version says it. */
export const joinLasting = (
  harness: Harness,
  protocolVersion: number,
  connect: Partial<Of<"connect">> = {},
): Promise<RawClient> =>
  join(harness, {
    clientId: "lasting",
    protocolVersion: protocolVersion as 4 | 5,
    clean: false,
    ...(protocolVersion === 5 ? { properties: { sessionExpiryInterval: 1_000 } } : undefined),
    ...connect,
  });

/** The CONNACK that `join` has waited for. */
export function connackOf({ packets }: RawClient): Of<"connack"> {
  const found = packets.find((packet) => packet.cmd === "connack");
  if (found === undefined) throw new Error("there is no CONNACK");
  return found;
}

export async function leave(client: RawClient): Promise<void> {
  client.socket.destroy();
  await client.closed;
}

let messageId = 0;
const nextId = (): number => (messageId = (messageId % 60_000) + 1);

export async function subscribe(
  client: RawClient,
  subscriptions: readonly Subscription[],
  properties: NonNullable<Of<"subscribe">["properties"]> = {},
): Promise<Of<"suback">> {
  client.send({ cmd: "subscribe", messageId: nextId(), subscriptions: [...subscriptions], properties });
  const answer = await client.next("suback");
  return answer;
}

/** Publishes and, beyond QoS 0, waits for the whole handshake. */
export async function say(client: RawClient, options: Partial<Publish>): Promise<void> {
  const { qos = 1, messageId: id = nextId() } = options;
  client.send(publish({ ...options, qos, messageId: id }));
  if (qos === 1) await client.next("puback");
  if (qos !== 2) return;
  await client.next("pubrec");
  client.send({ cmd: "pubrel", messageId: id });
  await client.next("pubcomp");
}

/** Says that everything before has been delivered: its topic must be subscribed to, its QoS that of what it follows. */
export const end = (topic = "end"): Partial<Publish> => ({ topic, payload: "end" });

/** Acknowledges what a subscriber is sent until the payload "end" comes; returns what came before that. */
export async function readToEnd(client: RawClient): Promise<readonly Publish[]> {
  const messages: Publish[] = [];
  for (;;) {
    const message = await client.next("publish");
    await acknowledge(client, message);
    if (message.payload.toString() === "end") return messages;
    messages.push(message);
  }
}

export async function acknowledge(client: RawClient, { qos, messageId: id = 0 }: Publish): Promise<void> {
  if (qos === 1) client.send({ cmd: "puback", messageId: id });
  if (qos !== 2) return;
  client.send({ cmd: "pubrec", messageId: id });
  await client.next("pubrel");
  client.send({ cmd: "pubcomp", messageId: id });
}

export const textOf = ({ payload }: Publish): string => payload.toString();

/** Everything that the socket receives from now on, undecoded. */
export function recordBytes({ socket }: RawClient): () => Buffer {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks);
}
