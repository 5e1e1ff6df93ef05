import { expect, test } from "vitest";
import { serveMetrics } from "../../../devices-sim/report/metrics.ts";
import type { Progress } from "../../../devices-sim/report/live.ts";
import { counters, latency } from "./fixtures.ts";

const { invalid } = counters();

const state = (sent: number): Progress => ({
  elapsedMs: 1000,
  devices: 10,
  sentPerSecond: 0,
  acknowledgedPerSecond: 0,
  points: [],
  latency: latency(20),
  counters: counters({
    sent,
    connected: 9,
    refused: { "0x99": 3 },
    invalid: { ...invalid, empty: 2 },
    errors: { ECONNREFUSED: { count: 4, last: "" } },
  }),
});

test("each scrape has the totals of that moment", async () => {
  let sent = 100;
  await using server = await serveMetrics(0, () => state(sent));
  const first = await (await fetch(server.url)).text();
  expect(first.split("\n")).toEqual(
    expect.arrayContaining([
      "sluice_sim_devices 10",
      "sluice_sim_devices_connected 9",
      "sluice_sim_messages_sent_total 100",
      'sluice_sim_messages_refused_total{reason_code="0x99"} 3',
      'sluice_sim_messages_spoilt_total{fault="empty"} 2',
      'sluice_sim_errors_total{kind="ECONNREFUSED"} 4',
    ]),
  );
  expect(first).toMatch(/^sluice_sim_puback_seconds\{quantile="0.5"\} 0\.02/m);
  sent = 150;
  const second = await fetch(server.url);
  expect(second.headers.get("content-type")).toContain("text/plain");
  expect(await second.text()).toMatch(/^sluice_sim_messages_sent_total 150$/m);
});

test("only /metrics is there, and a port that is taken is told", async () => {
  await using server = await serveMetrics(0, () => state(0));
  expect((await fetch(new URL("/", server.url))).status).toBe(404);
  const port = Number(new URL(server.url).port);
  await expect(serveMetrics(port, () => state(0))).rejects.toThrow(
    `port ${port} cannot be opened for --metrics-port: another program has it`,
  );
});
