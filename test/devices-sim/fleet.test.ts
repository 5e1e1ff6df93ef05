import { get } from "sparkplug-payload";
import { expect, test } from "vitest";
import { openFleet, type Ending } from "../../devices-sim/fleet.ts";
import { toExitCode, type Summary } from "../../devices-sim/report/summary.ts";
import type { Point } from "../../devices-sim/report/timeline.ts";
import { freePort, openBroker, options, type Arrival } from "./fixtures.ts";

function summaryOf(ending: Ending): Summary {
  if (ending.kind !== "finished") throw new Error(`${ending.kind}: ${ending.detail}`);
  return ending.summary;
}

const sum = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((total, count) => total + count, 0);

/** The seq numbers of each device's messages, in order of arrival. */
function seqs(arrivals: readonly Arrival[]): Map<string, number[]> {
  const byDevice = new Map<string, number[]>();
  for (const { clientId, payload } of arrivals) {
    const { seq } = JSON.parse(payload) as { seq: number };
    byDevice.set(clientId, [...(byDevice.get(clientId) ?? []), seq]);
  }
  return byDevice;
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, at) => at + 1);

test("twenty devices over two seconds: everything arrives, in order per device, and the summary agrees", async () => {
  await using broker = await openBroker();
  await using fleet = openFleet(
    options(broker.port, "--devices", "20", "--rate", "10", "--ramp", "300ms", "--duration", "2s", "--invalid", "0"),
  );
  const summary = summaryOf(await fleet.ended);

  expect(summary).toMatchObject({ connectedMax: 20, neverConnected: 0, unacknowledged: 0, invalidSent: 0, errors: {} });
  expect(summary.sent).toBeGreaterThan(100);
  expect(summary.sent).toBe(broker.arrivals.length);
  expect(summary.acknowledged).toBe(summary.sent);
  expect(summary.pubackMs?.p99).toBeGreaterThan(0);
  expect(toExitCode(summary)).toBe(0);
  const devices = seqs(broker.arrivals);
  expect([...devices.keys()].sort()).toEqual(upTo(20).map((n) => `sim-${String(n).padStart(6, "0")}`));
  for (const numbers of devices.values()) expect(numbers).toEqual(upTo(numbers.length));
  for (const { topic, clientId } of broker.arrivals) expect(topic).toBe(`devices/${clientId}/telemetry`);
});

test.each(["0", "1", "2"])(
  "a count ends the run by itself at QoS %s: exactly that many messages per device",
  async (qos) => {
    await using broker = await openBroker();
    await using fleet = openFleet(
      options(
        broker.port,
        "--devices",
        "4",
        "--count",
        "6",
        "--rate",
        "50",
        "--ramp",
        "50ms",
        "--qos",
        qos,
        "--invalid",
        "0",
        "--protocol",
        "5",
      ),
    );
    const summary = summaryOf(await fleet.ended);
    expect(summary).toMatchObject({ sent: 24, acknowledged: qos === "0" ? 0 : 24, unacknowledged: 0, inFlight: 0 });
    for (const numbers of seqs(broker.arrivals).values()) expect(numbers).toEqual(upTo(6));
  },
);

test("spoilt messages are counted by kind and take no number: the good ones stay consecutive", async () => {
  await using broker = await openBroker();
  await using fleet = openFleet(
    options(
      broker.port,
      "--devices",
      "4",
      "--count",
      "50",
      "--rate",
      "200",
      "--ramp",
      "50ms",
      "--invalid",
      "0.3",
      "--seed",
      "9",
    ),
  );
  const summary = summaryOf(await fleet.ended);
  const good = broker.arrivals.filter(({ payload }) => isGood(payload));
  expect(summary.invalidSent).toBe(200 - good.length);
  expect(summary.invalid["empty"]).toBe(broker.arrivals.filter(({ payload }) => payload === "").length);
  for (const numbers of seqs(good).values()) expect(numbers).toEqual(upTo(numbers.length));
});

