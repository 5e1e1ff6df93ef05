// Every payload on the wire: real devices, Mosquitto, and mosquitto_sub, which reads what arrived.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { decode } from "cborg";
import { get } from "sparkplug-payload";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openFleet } from "../../../devices-sim/fleet.ts";
import { isInstalled, type Server } from "../../servers/server.ts";
import { startMosquitto } from "../../servers/mosquitto.ts";
import { options } from "../fixtures.ts";

interface Arrival {
  readonly topic: string;
  readonly payload: Buffer;
}

interface Listener extends AsyncDisposable {
  readonly arrivals: readonly Arrival[];
  /** Resolves as soon as there is one that is looked for. */
  find(matches: (arrival: Arrival) => boolean): Promise<Arrival>;
}

const installed = isInstalled("mosquitto") && isInstalled("mosquitto_sub");

let broker: Server;
beforeAll(async () => {
  if (installed) broker = await startMosquitto();
});
afterAll(() => broker[Symbol.asyncDispose]());

/** mosquitto_sub on all topics, subscribed when this resolves. */
async function listen(): Promise<Listener> {
  const child = spawn(
    "stdbuf",
    ["-oL", "mosquitto_sub", "-d", "-p", String(broker.port), "-q", "1", "-t", "#", "-F", "got %t %x"],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const arrivals: Arrival[] = [];
  const waiting = new Set<() => void>();
  const subscribed = Promise.withResolvers<void>();
  createInterface(child.stdout).on("line", (line) => {
    if (line.startsWith("Subscribed")) subscribed.resolve();
    const [, topic = "", hex = ""] = /^got (\S+) ?([0-9a-f]*)$/.exec(line) ?? [];
    if (topic === "") return;
    arrivals.push({ topic, payload: Buffer.from(hex, "hex") });
    for (const look of waiting) look();
  });
  await subscribed.promise;
  return {
    arrivals,
    find: (matches) =>
      new Promise((resolve) => {
        const look = (): void => {
          const found = arrivals.find(matches);
          if (found === undefined) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        look();
      }),
    async [Symbol.asyncDispose]() {
      child.kill();
      await once(child, "exit");
    },
  };
}

/** Two devices with three readings each. */
async function run(...args: readonly string[]): Promise<void> {
  const common = ["--devices", "2", "--count", "3", "--rate", "50", "--ramp", "10ms", "--seed", "3", "--invalid", "0"];
  await using fleet = openFleet(options(broker.port, ...common, ...args));
  const ending = await fleet.ended;
  expect(ending).toMatchObject({ kind: "finished", summary: { errors: {}, skipped: 0, inFlight: 0 } });
}

/** What arrived, until a message with a topic of its own says that all before it is there. */
async function collect(...args: readonly string[]): Promise<readonly Arrival[]> {
  await using listener = await listen();
  await run(...args);
  await run("--payload", "bare", "--profile", "battery", "--topic", "end/{device}", "--count", "1");
  await listener.find(({ topic }) => topic === "end/sim-000001");
  return listener.arrivals.filter(({ topic }) => !topic.startsWith("end/"));
}

const json = ({ payload }: Arrival): unknown => JSON.parse(payload.toString());
/** NBIRTH, DDATA … */
const kind = ({ topic }: Arrival): string => topic.split("/")[2] ?? "";
const topics = (arrivals: readonly Arrival[]): string[] => [...new Set(arrivals.map(({ topic }) => topic))].sort();

test.runIf(installed).each([
  ["flat", "climate", "devices/sim-00000N/telemetry", { seq: 1, temperature: expect.any(Number) }],
  ["thingsboard", "vehicle", "v1/devices/me/telemetry", { ts: expect.any(Number), values: { seq: 1 } }],
  ["tasmota", "power", "tele/sim-00000N/SENSOR", { ENERGY: { Voltage: expect.any(Array) } }],
  ["zigbee2mqtt", "door", "zigbee2mqtt/sim-00000N", { contact: expect.any(Boolean), linkquality: expect.any(Number) }],
  ["sluice", "machine", "devices/sim-00000N/telemetry", { seq: 1, metrics: { kurtosis: expect.any(Number) } }],
])("%s of a %s", async (payload, profile, topic, expected) => {
  const arrivals = await collect("--payload", payload, "--profile", profile);
  expect(arrivals).toHaveLength(6);
  expect(topics(arrivals)).toEqual([...new Set(["1", "2"].map((n) => topic.replace("N", n)))]);
  expect(json(arrivals[0] as Arrival)).toMatchObject(expected);
});

test.runIf(installed)("cbor of a battery", async () => {
  const arrivals = await collect("--payload", "cbor", "--profile", "battery");
  const own = arrivals.filter(({ topic }) => topic === "devices/sim-000002/telemetry");
  expect(own.map(({ payload }) => decode(payload) as unknown)).toMatchObject([
    { seq: 1, metrics: { soc: expect.any(Number) } },
    { seq: 2 },
    { seq: 3 },
  ]);
});

test.runIf(installed)("bare values of a climate sensor", async () => {
  const arrivals = await collect("--payload", "bare");
  expect(arrivals).toHaveLength(36);
  expect(topics(arrivals)).toContain("devices/sim-000002/dew_point");
  for (const { payload } of arrivals) expect(Number(payload.toString())).not.toBeNaN();
});

test.runIf(installed)("sparkplug-b: birth before data, seq without a gap, death at the end", async () => {
  const oracle = get("spBv1.0");
  if (!oracle) throw new Error("the oracle does not know Sparkplug B");
  const arrivals = await collect("--payload", "sparkplug-b", "--profile", "door");
  const own = arrivals.filter(({ topic }) => topic.includes("/sim-000001"));
  expect(own.map(kind)).toEqual(["NBIRTH", "DBIRTH", "DDATA", "DDATA", "DDATA", "NDEATH"]);
  const payloads = own.map(({ payload }) => oracle.decodePayload(payload));
  expect(payloads.slice(0, 5).map(({ seq }) => Number(seq))).toEqual([0, 1, 2, 3, 4]);
  expect(payloads.slice(2, 5).map(({ metrics }) => Number(metrics?.[0]?.value))).toEqual([1, 2, 3]);
});

test.runIf(installed)(
  "sparkplug-b: a rebirth on command, and the will with the bdSeq of the birth when it is cut off",
  async () => {
    const oracle = get("spBv1.0");
    if (!oracle) throw new Error("the oracle does not know Sparkplug B");
    const bdSeq = ({ payload }: Arrival): number => Number(oracle.decodePayload(payload).metrics?.[0]?.value);
    await using listener = await listen();
    const fleet = openFleet(
      options(broker.port, "--devices", "1", "--payload", "sparkplug-b", "--rate", "20", "--ramp", "10ms"),
    );
    await listener.find((each) => kind(each) === "DDATA");
    const command = oracle.encodePayload({
      timestamp: Date.now(),
      metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: true }],
    });
    const publisher = spawn("mosquitto_pub", ["-p", String(broker.port), "-t", "spBv1.0/sluice/NCMD/sim-000001", "-s"]);
    publisher.stdin.end(command);
    await listener.find(
      (each) => kind(each) === "NBIRTH" && each !== listener.arrivals.find((one) => kind(one) === "NBIRTH"),
    );
    // The threads end at once, without a DISCONNECT: the broker publishes the will.
    await fleet[Symbol.asyncDispose]();
    const death = await listener.find((each) => kind(each) === "NDEATH");
    const births = listener.arrivals.filter((each) => kind(each) === "NBIRTH");
    expect(births.map(bdSeq)).toEqual([0, 0]);
    expect(bdSeq(death)).toBe(0);
  },
);
