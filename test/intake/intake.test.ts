import { describe, expect, test } from "vitest";
import { createEvents, type EventBus } from "../../src/events.ts";
import { createIntake } from "../../src/intake/intake.ts";
import { createMemory } from "../../src/intake/memory.ts";
import { type Message, toOffset, type Verdict } from "../../src/reading.ts";
import { createRegistry } from "../../src/validate/registry.ts";
import type { StreamDefinition } from "../../src/validate/stream.ts";
import { climate, message, withDedupe } from "./fixtures.ts";

interface Opened {
  readonly events: EventBus;
  readonly take: (of: Message) => Verdict;
}

/** An intake whose journal only counts. */
function create(stream: StreamDefinition): Opened {
  const registry = createRegistry([stream]);
  const events = createEvents();
  let next = 0;
  const append = () => toOffset(next++);
  const memory = createMemory(registry.windows);
  const intake = createIntake({ registry, journal: { append, release: append }, memory, events });
  return { events, take: (of) => intake.take(of, { stream: stream.name, deviceId: of.deviceId }) };
}

describe("a stream with dedupe", () => {
  test("takes a key of a device once: the second message waits for the first one's record", () => {
    const { take, events } = create(withDedupe(10));
    const seen: string[] = [];
    events.on("accepted", (_stream, offset) => seen.push(`accepted ${offset}`));
    events.on("refused", (clientId, topic, reason) => seen.push(`${reason} ${clientId} ${topic}`));
    expect([message("d1", "a"), message("d1", "b"), message("d1", "a")].map(take)).toEqual([
      { kind: "appended", offset: 0 },
      { kind: "appended", offset: 1 },
      { kind: "duplicate", offset: 0 },
    ]);
    expect(seen).toEqual(["accepted 0", "accepted 1", "duplicate d1 devices/d1/telemetry"]);
  });

  test("takes the same key of another device: it is another message", () => {
    const { take } = create(withDedupe(10));
    expect(take(message("d1", "a"))).toMatchObject({ kind: "appended" });
    expect(take(message("d2", "a"))).toMatchObject({ kind: "appended" });
  });

  test("counts a duplicate as received and refused, so that the sum is right", () => {
    const { take, events } = create(withDedupe(10));
    const counts = { received: 0, accepted: 0, rejected: 0, refused: 0 };
    for (const event of ["received", "accepted", "rejected", "refused"] as const)
      events.on(event, () => {
        counts[event] += 1;
      });
    for (const id of ["a", "a", "b", "a"]) take(message("d1", id));
    take({ ...message("d1", "a"), payload: Buffer.from("not JSON") });
    expect(counts).toEqual({ received: 5, accepted: 2, rejected: 1, refused: 2 });
  });

  test.for<[string, (data: { id: string }) => unknown, RegExp]>([
    [
      "throws",
      () => {
        throw new Error("no sensor");
      },
      /^the stream's dedupe\.key failed: no sensor$/,
    ],
    ["gives a number", () => 5, /^the stream's dedupe\.key gave number instead of text$/],
    ["gives nothing", () => undefined, /^the stream's dedupe\.key gave undefined instead of text$/],
    ["gives null", () => null, /^the stream's dedupe\.key gave null instead of text$/],
  ])("rejects a message whose key %s, and says so", ([, key, text]) => {
    const { take } = create(withDedupe(10, key));
    expect(take(message("d1", "a"))).toMatchObject({
      kind: "rejected",
      offset: 0,
      rejection: { reason: "invalid", issues: [{ path: "", message: expect.stringMatching(text) as string }] },
    });
  });

  test("remembers nothing of a message that it rejects", () => {
    const { take } = create(withDedupe(10));
    const wrong = message("d1", "a", { identity: "d2" });
    expect([wrong, message("d1", "a")].map((each) => take(each).kind)).toEqual(["rejected", "appended"]);
  });
});

test("a stream without dedupe takes everything, however often it comes", () => {
  const { take } = create(climate);
  expect([1, 2, 3].map(() => take(message("d1", "a")).kind)).toEqual(["appended", "appended", "appended"]);
});

test("a rejection that is told ends the QoS 2 handshake: nothing of it is remembered, now or after a restart", () => {
  const registry = createRegistry([climate]);
  const memory = createMemory(registry.windows);
  const recorded: number[] = [];
  const journal = {
    append: ({ packetId }: Message) => toOffset(recorded.push(packetId) - 1),
    release: () => toOffset(0),
  };
  const intake = createIntake({ registry, journal, memory, events: createEvents() });
  const route = { stream: "climate", deviceId: "d1" };
  const wrong = { ...message("d1", "a"), payload: Buffer.from("not JSON"), qos: 2 } as const;
  intake.take({ ...wrong, packetId: 7, toldOfRejection: true }, route);
  expect(memory.unfinished.sessions.size).toBe(0);
  intake.take({ ...wrong, packetId: 8 }, route);
  expect([...(memory.unfinished.sessions.get("d1")?.keys() ?? [])]).toEqual([8]);
  expect(recorded).toEqual([0, 8]);
});
