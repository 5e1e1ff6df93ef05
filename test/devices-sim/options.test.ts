import { resolve } from "node:path";
import { expect, test } from "vitest";
import { duration } from "../../devices-sim/arguments.ts";
import { parseOptions } from "../../devices-sim/options.ts";

const run = (...args: string[]) => {
  const parsed = parseOptions(args);
  if (parsed.kind !== "run") throw new Error(parsed.text);
  return parsed;
};

test("without options it is a hundred climate sensors on this machine for a minute", () => {
  const { sim, output } = run();
  expect(sim).toMatchObject({
    host: "127.0.0.1",
    port: 1883,
    devices: 100,
    ratePerDevice: undefined,
    durationMs: 60_000,
    count: undefined,
    qos: 1,
    protocolVersion: 4,
    clean: true,
    profile: "climate",
    topic: "devices/{device}/telemetry",
  });
  expect(output).toEqual({ json: undefined, quiet: false });
});

test("a total rate is shared by the devices", () => {
  expect(run("--devices", "200", "--total-rate", "50").sim.ratePerDevice).toBe(0.25);
});

test("a count alone has no time limit, with a duration it has both", () => {
  expect(run("--count", "5").sim).toMatchObject({ count: 5, durationMs: undefined });
  expect(run("--count", "5", "--duration", "2s").sim).toMatchObject({ count: 5, durationMs: 2000 });
});

test("there are never more threads than devices", () => {
  expect(run("--devices", "2", "--threads", "8").sim.threads).toBe(2);
});

test("times are given with their unit", () => {
  expect([duration("500ms"), duration("10s"), duration("1.5m"), duration("1h")]).toEqual([
    500, 10_000, 90_000, 3_600_000,
  ]);
});

test.each([
  ["--devices", "0", "whole number from 1"],
  ["--devices", "1e3", "whole number"],
  ["--metrics-port", "65536", "whole number from 0 to 65535"],
  ["--rate", "fast", "number from 0.0001"],
  ["--jitter", "2", "number from 0 to 1"],
  ["--invalid", "-0.1", "number from 0 to 1"],
  ["--duration", "10", "time with its unit"],
  ["--duration", "30000h", "time with its unit"],
  ["--qos", "3", "0, 1, 2"],
  ["--protocol", "4", "3.1.1, 5"],
  ["--profile", "nuclear", "climate"],
  ["--topic", "devices/+/telemetry", "[MQTT-3.3.2-2]"],
  ["--url", "http://127.0.0.1", "mqtt://host:port"],
  ["--url", "mqtt://user@127.0.0.1", "mqtt://host:port"],
])("%s %s is refused with exit code 2, naming the option and what was expected", (name, value, expected) => {
  const parsed = parseOptions([name, value]);
  expect(parsed).toMatchObject({ kind: "told", exitCode: 2, text: expect.stringContaining(name) });
  expect(parsed).toMatchObject({ text: expect.stringContaining(expected) });
});

test("a rate for each device and one for all exclude each other", () => {
  expect(parseOptions(["--rate", "1", "--total-rate", "5"])).toMatchObject({ kind: "told", exitCode: 2 });
});

test("an unknown option is refused", () => {
  expect(parseOptions(["--devcies", "5"])).toMatchObject({ exitCode: 2, text: expect.stringContaining("--devices") });
});

test("a password without a user name is refused [MQTT-3.1.2-22]", () => {
  expect(parseOptions(["--password", "x"])).toMatchObject({ kind: "told", exitCode: 2 });
});

test.each(["mqtt://192.0.2.1:1883", "mqtt://broker.example", "mqtt://127.example.org", "mqtt://[2001:db8::1]"])(
  "the broker %s is somebody else's until --i-own-this-broker is given",
  (address) => {
    expect(parseOptions(["--url", address])).toMatchObject({
      exitCode: 2,
      text: expect.stringContaining("--i-own-this-broker"),
    });
    expect(parseOptions(["--url", address, "--i-own-this-broker"])).toMatchObject({ kind: "run" });
  },
);

test.each(["mqtt://localhost", "mqtt://127.8.9.1:1884", "mqtt://[::1]:1883"])(
  "the broker %s is this machine",
  (address) => {
    expect(parseOptions(["--url", address])).toMatchObject({ kind: "run" });
  },
);

test("sinks to verify need a ledger, and must be some that are known", () => {
  const ledger = ["--ledger", "l"];
  expect(parseOptions(["--verify", "sqlite:t.db"])).toMatchObject({
    exitCode: 2,
    text: expect.stringContaining("--ledger"),
  });
  expect(parseOptions([...ledger, "--verify", "t.db"])).toMatchObject({
    exitCode: 2,
    text: expect.stringContaining("sqlite:FILE"),
  });
  expect(parseOptions([...ledger, "--verify", "sqlite:t.db", "--verify", "rejects:r.db"])).toMatchObject({
    sim: { ledger: resolve("l") },
    verify: { waitMs: 30_000, targets: [{ path: "t.db" }, { path: "r.db" }] },
  });
});

test("help is not an error", () => {
  expect(parseOptions(["--help"])).toMatchObject({
    kind: "told",
    exitCode: 0,
    text: expect.stringContaining("--devices"),
  });
});

test("a payload brings its topic and quality of service, and others may be asked for", () => {
  expect(run("--payload", "tasmota").sim).toMatchObject({ topic: "tele/{device}/SENSOR", qos: 1 });
  expect(run("--payload", "tasmota").sim.phases[0]?.faults).toEqual([]);
  expect(run("--payload", "sparkplug-b").sim).toMatchObject({ topic: "spBv1.0/sluice/DDATA/{device}/sensor", qos: 0 });
  expect(run("--payload", "bare", "--topic", "a/{device}", "--qos", "2").sim).toMatchObject({
    topic: "a/{device}",
    qos: 2,
  });
  expect(run().sim.payload).toBe("sluice");
});

test.each([
  [["--payload", "flat", "--invalid", "0.1"], "--payload sluice"],
  [["--payload", "sparkplug-b", "--topic", "devices/{device}"], "spBv1.0/GROUP/DDATA/NODE/DEVICE"],
  [["--payload", "flat", "--topic", "devices/{device}/{metric}"], "{metric}"],
  [["--payload", "xml"], "zigbee2mqtt"],
])("%s is refused", (args, expected) => {
  expect(parseOptions(args)).toMatchObject({ exitCode: 2, text: expect.stringContaining(expected) });
});
