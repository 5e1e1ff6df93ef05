// Every metric, declared once. What is counted per message or per packet is a plain integer here, copied when somebody
// scrapes; what others know (journal, sinks, clients) is asked for at that moment.

import { monitorEventLoopDelay } from "node:perf_hooks";
import { cpuUsage, memoryUsage } from "node:process";
import { Counter, Gauge, type Metric, Registry } from "prom-client";
import type { DisconnectReason, EventBus, LimitName } from "./events.ts";
import type { RefusalReason, RejectionReason } from "./reading.ts";

/** What crosses the sockets, since start. Incremented by connections, read by metrics, $SYS and the log. */
export interface Traffic {
  socketsOpened: number;
  socketsOpen: number;
  clientsConnected: number;
  clientsMaximum: number;
  connectionsAccepted: number;
  bytesReceived: number;
  bytesSent: number;
  packetsReceived: number;
  packetsSent: number;
  publishReceived: number;
  publishSent: number;
  publishDropped: number;
  publishBytesReceived: number;
  publishBytesSent: number;
}

export const createTraffic = (): Traffic => ({
  socketsOpened: 0,
  socketsOpen: 0,
  clientsConnected: 0,
  clientsMaximum: 0,
  connectionsAccepted: 0,
  bytesReceived: 0,
  bytesSent: 0,
  packetsReceived: 0,
  packetsSent: 0,
  publishReceived: 0,
  publishSent: 0,
  publishDropped: 0,
  publishBytesReceived: 0,
  publishBytesSent: 0,
});

const LATENCY_BOUNDS_MS = [0.5, 1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];

/** A latency histogram that costs a short scan per observation. Milliseconds in, seconds when scraped. */
export class Latency {
  readonly #counts = Array.from<number>({ length: LATENCY_BOUNDS_MS.length + 1 }).fill(0);
  #sumMs = 0;
  #count = 0;

  observe(ms: number): void {
    let bucket = 0;
    while (bucket < LATENCY_BOUNDS_MS.length && ms > (LATENCY_BOUNDS_MS[bucket] ?? Infinity)) bucket += 1;
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#sumMs += ms;
    this.#count += 1;
  }

