import { expect, test } from "vitest";
import { createHandlerIntake } from "../../src/intake/handler-intake.ts";
import type { HandlerIntakeOptions } from "../../src/intake/handler-intake.ts";
import type { Message } from "../../src/reading.ts";
import { toOffset } from "../../src/reading.ts";

interface Given {
  readonly state?: "open" | "full" | "failed";
  /** Of 1,000. */
  readonly bytes?: number;
  readonly isLast?: boolean;
}

const never = new AbortController().signal;
const message = { topic: "means/d1", payload: "{}", qos: 1, retain: false } as const;

function open({ state = "open", bytes = 100, isLast = false }: Given = {}) {
  const room = Promise.withResolvers<void>();
  const taken: Message[] = [];
  const shown: string[] = [];
  const journal = {
    congested: state !== "open",
    state,
    ready: () => room.promise,
    stats: () => ({ bytes, maxBytes: 1_000 }) as never,
    flush: () => Promise.resolve(),
  };
  const intake: HandlerIntakeOptions["intake"] = {
    route: (topic) => (topic === "means/d1" ? { stream: "means", deviceId: "d1" } : undefined),
    take(given) {
      taken.push(given);
      if (given.payload.length > 2) {
        const issues = [{ path: "start", message: "expected a number" }];
        return { kind: "rejected", offset: toOffset(0), rejection: { stream: "means", reason: "invalid", issues } };
      }
      return { kind: "appended", offset: toOffset(0) };
    },
  };
  const publish = createHandlerIntake({
    intake,
    journal,
    show: async ({ topic }) => void shown.push(topic),
    isLast: () => isLast,
  });
  return { publish, taken, shown, makeRoom: () => ((journal.congested = false), room.resolve()) };
}

test("on a stream's topic it is telemetry of the topic's device, and what is wrong with it is told", async () => {
  const { publish, taken, shown } = open();
  await publish("downsample", message, never);
  expect(taken).toMatchObject([{ clientId: "sluice/handler/downsample", deviceId: "d1", qos: 1 }]);
  await expect(publish("downsample", { ...message, payload: '{"start":"x"}' }, never)).rejects.toThrow(
    "means/d1: invalid: start expected a number",
  );
  expect(shown).toEqual(["means/d1"]);
});

test("waits while the journal takes nothing, but not with what no stream wants", async () => {
  const { publish, taken, shown, makeRoom } = open({ state: "failed" });
  await publish("alarm", { ...message, topic: "alarms/d1" }, never);
  expect(shown).toEqual(["alarms/d1"]);
  const publishing = publish("alarm", message, never);
  await new Promise(setImmediate);
  expect(taken).toEqual([]);
  makeRoom();
  await publishing;
  expect(taken).toHaveLength(1);
});

test("does not wait when the journal is full of what only the handler itself has not done", async () => {
  const { publish, taken } = open({ state: "full", bytes: 1_000, isLast: true });
  await publish("downsample", message, never);
  expect(taken).toHaveLength(1);
});

test.for<readonly [string, Given]>([
  ["another consumer is further behind", { state: "full", bytes: 1_000 }],
  ["it has overdrawn by an eighth", { state: "full", bytes: 1_125, isLast: true }],
  ["only the disk has no room", { state: "full", bytes: 500, isLast: true }],
  ["the disk refuses", { state: "failed", bytes: 1_000, isLast: true }],
])("waits when the journal is full and %s, until its call is over", async ([, given]) => {
  const { publish, taken } = open(given);
  const over = new AbortController();
  const publishing = publish("downsample", message, over.signal);
  await new Promise(setImmediate);
  over.abort();
  await expect(publishing).rejects.toThrow("aborted");
  expect(taken).toEqual([]);
});
