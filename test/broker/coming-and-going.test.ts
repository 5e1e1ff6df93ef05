// Clients that leave, come back and take their own connections over while messages come: each message reaches each of them
// once, or again with DUP, and in order.

import type { Packet } from "mqtt-packet";
import { expect } from "vitest";
import { type Harness, type RawClient, test } from "./harness.ts";

const MESSAGES = 600;

/** Repeatable as far as sockets are. */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state / 2 ** 32;
  };
}

/** One client over all its connections: what it remembers of its session, and what it has been given. */
class Device {
  readonly got: string[] = [];
  readonly #open = new Map<number, string>();
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = createRandom(seed);
  }

  get isDone(): boolean {
    return this.got.length >= MESSAGES;
  }

  /** Resolves when it has had enough of this connection, and perhaps closed it. */
  async live(client: RawClient): Promise<void> {
    let at = 0;
    let left = 1 + Math.floor(this.#random() * 80);
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = (): void => {
      for (let packet = client.packets[at]; packet !== undefined && left > 0; packet = client.packets[at]) {
        at += 1;
        left -= this.#take(client, packet);
      }
      if (left <= 0 || this.isDone) resolve();
    };
    client.socket.on("data", look);
    look();
    await Promise.race([promise, client.closed]);
    client.socket.off("data", look);
    if (this.#random() < 0.5) client.socket.destroy(); // else it is taken over
  }

  /** 1 for a message, which it does not always answer. */
  #take(client: RawClient, packet: Packet): number {
    const { messageId = 0 } = packet;
    if (packet.cmd === "pubrel") {
      this.#open.delete(messageId);
      client.send({ cmd: "pubcomp", messageId });
    }
    if (packet.cmd !== "publish") return 0;
    const text = packet.payload.toString();
    const known = this.#open.get(messageId);
    if (packet.dup ? known !== undefined && known !== text : known !== undefined) this.got.push(`again: ${text}`);
    // After a DUP of what was acknowledged on a connection that was gone, it is not given on again.
    if (known === undefined && !this.got.includes(text)) this.got.push(text);
    this.#open.set(messageId, text);
    if (this.#random() < 0.05) return 1;
    if (packet.qos === 1) this.#open.delete(messageId);
    client.send({ cmd: packet.qos === 1 ? "puback" : "pubrec", messageId });
    return 1;
  }
}

async function connect(harness: Harness, clientId: string, protocolVersion: 4 | 5): Promise<RawClient> {
  const client = await harness.open();
  const properties = { sessionExpiryInterval: 100, receiveMaximum: 7 };
  await client.connect({ clientId, protocolVersion, clean: false, ...(protocolVersion === 5 && { properties }) });
  return client;
}

test.for([
  [4, 1],
  [4, 2],
  [5, 1],
  [5, 2],
] as const)("MQTT %i, QoS %i", async ([version, qos], { openHarness }) => {
  const harness = await openHarness({
    limits: { queuedMessagesPerSession: MESSAGES, queuedBytesPerSession: 1e6, queuedBytes: 1e6 },
  });
  const device = new Device(version * 10 + qos);
  const first = await connect(harness, "d", version);
  first.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "news", qos }] });
  await first.next("suback");
  const publishing = (async () => {
    for (let index = 0; index < MESSAGES; index += 1) {
      await harness.broker.publish({ topic: "news", payload: String(index), qos });
      if (index % 10 === 0) await new Promise(setImmediate);
    }
  })();
  await device.live(first);
  while (!device.isDone) await device.live(await connect(harness, "d", version));
  await publishing;
  expect(device.got).toEqual(Array.from({ length: MESSAGES }, (_, index) => String(index)));
});
