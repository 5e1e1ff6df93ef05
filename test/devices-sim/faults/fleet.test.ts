// Each fault of deliveries and connections, seen by a broker.

import { describe, expect, test } from "vitest";
import { openFleet } from "../../../devices-sim/fleet.ts";
import { toExitCode, type Summary } from "../../../devices-sim/report/summary.ts";
import { openBroker, options, type TestBroker } from "../fixtures.ts";

const base = ["--devices", "3", "--threads", "1", "--ramp", "10ms", "--reconnect", "100ms", "--seed", "5"];

async function run(broker: TestBroker, ...args: readonly string[]): Promise<Summary> {
  await using fleet = openFleet(options(broker.port, ...base, ...args));
  const ending = await fleet.ended;
  if (ending.kind !== "finished") throw new Error(`${ending.kind}: ${ending.detail}`);
  expect(ending.summary).toMatchObject({ unacknowledged: 0, neverConnected: 0 });
  return ending.summary;
}

/** The sequence numbers of one device, as they arrived. */
const seqsOf = ({ arrivals }: TestBroker, device = "sim-000001"): readonly number[] =>
  arrivals
    .filter(({ clientId }) => clientId === device)
    .map(({ payload }) => (JSON.parse(payload) as { seq: number }).seq);

const upTo = (count: number): readonly number[] => Array.from({ length: count }, (_, at) => at + 1);

interface Publish {
  readonly dup: boolean;
  readonly payload: string;
}

/** Every PUBLISH as it was on the wire. */
function watchPublishes({ aedes }: TestBroker): readonly Publish[] {
  const packets: Publish[] = [];
  aedes.authorizePublish = (_client, { dup, payload }, done) => {
    packets.push({ dup, payload: String(payload) });
    done(null);
  };
  return packets;
}

