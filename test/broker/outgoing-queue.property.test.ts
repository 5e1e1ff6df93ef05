// The queue of a session against a client that keeps the rules: whatever comes, goes and is acknowledged, nothing is lost
// but what was told, nothing comes twice but with DUP, and the order holds.

import * as fc from "fast-check";
import { parser as createParser } from "mqtt-packet";
import { describe, expect, test } from "vitest";
import { packetType } from "../../src/broker/frames.ts";
import type { QueuedMessage } from "../../src/broker/outgoing-message.ts";
import { OutgoingQueue } from "../../src/broker/outgoing-queue.ts";

const bounds = {
  queuedMessagesPerSession: 8,
  queuedBytesPerSession: 1_000,
  queuedBytes: 1_000,
  whenQueueFull: "newest",
} as const;

const command = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant("push" as const), qos: fc.constantFrom(1 as const, 2 as const) }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("answer" as const), index: fc.nat(10) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("connect" as const), receiveMaximum: fc.integer({ min: 1, max: 4 }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("disconnect" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("socket" as const), writable: fc.boolean() }) },
);

type Command = typeof command extends fc.Arbitrary<infer Value> ? Value : never;

/** A client with state per session, and what it has seen. */
class Client {
  readonly total = { bytes: 0 };
  readonly pushed: string[] = [];
  readonly droppedTopics: string[] = [];
  readonly firstSeen: string[] = [];
  readonly completed = new Set<string>();
  readonly queue = new OutgoingQueue(bounds, this.total, (topic) => void this.droppedTopics.push(topic));
  /** What the client owes an answer for: by packet identifier. */
  readonly open = new Map<number, { readonly topic: string; readonly qos: number; released: boolean }>();
  /** PUBLISH packets of this connection that are not complete. */
  readonly inFlight = new Set<number>();
  writable = true;
  receiveMaximum = 0;

  connect(receiveMaximum: number): void {
    this.queue.detach();
    this.inFlight.clear();
    this.receiveMaximum = receiveMaximum;
    const { queue } = this;
    const take = (frames: readonly Buffer[]): void => this.#take(frames);
    const isWritable = (): boolean => this.writable;
    queue.attach({
      version: 4,
      receiveMaximum,
      maximumPacketBytes: Infinity,
      get writable() {
        return isWritable();
      },
      write: take,
    });
  }

  push(qos: 1 | 2): void {
    const topic = `t${this.pushed.length}`;
    this.pushed.push(topic);
    const message: QueuedMessage = {
      topic,
      payload: "x",
      qos,
      retain: false,
      properties: undefined,
      subscriptionIds: [],
      expiresAt: undefined,
      bytes: 10,
    };
    this.queue.push(message, 0);
    this.queue.pump();
  }

  answer(index: number): void {
    const ids = [...this.open.keys()].filter((id) => this.inFlight.has(id) || this.open.get(id)?.released === true);
    const id = ids[index % Math.max(1, ids.length)];
    const entry = id === undefined ? undefined : this.open.get(id);
    if (id === undefined || entry === undefined || this.receiveMaximum === 0) return;
    if (entry.qos === 2 && !entry.released) {
      this.queue.answered(packetType.pubrec, id, 0);
      return;
    }
    this.open.delete(id);
    this.inFlight.delete(id);
    this.completed.add(entry.topic);
    this.queue.answered(entry.qos === 1 ? packetType.puback : packetType.pubcomp, id, 0);
  }

  #take(frames: readonly Buffer[]): void {
    const parser = createParser({ protocolVersion: 4 });
    parser.on("packet", (packet) => {
      const { messageId = 0 } = packet;
      const known = this.open.get(messageId);
      if (packet.cmd === "publish") {
        expect(packet.dup).toBe(known !== undefined);
        expect(known?.released ?? false).toBe(false);
        if (known === undefined) {
          this.firstSeen.push(packet.topic);
          this.open.set(messageId, { topic: packet.topic, qos: packet.qos, released: false });
        } else {
          expect(known.topic).toBe(packet.topic);
        }
        this.inFlight.add(messageId);
        expect(this.inFlight.size).toBeLessThanOrEqual(this.receiveMaximum);
      } else {
        expect(packet.cmd).toBe("pubrel");
        if (known !== undefined) known.released = true;
      }
    });
    parser.parse(Buffer.concat(frames));
  }
}

function run(client: Client, step: Command): void {
  switch (step.kind) {
    case "push":
      client.push(step.qos);
      break;
    case "answer":
      client.answer(step.index);
      break;
    case "connect":
      client.connect(step.receiveMaximum);
      break;
    case "disconnect":
      client.queue.detach();
      client.receiveMaximum = 0;
      break;
    case "socket":
      client.writable = step.writable;
      client.queue.pump();
      break;
  }
}

describe("the queue of a session", () => {
  test("loses nothing, repeats nothing without DUP, keeps the order and its bounds", () => {
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (steps) => {
        const client = new Client();
        for (const step of steps) {
          run(client, step);
          expect(client.queue.size).toBeLessThanOrEqual(bounds.queuedMessagesPerSession);
        }
        client.writable = true;
        client.connect(4);
        while (client.queue.size > 0) client.answer(0);
        const kept = client.pushed.filter((topic) => !client.droppedTopics.includes(topic));
        expect(client.firstSeen).toEqual(kept);
        expect(client.completed).toEqual(new Set(kept));
        expect(client.total.bytes).toBe(0);
      }),
      { numRuns: 300 },
    );
  });

  test("gives no packet identifier to two messages, however many have come between [MQTT-2.2.1-4]", () => {
    const ids: number[] = [];
    const queue = new OutgoingQueue(bounds, { bytes: 0 }, () => {});
    const write = ([frame]: readonly Buffer[]): void => void ids.push(frame?.readUInt16BE(5) ?? 0);
    queue.attach({ version: 4, receiveMaximum: 8, maximumPacketBytes: Infinity, writable: true, write });
    const properties = { retain: false, properties: undefined, subscriptionIds: [], expiresAt: undefined, bytes: 1 };
    const message: QueuedMessage = { topic: "t", payload: "x", qos: 1, ...properties };
    for (let count = 0; count < 65_537; count += 1) {
      queue.push(message, 0);
      queue.pump();
      if (count > 0) queue.answered(packetType.puback, ids.at(-1) ?? 0, 0);
    }
    expect(ids[0]).toBe(1);
    expect(ids.slice(1)).not.toContain(1);
    expect(ids.slice(-3)).toEqual([65_535, 2, 3]);
  });
});
