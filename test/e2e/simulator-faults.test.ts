// Devices with faults and the gateway: what is spoilt is rejected for its reason, what is well is stored once, whatever happens
// to connections. The simulator's ledger is the judge.

import { execPath } from "node:process";
import { join } from "node:path";
import { expect } from "vitest";
import { type GatewayProcess, test } from "../fixtures.ts";
import { run } from "./tools.ts";

const launcher = join(import.meta.dirname, "../../bin/sluice-sim.js");

interface Summary {
  readonly sent: number;
  readonly withdrawn: number;
  readonly invalid: Readonly<Record<string, number>>;
  readonly faults: Readonly<Record<string, number>>;
  readonly errors: Readonly<Record<string, { readonly last: string }>>;
  readonly verification: {
    readonly kept: boolean;
    readonly sinks: readonly Readonly<Record<string, number>>[];
    readonly rejections: readonly Readonly<Record<string, number | string | readonly string[]>>[];
  };
}

/** Twenty devices with these faults; the ledger is held against the sink and the rejected messages. */
async function simulate(
  { mqttPort, dataDir }: GatewayProcess,
  dir: string,
  faults: readonly string[],
  ...more: readonly string[]
): Promise<{ readonly code: number | null; readonly summary: Summary }> {
  const args = ["--devices", "20", "--rate", "20", "--ramp", "200ms", "--reconnect", "200ms", "--seed", "7"];
  // There is no such file before the first message is rejected.
  const inbox = faults.some((fault) => fault.startsWith("empty")) ? [`rejects:${join(dataDir, "rejects.db")}`] : [];
  const targets = [`sqlite:${join(dataDir, "telemetry.db")}`, ...inbox];
  const flags = [
    ...targets.flatMap((target) => ["--verify", target]),
    ...faults.flatMap((fault) => ["--fault", fault]),
  ];
  const output = ["--ledger", join(dir, "ledger"), "--json", "--quiet"];
  const url = `mqtt://127.0.0.1:${mqttPort}`;
  const { code, stdout, stderr } = await run(execPath, [launcher, "--url", url, ...output, ...flags, ...args, ...more])
    .finished;
  expect(stderr).toBe("");
  return { code, summary: JSON.parse(stdout) as Summary };
}

const sound = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0, spoiltStored: 0 };

test.for(["3.1.1", "5"])(
  "MQTT %s: each kind of spoilt message is rejected for its reason, a misspelt topic is ignored",
  async (protocol, { dir, start }) => {
    const gateway = await start();
    const kinds = ["malformed-json", "wrong-type", "missing-seq", "empty", "not-an-object"];
    const others = ["out-of-range", "impossible-time", "hostile-bytes", "wrong-topic"];
    const faults = [...kinds, ...others].map((name) => `${name}:0.05`);
    const { code, summary } = await simulate(gateway, dir, faults, "--count", "60", "--protocol", protocol);
    const { verification, invalid } = summary;
    for (const verdict of verification.sinks) expect(verdict).toMatchObject(sound);
    const rejected = Object.entries(invalid).reduce((sum, [name, n]) => sum + (name === "wrong-topic" ? 0 : n), 0);
    for (const verdict of verification.rejections) {
      expect(verdict).toMatchObject({ spoilt: rejected, rejected, wrongReason: 0, notRejected: 0, examples: [] });
    }
    for (const name of [...kinds, ...others]) expect(invalid[name]).toBeGreaterThan(20);
    expect({ code, kept: verification.kept }).toEqual({ code: 0, kept: true });
  },
);

test.for(["3.1.1", "5"])(
  "MQTT %s: a message that is too large ends the connection and is never acknowledged; the others of its device are",
  async (protocol, { dir, start }) => {
    const gateway = await start();
    const more = ["--count", "40", "--protocol", protocol];
    const { code, summary } = await simulate(gateway, dir, ["oversize:0.05"], ...more);
    expect(summary.withdrawn).toBeGreaterThan(10);
    expect(summary.withdrawn).toBe(summary.invalid["oversize"]);
    const [sink] = summary.verification.sinks;
    expect(sink).toMatchObject({ ...sound, acknowledged: summary.sent - summary.withdrawn });
    expect({ code, kept: summary.verification.kept }).toEqual({ code: 0, kept: true });
  },
);

test.for(["1", "2"])(
  "QoS %s: connections that break in every way, and messages that come twice, late or again",
  async (qos, { dir, start }) => {
    const gateway = await start();
    const deliveries = ["duplicate:0.05", "dup-resend:0.01", "out-of-order:0.05", "clock-skew:0.2", "clock-drift:0.2"];
    const absences = ["offline:0.5:1s:1s", "half-open:0.5:1s:500ms", "reset:0.5:1s", "flapping:0.2:1s:1s"];
    const others = ["reconnect-storm:1:2s", "last-will:0.2:1s", "takeover:0.5:1s:1s", "slow-reader:0.2:500ms:2s"];
    const faults = [...deliveries, ...absences, ...others, "hostile-packets:0.5:500ms:1s"];
    const { code, summary } = await simulate(gateway, dir, faults, "--duration", "8s", "--qos", qos);
    const [sink] = summary.verification.sinks;
    expect(sink).toMatchObject(sound);
    expect(sink?.["resent"]).toBeGreaterThan(50);
    for (const fault of faults) expect(summary.faults).toHaveProperty(fault.replace(/:.*/, ""));
    // The gateway closes what is hostile.
    expect(summary.errors).not.toHaveProperty("fault");
    expect({ code, kept: summary.verification.kept }).toEqual({ code: 0, kept: true });
  },
);
