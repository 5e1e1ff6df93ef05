// The `$SYS/broker/…` tree, as mosquitto publishes it: retained, ASCII, every 10 s, only what changed; `load/…/1min`
// are moving averages per minute with an exponential weight. `$SYS/gateway/…` beside it has what mosquitto has not, in the
// same form: whole numbers.

import { memoryUsage } from "node:process";
import { brokerFigures, type Traffic } from "../telemetry.ts";

export interface SysTopicsOptions {
  readonly traffic: Traffic;
  readonly version: string;
  /** What the broker knows: clients with a session and no connection, subscriptions, retained messages. */
  readonly counts: () => { readonly disconnected: number; readonly subscriptions: number; readonly retained: number };
  /** What is shown below `$SYS/gateway/`. */
  readonly gateway: () => readonly (readonly [topic: string, value: number])[];
  /** Publishes one retained message. */
  readonly publish: (topic: string, payload: string) => void;
  readonly intervalMs?: number;
}

const LOAD_MINUTES = [1, 5, 15] as const;

/** `load/<name>/<n>min`, each a rate per minute of one counter. */
const loadFigures = (traffic: Traffic): readonly { readonly name: string; readonly read: () => number }[] => [
  { name: "messages/received", read: () => traffic.packetsReceived },
  { name: "messages/sent", read: () => traffic.packetsSent },
  { name: "publish/received", read: () => traffic.publishReceived },
  { name: "publish/sent", read: () => traffic.publishSent },
  { name: "publish/dropped", read: () => traffic.publishDropped },
  { name: "bytes/received", read: () => traffic.bytesReceived },
  { name: "bytes/sent", read: () => traffic.bytesSent },
  { name: "sockets", read: () => traffic.socketsOpened },
  { name: "connections", read: () => traffic.connectionsAccepted },
];

/** Publishes the tree now and then every interval until disposed. */
export function openSysTopics({
  traffic,
  version,
  counts,
  gateway,
  publish,
  intervalMs = 10_000,
}: SysTopicsOptions): Disposable {
  const startedAt = performance.now();
  const shown = new Map<string, string>();
  const show = (topic: string, payload: string, root = "broker"): void => {
    const path = `$SYS/${root}/${topic}`;
    if (shown.get(path) === payload) return;
    shown.set(path, payload);
    publish(path, payload);
  };
  const loads = loadFigures(traffic).flatMap(({ name, read }) =>
    LOAD_MINUTES.map((minutes) => ({ topic: `load/${name}/${minutes}min`, minutes, read, last: read(), average: 0 })),
  );

  const tick = (elapsedMs: number): void => {
    show("uptime", `${Math.floor((performance.now() - startedAt) / 1000)} seconds`);
    for (const { topic, read } of brokerFigures(traffic)) show(topic, String(read()));
    const { disconnected, subscriptions, retained } = counts();
    const { clientsConnected } = traffic;
    show("clients/active", String(clientsConnected));
    show("clients/inactive", String(disconnected));
    show("clients/disconnected", String(disconnected));
    show("clients/total", String(clientsConnected + disconnected));
    show("subscriptions/count", String(subscriptions));
    show("retained messages/count", String(retained));
    const { heapUsed } = memoryUsage();
    show("heap/current", String(heapUsed));
    for (const [topic, value] of gateway()) show(topic, String(Math.round(value)), "gateway");
    for (const load of loads) {
      const total = load.read();
      const perMinute = elapsedMs === 0 ? 0 : ((total - load.last) * 60_000) / elapsedMs;
      const weight = Math.exp(-elapsedMs / (load.minutes * 60_000));
      load.average = perMinute + weight * (load.average - perMinute);
      load.last = total;
      show(load.topic, load.average.toFixed(2));
    }
  };

  show("version", `sluice version ${version}`);
  tick(0);
  let lastTick = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    tick(now - lastTick);
    lastTick = now;
  }, intervalMs);
  timer.unref();
  return {
    [Symbol.dispose]: () => clearInterval(timer),
  };
}
