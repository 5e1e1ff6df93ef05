// The cache of audiences against looking at all subscriptions each time, whatever comes and goes between.

import * as fc from "fast-check";
import { expect, test } from "vitest";
import { type Audience, Audiences } from "../../src/broker/audience.ts";
import { KeptFilters } from "../../src/broker/kept-filters.ts";
import { Shapes } from "../../src/broker/live-packet.ts";
import { Outbox, Outboxes } from "../../src/broker/outbox.ts";
import type { AedesClient, LiveSubscription } from "../../src/broker/target.ts";
import { createEvents } from "../../src/events.ts";
import type { QoS } from "../../src/reading.ts";

const topics = ["a", "a/b", "a/b/c", "/a", "a/", "$s/b", "b"];
const filters = [...topics, "#", "+", "a/#", "+/b", "a/+", "+/+/c", "$s/#", "$s/+", "/+", "+/#"];

/** MQTT 5 section 4.7, read word by word. */
function matches(topic: string, filter: string): boolean {
  if (topic.startsWith("$") && /^[+#]/.test(filter)) return false;
  const levels = topic.split("/");
  const wanted = filter.split("/");
  const isOpen = wanted.at(-1) === "#";
  if (isOpen) wanted.pop();
  if (isOpen ? levels.length < wanted.length : levels.length !== wanted.length) return false;
  return wanted.every((level, index) => level === "+" || level === levels[index]);
}

interface Change {
  readonly client: number;
  readonly filter: string;
  readonly qos: QoS;
  readonly kind: "live" | "kept";
  /** Comes, or goes if it is there. */
  readonly comes: boolean;
  readonly asked: readonly string[];
}

const change: fc.Arbitrary<Change> = fc.record({
  client: fc.nat({ max: 3 }),
  filter: fc.constantFrom(...filters),
  qos: fc.constantFrom(0, 1, 2),
  kind: fc.constantFrom("live", "kept"),
  comes: fc.boolean(),
  asked: fc.uniqueArray(fc.constantFrom(...topics), { maxLength: 4 }),
});

test("an audience is right as long as it says that it is current", () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 40 }), (changes) => {
      const kept = new KeptFilters();
      const audiences = new Audiences(kept, new Shapes());
      const outboxes = new Outboxes(1000, createEvents());
      const clients = [0, 1, 2, 3].map((number) => {
        const client = { id: `c${number}` } as AedesClient;
        const subscriber = {
          clientId: client.id,
          version: 4,
          largestPacketBytes: 1,
          waitingBytes: 0,
          sendPublishes() {},
        } as const;
        return {
          client,
          outbox: new Outbox(subscriber, outboxes),
          live: new Map<string, LiveSubscription>(),
          kept: new Map<string, QoS>(),
        };
      });
      const held = new Map<string, Audience>();
      for (const { client: number, filter, qos, kind, comes, asked } of changes) {
        const own = clients[number];
        if (own === undefined) throw new RangeError(String(number));
        const before = own.live.get(filter);
        if (kind === "kept") {
          if (comes) kept.set(own.client.id, filter, qos);
          else kept.delete(own.client.id, [filter]);
          if (comes && qos > 0) own.kept.set(filter, qos);
          else own.kept.delete(filter);
        } else {
          if (before !== undefined) audiences.remove(before);
          own.live.delete(filter);
          if (comes) {
            const inAedes = { func: {}, qos };
            const live = { filter, client: own.client, outbox: own.outbox, granted: qos, inAedes };
            own.live.set(filter, live);
            audiences.add(live);
          }
        }
        // Those that are held by connections, and those that are asked for now.
        for (const topic of asked) if (held.get(topic)?.isCurrent !== true) held.set(topic, audiences.of(topic));
        for (const [topic, audience] of held) {
          if (!audience.isCurrent) continue;
          const expected = clients.flatMap(({ client, live }) => {
            const matching = [...live.values()].filter((subscription) => matches(topic, subscription.filter));
            return matching.length === 0 ? [] : [`${client.id} ${Math.max(...matching.map(({ granted }) => granted))}`];
          });
          expect(audience.targets.map((target) => `${target.clientId} ${target.qos}`).toSorted()).toEqual(expected);
          const isKept = clients.some((client) => [...client.kept.keys()].some((text) => matches(topic, text)));
          expect(audience.isKept).toBe(isKept);
          expect(audience.isEmpty).toBe(expected.length === 0 && !isKept);
        }
      }
      expect(audiences.size).toBe(clients.reduce((sum, { live }) => sum + live.size, 0));
    }),
    { numRuns: 500 },
  );
});

test("a change of one topic's filter leaves the audiences of other topics as they are", () => {
  const kept = new KeptFilters();
  const audiences = new Audiences(kept, new Shapes());
  kept.set("away", "#", 1);
  const [a, b] = [audiences.of("a"), audiences.of("b")];
  kept.set("other", "a", 1);
  expect([a.isCurrent, b.isCurrent]).toEqual([false, true]);
  kept.set("other", "+/x", 1);
  expect(b.isCurrent).toBe(false);
});