test("connections that are cut come back and what was in flight is acknowledged after all", async () => {
  await using broker = await openBroker();
  let toCut = 3;
  broker.aedes.on("publish", (_packet, client) => {
    if (client && toCut > 0 && broker.arrivals.length > 40 * (4 - toCut)) {
      toCut -= 1;
      broker.cut();
    }
  });
  await using fleet = openFleet(
    options(
      broker.port,
      "--devices",
      "10",
      "--count",
      "20",
      "--rate",
      "20",
      "--ramp",
      "50ms",
      "--reconnect",
      "100ms",
      "--invalid",
      "0",
    ),
  );
  const summary = summaryOf(await fleet.ended);
  expect(toCut).toBe(0);
  expect(summary).toMatchObject({ sent: 200, acknowledged: 200, unacknowledged: 0, connectedMax: 10 });
  expect(summary.errors["connection lost"]?.count).toBeGreaterThanOrEqual(3);
  for (const numbers of seqs(broker.arrivals).values()) expect([...new Set(numbers)]).toEqual(upTo(20));
});

test("the time line adds up to the summary, and has the second in which connections were cut", async () => {
  await using broker = await openBroker();
  let isCut = false;
  broker.aedes.on("publish", (_packet, client) => {
    if (client === null || isCut || broker.arrivals.length < 100) return;
    isCut = true;
    broker.cut();
  });
  await using fleet = openFleet(
    options(
      broker.port,
      "--devices",
      "10",
      "--count",
      "30",
      "--rate",
      "10",
      "--ramp",
      "50ms",
      "--reconnect",
      "100ms",
      "--invalid",
      "0.2",
      "--threads",
      "2",
    ),
  );
  fleet.mark("looked at");
  const ending = await fleet.ended;
  const summary = summaryOf(ending);
  if (ending.kind !== "finished") return;
  const { points, marks } = ending.timeline;
  const total = (pick: (point: Point) => number): number => points.reduce((all, point) => all + pick(point), 0);
  expect(total(({ sent }) => sent)).toBe(summary.sent);
  expect(total(({ acknowledged }) => acknowledged)).toBe(summary.acknowledged);
  expect(total(({ faults }) => sum(faults))).toBe(summary.invalidSent);
  expect(total(({ errors }) => errors["connection lost"] ?? 0)).toBe(10);
  expect(points.at(-1)?.connected).toBe(10);
  expect(Math.max(...points.map(({ pubackMs }) => pubackMs?.max ?? 0))).toBeCloseTo(summary.pubackMs?.max ?? 0, 3);
  expect(marks.map(({ text }) => text)).toEqual(["looked at", "all devices are connected"]);
});

test("a broker that withholds acknowledgements is not flooded: readings beyond the bound are skipped", async () => {
  await using broker = await openBroker();
  broker.aedes.authorizePublish = () => {
    // Never calls back: no PUBACK.
  };
  const sim = options(
    broker.port,
    "--devices",
    "2",
    "--rate",
    "100",
    "--ramp",
    "10ms",
    "--duration",
    "1h",
    "--in-flight",
    "5",
  );
  await using fleet = openFleet({ ...sim, drainMs: 100 });
  const isHeld = (): boolean => {
    const { sent, skipped } = fleet.progress().counters;
    return sent === 10 && skipped > 20;
  };
  await expect.poll(isHeld, { timeout: 30_000 }).toBe(true);
  fleet.stop();
  const summary = summaryOf(await fleet.ended);
  expect(summary).toMatchObject({ sent: 10, acknowledged: 0, unacknowledged: 10, inFlight: 10 });
  expect(toExitCode(summary)).toBe(1);
});

test("stop() ends a run early and in order", async () => {
  await using broker = await openBroker();
  await using fleet = openFleet(
    options(broker.port, "--devices", "5", "--rate", "50", "--ramp", "10ms", "--duration", "1h", "--invalid", "0"),
  );
  const left: string[] = [];
  broker.aedes.on("clientDisconnect", (client) => left.push(client.id));
  await new Promise<void>((resolve) => {
    broker.aedes.on("publish", (_packet, client) => {
      if (client && seqs(broker.arrivals).size === 5) resolve();
    });
  });
  fleet.stop();
  fleet.stop();
  const summary = summaryOf(await fleet.ended);
  expect(summary.acknowledged).toBe(summary.sent);
  expect(summary.sent).toBe(broker.arrivals.length);
  expect(summary.errors).toEqual({});
  await expect.poll(() => left.length, { timeout: 30_000 }).toBe(5);
});