  /** Counts per bucket since start: two of these give the percentiles of the time between them. */
  snapshot(): readonly number[] {
    return [...this.#counts];
  }

  /** Prometheus' cumulative form. */
  get(name: string): readonly MetricValue[] {
    const values: MetricValue[] = [];
    let cumulative = 0;
    for (const [index, count] of this.#counts.entries()) {
      cumulative += count;
      const bound = LATENCY_BOUNDS_MS[index];
      values.push({
        metricName: `${name}_bucket`,
        labels: { le: bound === undefined ? "+Inf" : String(bound / 1000) },
        value: cumulative,
      });
    }
    values.push({ metricName: `${name}_sum`, labels: {}, value: this.#sumMs / 1000 });
    values.push({ metricName: `${name}_count`, labels: {}, value: this.#count });
    return values;
  }
}

/** The upper bound of the bucket that holds quantile `q` of what came between two snapshots; 0 when nothing did. */
export function quantileMs(before: readonly number[], after: readonly number[], q: number): number {
  const counts = after.map((count, index) => count - (before[index] ?? 0));
  const total = counts.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (const [index, count] of counts.entries()) {
    seen += count;
    if (total > 0 && seen >= total * q) return LATENCY_BOUNDS_MS[index] ?? Infinity;
  }
  return 0;
}

interface MetricValue {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Counts per outcome. received = accepted + rejected + refused at every moment the event loop can be asked. */
interface Outcomes {
  readonly received: readonly [number, number, number];
  readonly accepted: ReadonlyMap<string, number>;
  readonly rejected: ReadonlyMap<string, ReadonlyMap<RejectionReason, number>>;
  readonly refused: ReadonlyMap<RefusalReason, number>;
  readonly totals: {
    readonly received: number;
    readonly accepted: number;
    readonly rejected: number;
    readonly refused: number;
  };
}

interface ConsumerFigures {
  readonly name: string;
  readonly kind: string;
  readonly state: string;
  readonly lagRecords: number;
  readonly lagSeconds: number;
  readonly lagBytes: number;
  readonly ratePerSecond: number;
  readonly etaSeconds: number | undefined;
  readonly delivered: number;
  readonly parked: number;
  readonly passed: number;
  readonly expired: number;
  readonly errors: Readonly<Record<"transient" | "refused" | "misconfigured", number>>;
}

interface JournalFigures {
  readonly bytes: number;
  readonly heldBytes: number;
  readonly maxBytes: number;
  readonly freeBytes: number;
  readonly writeErrors: number;
  readonly segments: number;
  readonly pendingBytes: number;
  readonly state: string;
  /** That the start has found to be gone. */
  readonly lostRecords: number;
}

/** What is asked of the others at each scrape. */
interface Sources {
  readonly journal: () => JournalFigures;
  readonly consumers: () => readonly ConsumerFigures[];
}

export interface Telemetry {
  readonly traffic: Traffic;
  readonly outcomes: Outcomes;
  /** PUBLISH read to acknowledgement written, QoS 1 and 2 telemetry. */
  readonly puback: Latency;
  readonly commit: Latency;
  readonly contentType: string;
  /** Prometheus text exposition. */
  render(): Promise<string>;
  [Symbol.dispose](): void;
}

export interface TelemetryOptions {
  readonly events: EventBus;
  readonly version: string;
  readonly sources: Sources;
}

export function createTelemetry({ events, version, sources }: TelemetryOptions): Telemetry {
  const traffic = createTraffic();
  const outcomes = countOutcomes(events);
  const guards = countGuards(events);
  const puback = new Latency();
  const commit = new Latency();
  events.on("durable", (_to, _records, commitMs) => commit.observe(commitMs));
  events.on("dropped", (_clientId, _topic, messages = 1) => {
    traffic.publishDropped += messages;
  });
  const loop = openLoopLag();
  const registry = new Registry();
  declareMetrics(registry, { traffic, outcomes, guards, puback, commit, version, sources, lag: loop.read });
  return {
    traffic,
    outcomes,
    puback,
    commit,
    contentType: registry.contentType,
    render: () => registry.metrics(),
    [Symbol.dispose]: () => loop[Symbol.dispose](),
  };
}

interface LagFigures {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** How late the event loop runs its timers, in ms, since opened or reset. Each reader has its own. */
export interface LoopLag extends Disposable {
  readonly read: () => LagFigures;
  readonly reset: () => void;
}

const LAG_RESOLUTION_MS = 10;

export function openLoopLag(): LoopLag {
  const monitor = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
  monitor.enable();
  // The monitor reports the whole interval between two of its timers; the resolution is the part that is not lag.
  const lag = (ns: number): number => Math.max(0, ns / 1e6 - LAG_RESOLUTION_MS);
  return {
    read: () => ({ p50: lag(monitor.percentile(50)), p99: lag(monitor.percentile(99)), max: lag(monitor.max) }),
    reset: () => monitor.reset(),
    [Symbol.dispose]: () => {
      monitor.disable();
    },
  };
}

function countOutcomes(events: EventBus): Outcomes {
  const received: [number, number, number] = [0, 0, 0];
  const accepted = new Map<string, number>();
  const rejected = new Map<string, Map<RejectionReason, number>>();
  const refused = new Map<RefusalReason, number>();
  const totals = { received: 0, accepted: 0, rejected: 0, refused: 0 };
  events.on("received", (qos) => {
    received[qos] += 1;
    totals.received += 1;
  });
  events.on("accepted", (stream) => {
    accepted.set(stream, (accepted.get(stream) ?? 0) + 1);
    totals.accepted += 1;
  });
  events.on("rejected", (_message, { stream, reason }) => {
    const reasons = rejected.get(stream) ?? new Map<RejectionReason, number>();
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    rejected.set(stream, reasons);
    totals.rejected += 1;
  });
  events.on("refused", (_clientId, _topic, reason) => {
    refused.set(reason, (refused.get(reason) ?? 0) + 1);
    totals.refused += 1;
  });
  return { received, accepted, rejected, refused, totals };
}

/** What clients were kept from. */
interface Guards {
  readonly limited: ReadonlyMap<LimitName, number>;
  readonly turnedAway: ReadonlyMap<DisconnectReason, number>;
  readonly disconnected: ReadonlyMap<DisconnectReason, number>;
}

function countGuards(events: EventBus): Guards {
  const limited = new Map<LimitName, number>();
  const turnedAway = new Map<DisconnectReason, number>();
  const disconnected = new Map<DisconnectReason, number>();
  events.on("limited", (limit, times) => increment(limited, limit, times));
  events.on("turnedAway", (_address, reason) => increment(turnedAway, reason));
  events.on("disconnected", (_clientId, reason) => increment(disconnected, reason));
  return { limited, turnedAway, disconnected };
}

function increment<Key>(counts: Map<Key, number>, key: Key, times = 1): void {
  counts.set(key, (counts.get(key) ?? 0) + times);
}

interface Declared {
  readonly traffic: Traffic;
  readonly outcomes: Outcomes;
  readonly guards: Guards;
  readonly puback: Latency;
  readonly commit: Latency;
  readonly version: string;
  readonly sources: Sources;
  readonly lag: () => LagFigures;
}

interface MetricOptions<Kind> {
  readonly name: string;
  readonly help: string;
  readonly labelNames: string[];
  readonly registers: Registry[];
  readonly collect: (this: Kind) => void;
}

function declareMetrics(
  registry: Registry,
  { traffic, outcomes, guards, puback, commit, version, sources, lag }: Declared,
): void {
  const registers = [registry];
  const declare =
    <Kind extends Counter | Gauge>(Kind: new (options: MetricOptions<Kind>) => Kind) =>
    (name: string, help: string, labelNames: readonly string[], fill: (metric: Kind) => void): void => {
      const collect = function collect(this: Kind): void {
        this.reset();
        fill(this);
      };
      void new Kind({ name, help, labelNames: [...labelNames], registers, collect });
    };
  const counter = declare<Counter>(Counter);
  const gauge = declare<Gauge>(Gauge);
  const histogram = (name: string, help: string, latency: Latency): void => {
    const metric = {
      name,
      help,
      type: "histogram",
      get: () => Promise.resolve({ name, help, type: "histogram", values: latency.get(name) }),
    };
    registry.registerMetric(metric as unknown as Metric);
  };

  gauge("gateway_info", "1, with the version as a label.", ["version"], (m) => m.set({ version }, 1));
  counter("gateway_messages_received_total", "Telemetry PUBLISH packets received.", ["qos"], (m) => {
    for (const [qos, count] of outcomes.received.entries()) m.inc({ qos: String(qos) }, count);
  });
  counter("gateway_messages_accepted_total", "Messages that are valid and in the journal.", ["stream"], (m) => {
    for (const [stream, count] of outcomes.accepted) m.inc({ stream }, count);
  });
  counter(
    "gateway_messages_rejected_total",
    "Messages in the journal that are not valid.",
    ["stream", "reason"],
    (m) => {
      for (const [stream, reasons] of outcomes.rejected) {
        for (const [reason, count] of reasons) m.inc({ stream, reason }, count);
      }
    },
  );
  counter(
    "gateway_messages_refused_total",
    "Messages that got no record; those with reason duplicate are acknowledged all the same.",
    ["reason"],
    (m) => {
      for (const [reason, count] of outcomes.refused) m.inc({ reason }, count);
    },
  );
  counter(
    "gateway_limits_total",
    "Times that a limit has kept a client from something or slowed it down; the label is its name in `limits`.",
    ["limit"],
    (m) => {
      for (const [limit, count] of guards.limited) m.inc({ limit }, count);
    },
  );
  counter(
    "gateway_connections_turned_away_total",
    "Connections that ended before their CONNECT was accepted.",
    ["reason"],
    (m) => {
      for (const [reason, count] of guards.turnedAway) m.inc({ reason }, count);
    },
  );
  counter("gateway_disconnections_total", "Connected clients that are gone.", ["reason"], (m) => {
    for (const [reason, count] of guards.disconnected) m.inc({ reason }, count);
  });
  histogram("gateway_puback_seconds", "From reading a PUBLISH to writing its PUBACK or PUBREC.", puback);
  histogram("gateway_journal_commit_seconds", "One write and fdatasync of the journal.", commit);
  gauge("gateway_journal_bytes", "Bytes of journal on disk.", [], (m) => m.set(sources.journal().bytes));
  gauge("gateway_journal_held_bytes", "Of them, what a sink has not read.", [], (m) =>
    m.set(sources.journal().heldBytes),
  );
  gauge("gateway_journal_max_bytes", "Bytes at which the journal is full.", [], (m) =>
    m.set(sources.journal().maxBytes),
  );
  gauge("gateway_journal_disk_free_bytes", "Bytes free on the journal's disk.", [], (m) =>
    m.set(sources.journal().freeBytes),
  );
  counter("gateway_journal_write_errors_total", "Commits that the disk refused at first or for a time.", [], (m) =>
    m.inc(sources.journal().writeErrors),
  );
  gauge("gateway_journal_segments", "Journal files on disk.", [], (m) => m.set(sources.journal().segments));
  gauge("gateway_journal_pending_bytes", "Bytes appended and not yet on disk.", [], (m) =>
    m.set(sources.journal().pendingBytes),
  );
  gauge("gateway_journal_open", "1 while the journal takes messages; 0 when it is full or failed.", [], (m) =>
    m.set(sources.journal().state === "open" ? 1 : 0),
  );
  gauge("gateway_journal_lost_records", "Records that the start found to be gone from the journal.", [], (m) =>
    m.set(sources.journal().lostRecords),
  );
  for (const { metric, type, help, read } of consumerFigures) {
    if (metric === undefined) continue;
    const fill = (m: Counter | Gauge): void => {
      for (const figures of sources.consumers()) {
        const value = read(figures);
        if (value !== undefined) m.inc({ sink: figures.name }, value);
      }
    };
    if (type === "counter") counter(metric, help, ["sink"], fill);
    else gauge(metric, help, ["sink"], fill);
  }
  gauge("gateway_sink_state", "1 for the state that the sink is in.", ["sink", "state"], (m) => {
    for (const { name, state } of sources.consumers()) m.set({ sink: name, state }, 1);
  });
  counter(
    "gateway_sink_errors_total",
    "Failed attempts: transient and misconfigured ones are made again, the latter until a person mends it; refused is for the content.",
    ["sink", "class"],
    (m) => {
      for (const { name, errors } of sources.consumers()) {
        for (const [kind, count] of Object.entries(errors)) m.inc({ sink: name, class: kind }, count);
      }
    },
  );
  gauge("gateway_event_loop_lag_seconds", "Delay of the event loop since start.", ["quantile"], (m) => {
    const { p50, p99, max } = lag();
    m.set({ quantile: "0.5" }, p50 / 1000);
    m.set({ quantile: "0.99" }, p99 / 1000);
    m.set({ quantile: "1" }, max / 1000);
  });
  gauge("process_resident_memory_bytes", "Resident memory.", [], (m) => m.set(memoryUsage.rss()));
  counter("process_cpu_seconds_total", "User and system CPU time of all threads.", [], (m) => {
    const { user, system } = cpuUsage();
    m.inc((user + system) / 1e6);
  });
  for (const { topic, type, help, read } of brokerFigures(traffic)) {
    const name = `broker_${topic.replaceAll(/[ /]/g, "_")}`;
    if (type === "counter") counter(name, help, [], (m) => m.inc(read()));
    else gauge(name, help, [], (m) => m.set(read()));
  }
}

/** One figure of a sink or handler: `$SYS/gateway/sinks/<name>/<topic>`, and a metric with the label `sink`. */
interface ConsumerFigure {
  readonly topic: string;
  /** Undefined: a metric with more labels has it. */
  readonly metric: string | undefined;
  readonly type: "counter" | "gauge";
  readonly help: string;
  /** Undefined: there is no such figure now. */
  readonly read: (figures: ConsumerFigures) => number | undefined;
}

export const consumerFigures: readonly ConsumerFigure[] = [
  {
    topic: "lag/records",
    metric: "gateway_sink_lag_records",
    type: "gauge",
    help: "Records between the sink's cursor and the journal's end.",
    read: (c) => c.lagRecords,
  },
  {
    topic: "lag/seconds",
    metric: "gateway_sink_lag_seconds",
    type: "gauge",
    help: "Age of the oldest record that the sink has not yet taken.",
    read: (c) => c.lagSeconds,
  },
  {
    topic: "lag/bytes",
    metric: "gateway_sink_lag_bytes",
    type: "gauge",
    help: "What these records take in the journal, about.",
    read: (c) => c.lagBytes,
  },
  {
    topic: "rate",
    metric: "gateway_sink_rate",
    type: "gauge",
    help: "Records a second that the sink's cursor has moved by of late.",
    read: (c) => c.ratePerSecond,
  },
  {
    topic: "eta/seconds",
    metric: "gateway_sink_eta_seconds",
    type: "gauge",
    help: "Until the lag is gone at the rates of late; not there while it does not become less.",
    read: (c) => c.etaSeconds,
  },
  {
    topic: "delivered",
    metric: "gateway_sink_delivered_total",
    type: "counter",
    help: "Records that the sink confirmed.",
    read: (c) => c.delivered,
  },
  {
    topic: "parked",
    metric: "gateway_sink_parked_total",
    type: "counter",
    help: "Records set aside because the sink refused their content.",
    read: (c) => c.parked,
  },
  {
    topic: "passed",
    metric: "gateway_sink_passed_total",
    type: "counter",
    help: "Records that are not for the sink: rejected ones, and those of other streams.",
    read: (c) => c.passed,
  },
  {
    topic: "expired",
    metric: "gateway_sink_expired_total",
    type: "counter",
    help: "Records that the journal no longer had when the sink came to them: deleted because it was full, or damaged.",
    read: (c) => c.expired,
  },
  {
    topic: "errors",
    metric: undefined,
    type: "counter",
    help: "Failed attempts of all classes.",
    read: ({ errors }) => errors.transient + errors.refused + errors.misconfigured,
  },
];

/** The topics and values below `$SYS/gateway/` for consumers: letters, digits and _ only, as exporters want them. */
export const toSinkTopics = (consumers: readonly ConsumerFigures[]): readonly (readonly [string, number])[] =>
  consumers.flatMap((figures) =>
    consumerFigures.flatMap(({ topic, read }) => {
      const value = read(figures);
      const name = figures.name.replaceAll("-", "_");
      return value === undefined ? [] : [[`sinks/${name}/${topic}`, value] as const];
    }),
  );

/** One figure of the broker: `$SYS/broker/<topic>` and, with `_` for `/`, the metric `broker_<topic>`. */
export interface BrokerFigure {
  readonly topic: string;
  readonly type: "counter" | "gauge";
  readonly help: string;
  readonly read: () => number;
}

/** The names and meanings are mosquitto's, so that its exporters and dashboards work. */
export const brokerFigures = (traffic: Traffic): readonly BrokerFigure[] => [
  { topic: "clients/connected", type: "gauge", help: "Clients connected.", read: () => traffic.clientsConnected },
  {
    topic: "clients/maximum",
    type: "gauge",
    help: "Most clients ever connected at once.",
    read: () => traffic.clientsMaximum,
  },
  { topic: "messages/received", type: "counter", help: "MQTT packets received.", read: () => traffic.packetsReceived },
  { topic: "messages/sent", type: "counter", help: "MQTT packets sent.", read: () => traffic.packetsSent },
  { topic: "bytes/received", type: "counter", help: "Bytes received.", read: () => traffic.bytesReceived },
  { topic: "bytes/sent", type: "counter", help: "Bytes sent.", read: () => traffic.bytesSent },
  {
    topic: "publish/messages/received",
    type: "counter",
    help: "PUBLISH packets received.",
    read: () => traffic.publishReceived,
  },
  { topic: "publish/messages/sent", type: "counter", help: "PUBLISH packets sent.", read: () => traffic.publishSent },
  {
    topic: "publish/messages/dropped",
    type: "counter",
    help: "PUBLISH packets not delivered to a full subscriber.",
    read: () => traffic.publishDropped,
  },
  {
    topic: "publish/bytes/received",
    type: "counter",
    help: "Payload bytes of PUBLISH packets received.",
    read: () => traffic.publishBytesReceived,
  },
  {
    topic: "publish/bytes/sent",
    type: "counter",
    help: "Payload bytes of PUBLISH packets sent.",
    read: () => traffic.publishBytesSent,
  },
];
