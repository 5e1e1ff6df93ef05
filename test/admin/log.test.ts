import { afterEach, describe, expect, test, vi } from "vitest";
import { pino } from "pino";
import { openLog } from "../../src/admin/log.ts";
import { createEvents, type EventBus } from "../../src/events.ts";
import { toOffset } from "../../src/reading.ts";
import { createTelemetry } from "../../src/telemetry.ts";

interface Line {
  readonly level: string;
  readonly msg: string;
}

const journal = {
  lostRecords: 0,
  bytes: 0,
  heldBytes: 0,
  maxBytes: 0,
  freeBytes: 0,
  writeErrors: 0,
  segments: 0,
  pendingBytes: 0,
};

afterEach(() => {
  vi.useRealTimers();
});

/** The log of a gateway to which the test lets things happen. */
function openBench(): { readonly events: EventBus; readonly lines: readonly Line[]; readonly close: () => void } {
  const events = createEvents();
  const lines: Line[] = [];
  const options = {
    level: "debug",
    base: null,
    timestamp: false,
    formatters: { level: (level: string) => ({ level }) },
  };
  const log = pino(options, { write: (text) => void lines.push(JSON.parse(text) as Line) });
  const sources = { journal: () => ({ ...journal, state: "open" as const }), consumers: () => [] };
  const telemetry = createTelemetry({ events, version: "", sources });
  const opened = openLog({ log, events, telemetry, consumers: () => [] });
  return {
    events,
    lines,
    close() {
      opened[Symbol.dispose]();
      telemetry[Symbol.dispose]();
    },
  };
}

describe("the journal", () => {
  test("one trouble is one ERROR line, whatever states it goes through, and its end is told", () => {
    const { events, lines, close } = openBench();
    events.emit("journal", "failed", "The disk refuses.");
    events.emit("journal", "full", "It is full.");
    events.emit("journal", "failed", "The disk refuses.");
    events.emit("journal", "open", "the journal takes messages again");
    events.emit("journal", "full", "It is full.");
    expect(lines.map(({ level, msg }) => `${level}: ${msg}`)).toEqual([
      "error: The disk refuses.",
      "warn: It is full.",
      "warn: The disk refuses.",
      "info: the journal takes messages again",
      "error: It is full.",
    ]);
    close();
  });

  test("what it lost is an ERROR with its range; that it fills up is a warning with the sink's name", () => {
    const { events, lines, close } = openBench();
    events.emit("expired", toOffset(10), toOffset(30), "influx");
    events.emit("filling", 0.8123, "influx");
    events.emit("writeError", "EIO: i/o error, fdatasync");
    expect(lines).toEqual([
      expect.objectContaining({ level: "error", from: 10, to: 30, records: 20, slowest: "influx" }),
      expect.objectContaining({ level: "warn", percent: 81, slowest: "influx" }),
      expect.objectContaining({ level: "error", detail: "EIO: i/o error, fdatasync" }),
    ]);
    close();
  });
});

test("a disk that fails at every commit is told once a second", () => {
  vi.useFakeTimers();
  const { events, lines, close } = openBench();
  for (let commit = 0; commit < 500; commit += 1) events.emit("writeError", "EIO");
  expect(lines).toHaveLength(1);
  vi.advanceTimersByTime(1000);
  events.emit("writeError", "EIO");
  expect(lines).toHaveLength(2);
  close();
});

test("of single clients and messages it tells a few a second, so that a storm does not fill the disk", () => {
  vi.useFakeTimers();
  const { events, lines, close } = openBench();
  for (let n = 0; n < 1000; n += 1) events.emit("refused", "d1", "devices/d1", "quota");
  expect(lines).toHaveLength(10);
  vi.advanceTimersByTime(1000);
  events.emit("refused", "d1", "devices/d1", "quota");
  expect(lines).toHaveLength(11);
  close();
});

describe("dropped messages", () => {
  test("a client that misses some is told of once a minute, with their number", () => {
    vi.useFakeTimers();
    const { events, lines, close } = openBench();
    events.emit("dropped", "slow", "a", 1000);
    events.emit("dropped", "slow", "b");
    for (let client = 0; client < 100; client += 1) events.emit("dropped", `c${client}`, "a");
    vi.advanceTimersByTime(59_000);
    expect(lines).toEqual([]);
    vi.advanceTimersByTime(1_000);
    expect(lines).toHaveLength(20);
    expect(lines[0]).toMatchObject({ level: "warn", clientId: "slow", messages: 1001 });
    vi.advanceTimersByTime(120_000);
    expect(lines).toHaveLength(20);
    events.emit("dropped", "slow", "c", 5);
    close();
    expect(lines[20]).toMatchObject({ clientId: "slow", messages: 5 });
  });
});