describe("deliveries", () => {
  test("duplicate: each message comes as two", async () => {
    await using broker = await openBroker();
    const summary = await run(broker, "--rate", "50", "--count", "5", "--fault", "duplicate:1");
    expect(seqsOf(broker)).toEqual([1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    expect(summary).toMatchObject({ sent: 30, acknowledged: 30, faults: { duplicate: 15 } });
  });

  test("out-of-order: each message comes behind the next, and none is missing at the end", async () => {
    await using broker = await openBroker();
    await run(broker, "--rate", "50", "--count", "5", "--fault", "out-of-order:1");
    expect(seqsOf(broker)).toEqual([2, 1, 4, 3, 5]);
  });

  test.for(["1", "2"])("dup-resend at QoS %s: what was acknowledged unheard comes again, with DUP", async (qos) => {
    await using broker = await openBroker();
    const packets = watchPublishes(broker);
    const args = ["--rate", "50", "--count", "10", "--fault", "dup-resend:0.3", "--qos", qos];
    const { faults, sent } = await run(broker, ...args);
    const again = packets.filter(({ dup }) => dup).map(({ payload }) => payload);
    const first = packets.filter(({ dup }) => !dup).map(({ payload }) => payload);
    expect(first).toHaveLength(sent);
    expect(faults["dup-resend"]).toBeGreaterThan(2);
    expect(new Set(again).size).toBeGreaterThanOrEqual(faults["dup-resend"] ?? 0);
    for (const payload of again) expect(first).toContain(payload);
    expect([...new Set(seqsOf(broker))]).toEqual(upTo(10));
  });
});

describe("connections", () => {
  test("offline: what was measured meanwhile comes in a burst, in order, and nothing is missing", async () => {
    await using broker = await openBroker();
    const args = ["--rate", "50", "--count", "100", "--fault", "offline:1:400ms:600ms"];
    const summary = await run(broker, ...args);
    expect(summary).toMatchObject({ sent: 300, acknowledged: 300, skipped: 0, errors: {} });
    expect(summary.faults["offline"]).toBeGreaterThanOrEqual(3);
    // What was not acknowledged when it left comes once more.
    expect([...new Set(seqsOf(broker))]).toEqual(upTo(100));
  });

  test.for(["reset:1:400ms", "reconnect-storm:1:400ms", "flapping:1:400ms:500ms", "half-open:1:400ms:500ms"])(
    "%s: the devices come back, and nothing is lost",
    async (fault) => {
      const [name = ""] = fault.split(":");
      await using broker = await openBroker();
      let connections = 0;
      broker.aedes.on("client", () => {
        connections += 1;
      });
      const args = ["--rate", "50", "--duration", "2500ms", "--fault", fault];
      const { acknowledged, faults, errors } = await run(broker, ...args);
      expect(faults[name]).toBeGreaterThanOrEqual(3);
      // The last fault of a device may come when it has no time to come back.
      expect(connections).toBeGreaterThanOrEqual(faults[name] ?? 0);
      expect(errors).toEqual({});
      const seqs = ["sim-000001", "sim-000002", "sim-000003"].map((id) => [...new Set(seqsOf(broker, id))]);
      for (const numbers of seqs) expect(numbers).toEqual(upTo(numbers.length));
      expect(seqs.flat()).toHaveLength(acknowledged);
    },
  );

  test.for([
    ["half-open:1:400ms:500ms", true],
    ["reset:1:400ms", false],
  ] as const)("%s: the broker has the old connection when the new one comes: %s", async ([fault, isThere]) => {
    await using broker = await openBroker();
    const there: boolean[] = [];
    const ids = new Set<string>();
    const connected = new Set<string>();
    broker.aedes.on("client", ({ id }) => connected.add(id));
    broker.aedes.on("clientDisconnect", ({ id }) => connected.delete(id));
    broker.aedes.preConnect = (_client, { clientId }, done) => {
      if (ids.has(clientId)) there.push(connected.has(clientId));
      ids.add(clientId);
      done(null, true);
    };
    await run(broker, "--rate", "20", "--duration", "1500ms", "--fault", fault);
    expect(there.length).toBeGreaterThanOrEqual(3);
    const stale = there.filter((each) => each).length;
    // Of a half-open device every second connection is the one that is left behind.
    expect(stale).toBe(isThere ? Math.floor(there.length / 2) : 0);
  });

  test("reconnect-storm: all are back at once, not after the reconnect delay", async () => {
    await using broker = await openBroker();
    const times: number[] = [];
    broker.aedes.on("client", () => times.push(performance.now()));
    const args = ["--duration", "1500ms", "--reconnect", "1m", "--fault", "reconnect-storm:1:1s"];
    await run(broker, ...args);
    const storm = times.slice(3);
    expect(storm).toHaveLength(3);
    expect(Math.max(...storm) - Math.min(...storm)).toBeLessThan(300);
  });

  test("last-will: the broker publishes the wills of devices that die, and none of those that leave", async () => {
    await using broker = await openBroker();
    const wills: string[] = [];
    broker.aedes.on("publish", ({ topic, payload }) => {
      if (topic.endsWith("/status")) wills.push(`${topic} ${String(payload)}`);
    });
    const { faults } = await run(broker, "--duration", "1500ms", "--fault", "last-will:1:1s");
    await expect.poll(() => wills.length).toBe(faults["last-will"]);
    expect(wills).toContain("devices/sim-000001/telemetry/status offline");
  });

  test("takeover: the device loses its connection to a second client, and takes it back", async () => {
    await using broker = await openBroker();
    const clients: string[] = [];
    broker.aedes.on("client", ({ id }) => clients.push(id));
    const { faults } = await run(broker, "--rate", "20", "--duration", "2500ms", "--fault", "takeover:1:1s:1s");
    expect(faults["takeover"]).toBeGreaterThanOrEqual(3);
    // The first connection, that of the other, and the device's second one.
    expect(clients.length).toBeGreaterThanOrEqual(3 + 2 * (faults["takeover"] ?? 0) - 3);
    expect(new Set(clients).size).toBe(3);
  });

  test("slow-reader: a second client subscribes to all devices", async () => {
    await using broker = await openBroker();
    const filters: string[] = [];
    broker.aedes.on("subscribe", (subscriptions, { id }) => {
      for (const { topic } of subscriptions) filters.push(`${id} ${topic}`);
    });
    await run(broker, "--duration", "1s", "--fault", "slow-reader:1:200ms:5s");
    expect(filters).toContain("sim-000001-slow devices/+/telemetry");
  });

  test("hostile-packets: a broker that closes the connection is right, one that does not is told of", async () => {
    await using broker = await openBroker();
    const args = ["--duration", "2s", "--fault", "hostile-packets:1:100ms:300ms"];
    const summary = await run(broker, ...args);
    expect(summary.faults["hostile-packets"]).toBeGreaterThan(5);
    expect(toExitCode(summary)).toBe(0);
    expect(summary.errors).toEqual({});
  });
});

test("a seed repeats every byte, with all that is wrong with it", async () => {
  const kinds = ["malformed-json:0.1", "hostile-bytes:0.2", "wrong-topic:0.1", "duplicate:0.1", "out-of-order:0.1"];
  const flags = [...kinds, "clock-skew:0.7", "clock-drift:0.7"].flatMap((fault) => ["--fault", fault]);
  const args = ["--rate", "100", "--count", "30", "--clock", "2026-11-29T00:00:00Z", ...flags];
  const runs = await Promise.all(
    ["5", "5", "6"].map(async (seed) => {
      await using broker = await openBroker();
      await run(broker, ...args, "--seed", seed);
      return broker.arrivals.filter(({ clientId }) => clientId === "sim-000002");
    }),
  );
  const [first = [], second, other] = runs;
  expect(first.length).toBeGreaterThan(30);
  expect(second).toEqual(first);
  expect(other).not.toEqual(first);
});

test("phases follow each other and begin again: one in two sends twice, and twice as often", async () => {
  await using broker = await openBroker();
  const sim = options(broker.port, ...base, "--rate", "25", "--jitter", "0", "--duration", "2s", "--devices", "1");
  const calm = { name: "calm", durationMs: 500, rate: 1, faults: [] };
  const busy = { name: "busy", durationMs: 500, rate: 2, faults: [{ name: "duplicate", share: 1 }] as const };
  await using fleet = openFleet({ ...sim, phases: [calm, busy] });
  expect((await fleet.ended).kind).toBe("finished");
  const seqs = seqsOf(broker);
  const copies = [...new Set(seqs)].map((seq) => seqs.filter((each) => each === seq).length);
  const runs = copies.join("").match(/1+|2+/g) ?? [];
  expect(runs.map((text) => text[0])).toEqual(["1", "2", "1", "2"]);
  for (const text of runs) expect(Math.abs(text.length - (text.startsWith("1") ? 12 : 25))).toBeLessThan(6);
});
