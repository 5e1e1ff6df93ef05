// The cache of audiences against looking at all subscriptions each time, whatever comes and goes between.

import * as fc from "fast-check";
import { expect, test } from "vitest";
import { type Audience, Audiences } from "../../src/broker/audience.ts";
import { Shapes } from "../../src/broker/live-packet.ts";
import { Outbox, Outboxes } from "../../src/broker/outbox.ts";
import { type Session, Sessions } from "../../src/broker/sessions.ts";
import type { LiveSubscription } from "../../src/broker/target.ts";
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

const limits = {
  sessions: 100,
  sessionExpiryS: 1000,
  queuedMessagesPerSession: 10,
  queuedBytesPerSession: 1000,
  queuedBytes: 1000,
  whenQueueFull: "newest",
} as const;

interface Bench {
  readonly sessions: Sessions;
  readonly audiences: Audiences;
  readonly clients: readonly Client[];
}

interface Client {
  readonly id: string;
  readonly outbox: Outbox;
  readonly session: Session;
  readonly live: Map<string, LiveSubscription>;
}

function openBench(): Bench {
  const events = createEvents();
  const sessions = new Sessions(limits, events, () => {});
  const outboxes = new Outboxes(1000, events);
  const clients = ["c0", "c1", "c2", "c3"].map((id) => {
    const facts = { clientId: id, version: 4, largestPacketBytes: 1, waitingBytes: 0 } as const;
    return {
      id,
      outbox: new Outbox({ ...facts, sendPublishes() {} }, outboxes),
      session: sessions.open(id, true, true).session,
      live: new Map<string, LiveSubscription>(),
    };
  });
  return { sessions, audiences: new Audiences(sessions, new Shapes()), clients };
}

function apply({ sessions, audiences, clients }: Bench, { client: number, filter, qos, kind, comes }: Change): void {
  const client = clients[number];
  if (client === undefined) throw new RangeError(String(number));
  if (kind === "kept") {
    const subscription = { filter, qos, noLocal: false, retainAsPublished: false, id: undefined };
    if (comes) sessions.subscribe(client.session, subscription);
    else sessions.unsubscribe(client.session, filter);
    return;
  }
  const before = client.live.get(filter);
  if (before !== undefined) audiences.remove(before);
  client.live.delete(filter);
  if (!comes) return;
  const live = { filter, outbox: client.outbox, inAedes: { func: {}, qos } };
  client.live.set(filter, live);
  audiences.add(live);
}

/** "client QoS" for all whose filters match, with the highest of them. */
function expectedOf(
  topic: string,
  clients: readonly Client[],
  filtersOf: (client: Client) => [string, QoS][],
): string[] {
  return clients.flatMap((client) => {
    const granted = filtersOf(client).flatMap(([filter, qos]) => (matches(topic, filter) ? qos : []));
    return granted.length === 0 ? [] : [`${client.id} ${Math.max(...granted)}`];
  });
}

test("an audience is right as long as it says that it is current", () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 40 }), (changes) => {
      const bench = openBench();
      const { audiences, clients } = bench;
      const held = new Map<string, Audience>();
      for (const each of changes) {
        apply(bench, each);
        // Those that are held by connections, and those that are asked for now.
        for (const topic of each.asked) if (held.get(topic)?.isCurrent !== true) held.set(topic, audiences.of(topic));
        for (const [topic, audience] of held) {
          if (!audience.isCurrent) continue;
          const live = expectedOf(topic, clients, (client) =>
            [...client.live].map(([filter, { inAedes }]) => [filter, inAedes.qos]),
          );
          const kept = expectedOf(topic, clients, ({ session }) =>
            [...session.subscriptions].map(([filter, { qos }]) => [filter, qos]),
          );
          const queued = kept.filter((text) => !text.endsWith(" 0"));
          expect(audience.targets.map((target) => `${target.clientId} ${target.qos}`).toSorted()).toEqual(live);
          expect(audience.takers.map(({ session, qos }) => `${session.clientId} ${qos}`).toSorted()).toEqual(queued);
          expect(audience.isEmpty).toBe(live.length === 0 && queued.length === 0);
        }
      }
      expect(audiences.size).toBe(clients.reduce((sum, { live }) => sum + live.size, 0));
    }),
    { numRuns: 500 },
  );
});

test("a change of one topic's filter leaves the audiences of other topics as they are", () => {
  const bench = openBench();
  const { audiences } = bench;
  const come = (filter: string): void =>
    apply(bench, { client: 0, filter, qos: 1, kind: "kept", comes: true, asked: [] });
  come("#");
  const [a, b] = [audiences.of("a"), audiences.of("b")];
  come("a");
  expect([a.isCurrent, b.isCurrent]).toEqual([false, true]);
  come("+/x");
  expect(b.isCurrent).toBe(false);
});
