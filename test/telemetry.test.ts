import { describe, expect, onTestFinished, test } from "vitest";
import { openSysTopics } from "../src/broker/sys-topics.ts";
import { createEvents } from "../src/events.ts";
import { createTelemetry, createTraffic, toSinkTopics } from "../src/telemetry.ts";

const journal = {
  lostRecords: 0,
  bytes: 0,
  heldBytes: 0,
  maxBytes: 0,
  freeBytes: 0,
  writeErrors: 0,
  segments: 0,
  pendingBytes: 0,
  state: "open",
};

const behind = {
  name: "my-sink",
  kind: "sink",
  state: "retrying",
  lagRecords: 1_200,
  lagSeconds: 3.5,
  lagBytes: 200_000,
  ratePerSecond: 99.6,
  etaSeconds: undefined,
  delivered: 7,
  parked: 2,
  passed: 3,
  expired: 1,
  errors: { transient: 4, refused: 5, misconfigured: 6 },
};

describe("what is told of a sink", () => {
  test("is a metric each, with its errors by class and the state that it is in", async () => {
    const sources = { journal: () => journal, consumers: () => [behind] };
    using telemetry = createTelemetry({ events: createEvents(), version: "", sources });
    const lines = (await telemetry.render()).split("\n").filter((line) => line.startsWith("gateway_sink_"));
    expect(lines).toEqual([
      'gateway_sink_lag_records{sink="my-sink"} 1200',
      'gateway_sink_lag_seconds{sink="my-sink"} 3.5',
      'gateway_sink_lag_bytes{sink="my-sink"} 200000',
      'gateway_sink_rate{sink="my-sink"} 99.6',
      'gateway_sink_delivered_total{sink="my-sink"} 7',
      'gateway_sink_parked_total{sink="my-sink"} 2',
      'gateway_sink_passed_total{sink="my-sink"} 3',
      'gateway_sink_expired_total{sink="my-sink"} 1',
      'gateway_sink_state{sink="my-sink",state="retrying"} 1',
      'gateway_sink_errors_total{sink="my-sink",class="transient"} 4',
      'gateway_sink_errors_total{sink="my-sink",class="refused"} 5',
      'gateway_sink_errors_total{sink="my-sink",class="misconfigured"} 6',
    ]);
  });

  test("is a whole number each below $SYS/gateway, in names of letters, digits and _, and only what has changed", () => {
    const published: string[] = [];
    let { delivered } = behind;
    const tree = openSysTopics({
      traffic: createTraffic(),
      version: "1",
      counts: () => ({ disconnected: 0, subscriptions: 0, retained: 0 }),
      gateway: () => toSinkTopics([{ ...behind, delivered: (delivered += 1) }]),
      publish: (topic, payload) => topic.startsWith("$SYS/gateway/") && published.push(`${topic} ${payload}`),
      intervalMs: 5,
    });
    onTestFinished(() => tree[Symbol.dispose]());
    expect(published).toEqual([
      "$SYS/gateway/sinks/my_sink/lag/records 1200",
      "$SYS/gateway/sinks/my_sink/lag/seconds 4",
      "$SYS/gateway/sinks/my_sink/lag/bytes 200000",
      "$SYS/gateway/sinks/my_sink/rate 100",
      "$SYS/gateway/sinks/my_sink/delivered 8",
      "$SYS/gateway/sinks/my_sink/parked 2",
      "$SYS/gateway/sinks/my_sink/passed 3",
      "$SYS/gateway/sinks/my_sink/expired 1",
      "$SYS/gateway/sinks/my_sink/errors 15",
    ]);
    return expect
      .poll(() => published.slice(9, 11))
      .toEqual(["$SYS/gateway/sinks/my_sink/delivered 9", "$SYS/gateway/sinks/my_sink/delivered 10"]);
  });
});
