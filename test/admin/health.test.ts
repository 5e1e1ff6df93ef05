import { expect, test } from "vitest";
import { type HealthSources, readHealth } from "../../src/admin/health.ts";

const journal = { state: "open", hint: "", alive: true } as const;
const sources = (given: Partial<ReturnType<HealthSources["journal"]>>, stage = "running" as const): HealthSources => ({
  journal: () => ({ ...journal, ...given }),
  stage: () => stage,
});

test("a gateway that takes messages is live and ready", () => {
  expect(readHealth(sources({}))).toEqual({ live: true, ready: true, reasons: [] });
});

test("a full or failing journal makes it unready with a sentence, and not dead: it goes on by itself", () => {
  expect(readHealth(sources({ state: "full", hint: "It holds 9 of 9 bytes." }))).toEqual({
    live: true,
    ready: false,
    reasons: ["the journal is full: It holds 9 of 9 bytes."],
  });
});

test("a journal that only a new start helps makes it dead, so that a supervisor starts it again", () => {
  const { live, ready } = readHealth(sources({ state: "failed", hint: "Its thread ended.", alive: false }));
  expect([live, ready]).toEqual([false, false]);
});

test("one that is starting or stopping is live but not ready", () => {
  const { live, reasons } = readHealth({ ...sources({}), stage: () => "stopping" });
  expect([live, reasons]).toEqual([true, ["the gateway is stopping"]]);
});