test("credentials that the broker refuses end the run with the reason", async () => {
  await using broker = await openBroker();
  broker.aedes.authenticate = (_client, _username, _password, done) => done(null, false);
  await using fleet = openFleet(
    options(broker.port, "--devices", "3", "--username", "{device}", "--password", "wrong"),
  );
  expect(await fleet.ended).toMatchObject({
    kind: "credentials-refused",
    detail: expect.stringContaining("sim-000001"),
  });
});

test("user names and passwords can be those of the device", async () => {
  await using broker = await openBroker();
  const seen: string[] = [];
  broker.aedes.authenticate = (client, username, password, done) => {
    seen.push(`${client.id} ${username} ${String(password)}`);
    done(null, true);
  };
  await using fleet = openFleet(
    options(
      broker.port,
      "--devices",
      "1",
      "--count",
      "1",
      "--rate",
      "100",
      "--username",
      "{device}",
      "--password",
      "of-{device}",
    ),
  );
  summaryOf(await fleet.ended);
  expect(seen).toEqual(["sim-000001 sim-000001 of-sim-000001"]);
});

test("a broker that is not there ends the run with the reason", async () => {
  const port = await freePort();
  await using fleet = openFleet(
    options(port, "--devices", "3", "--give-up", "1500ms", "--reconnect", "200ms", "--ramp", "10ms"),
  );
  expect(await fleet.ended).toMatchObject({ kind: "unreachable", detail: expect.stringContaining("ECONNREFUSED") });
});

function isGood(payload: string): boolean {
  try {
    const { seq, metrics } = JSON.parse(payload) as { seq?: number; metrics?: Record<string, unknown> };
    return seq !== undefined && Object.values(metrics ?? {}).every((value) => typeof value === "number");
  } catch {
    return false;
  }
}

test("a reading of many messages is sent as a whole and never has more in flight than may be", async () => {
  await using broker = await openBroker();
  broker.aedes.authorizePublish = () => {
    // Never calls back: no PUBACK.
  };
  const args = ["--devices", "1", "--rate", "200", "--ramp", "10ms", "--duration", "1h", "--in-flight", "20"];
  const sim = options(broker.port, "--payload", "bare", ...args);
  await using fleet = openFleet({ ...sim, drainMs: 100 });
  await expect.poll(() => fleet.progress().counters.skipped > 20, { timeout: 30_000 }).toBe(true);
  // Three climate readings of six messages each.
  expect(fleet.progress().counters).toMatchObject({ sent: 18, inFlight: 18 });
});

test("Sparkplug: after a cut connection there is a birth before the data, with the next bdSeq", async () => {
  await using broker = await openBroker();
  const kinds: string[] = [];
  const bdSeqs: (number | undefined)[] = [];
  let cut = false;
  broker.aedes.on("publish", ({ topic, payload }, client) => {
    const [, , kind = "", node] = topic.split("/");
    if (!client || node !== "sim-000001") return;
    kinds.push(kind);
    if (kind === "NBIRTH")
      bdSeqs.push(
        get("spBv1.0")
          ?.decodePayload(Buffer.from(payload))
          .metrics?.map(({ value }) => Number(value))[0],
      );
    if (kind === "DDATA" && !cut) {
      cut = true;
      broker.cut();
    }
  });
  const args = ["--devices", "1", "--count", "40", "--rate", "20", "--ramp", "10ms", "--reconnect", "100ms"];
  await using fleet = openFleet(options(broker.port, "--payload", "sparkplug-b", ...args));
  summaryOf(await fleet.ended);
  expect(kinds.slice(0, 3)).toEqual(["NBIRTH", "DBIRTH", "DDATA"]);
  const second = kinds.lastIndexOf("NBIRTH");
  expect(kinds.slice(second, second + 3)).toEqual(["NBIRTH", "DBIRTH", "DDATA"]);
  expect(bdSeqs).toEqual([0, 1]);
});
