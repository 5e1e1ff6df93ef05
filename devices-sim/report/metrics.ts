// The running fleet for Prometheus, so that it stands beside the broker's own metrics. On loopback, as there is no authentication.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Counter, Gauge, Registry } from "prom-client";
import type { Progress } from "./live.ts";
import { toPercentiles } from "./timeline.ts";

export interface MetricsServer extends AsyncDisposable {
  readonly url: string;
}

const HOST = "127.0.0.1";

/** Port 0 takes any free one. Rejects when the port cannot be opened. */
export async function serveMetrics(port: number, progress: () => Progress): Promise<MetricsServer> {
  const metrics = createMetrics();
  const server = createServer((request, response) => {
    if (request.url !== "/metrics") {
      response.writeHead(404).end("only /metrics is here\n");
      return;
    }
    void metrics.render(progress()).then((text) => {
      response.writeHead(200, { "content-type": metrics.contentType }).end(text);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", ({ code = "" }: NodeJS.ErrnoException) => {
      const why = code === "EADDRINUSE" ? "another program has it" : code;
      reject(new Error(`port ${port} cannot be opened for --metrics-port: ${why}`));
    });
    server.listen(port, HOST, resolve);
  });
  return {
    url: `http://${HOST}:${(server.address() as AddressInfo).port}/metrics`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}

interface Metrics {
  readonly contentType: string;
  render(progress: Progress): Promise<string>;
}

function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const gauge = <Label extends string>(name: string, help: string, ...labelNames: Label[]): Gauge<Label> =>
    new Gauge({ name: `sluice_sim_${name}`, help, labelNames, registers });
  /** Counts are kept by the threads: a scrape sets them anew. */
  const counter = <Label extends string>(name: string, help: string, ...labelNames: Label[]): Counter<Label> =>
    new Counter({ name: `sluice_sim_${name}_total`, help, labelNames, registers });

  const devices = gauge("devices", "Simulated devices of the run");
  const connected = gauge("devices_connected", "Devices that have a connection");
  const inFlight = gauge("messages_in_flight", "Messages sent and not answered yet");
  const puback = gauge("puback_seconds", "From PUBLISH to PUBACK or PUBCOMP, in the last second", "quantile");
  const sent = counter("messages_sent", "Messages handed to a connection");
  const acknowledged = counter("messages_acknowledged", "Messages acknowledged without an error");
  const refused = counter("messages_refused", "Messages acknowledged with an error", "reason_code");
  const spoilt = counter("messages_spoilt", "Messages spoilt on purpose", "fault");
  const faults = counter("faults", "Other faults, of deliveries, clocks and connections", "fault");
  const skipped = counter("readings_skipped", "Readings that were not sent: offline, too many in flight, or late");
  const errors = counter("errors", "What went wrong", "kind");

  return {
    contentType: registry.contentType,
    render(progress) {
      const { counters } = progress;
      registry.resetMetrics();
      devices.set(progress.devices);
      connected.set(counters.connected);
      inFlight.set(counters.inFlight);
      sent.inc(counters.sent);
      acknowledged.inc(counters.acknowledged);
      skipped.inc(counters.skipped);
      for (const [code, count] of Object.entries(counters.refused)) refused.inc({ reason_code: code }, count);
      for (const [fault, count] of Object.entries(counters.invalid)) spoilt.inc({ fault }, count);
      for (const [fault, count] of Object.entries(counters.faults)) faults.inc({ fault }, count);
      for (const [kind, { count }] of Object.entries(counters.errors)) errors.inc({ kind }, count);
      const percentiles = toPercentiles(progress.latency);
      if (percentiles !== null) {
        const quantiles = {
          "0.5": percentiles.p50,
          "0.9": percentiles.p90,
          "0.99": percentiles.p99,
          "1": percentiles.max,
        };
        for (const [quantile, ms] of Object.entries(quantiles)) puback.set({ quantile }, ms / 1000);
      }
      return registry.metrics();
    },
  };
}
