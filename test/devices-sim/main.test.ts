import { once } from "node:events";
import { existsSync } from "node:fs";
import { copyFile, mkdtemp, readFile, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { expect, test } from "vitest";
import type { Machine } from "../../devices-sim/report/machine.ts";
import type { TimelineData } from "../../devices-sim/report/timeline.ts";
import { makeCertificates } from "../servers/certificates.ts";
import { freePort, openBroker, spawnSim } from "./fixtures.ts";

test("an unreachable broker is a clear error and exit code 1, with nothing left running", async () => {
  const port = await freePort();
  const { result } = spawnSim("--url", `mqtt://127.0.0.1:${port}`, "--devices", "3", "--give-up", "1s");
  const { code, stderr } = await result;
  expect(stderr).toContain(`no device could connect to mqtt://127.0.0.1:${port}`);
  expect(code).toBe(1);
});

test("a broker whose certificate nobody vouches for is a clear error and exit code 1, at once", async () => {
  const dir = await mkdtemp(join(tmpdir(), "sluice-sim-"));
  const { server } = await makeCertificates(dir);
  const [cert, key] = await Promise.all([readFile(server.cert), readFile(server.key)]);
  const broker = createTlsServer({ cert, key }).listen(0, "127.0.0.1");
  try {
    await once(broker, "listening");
    const { port } = broker.address() as AddressInfo;
    const url = ["--url", `mqtts://127.0.0.1:${port}`, "--devices", "1"];
    const { code, stderr } = await spawnSim(...url, "--give-up", "10m").result;
    expect(stderr).toContain(
      `error: no device can connect to mqtts://127.0.0.1:${port}: sim-000001: unable to verify the first certificate`,
    );
    expect(stderr).toContain("--ca");
    expect(code).toBe(1);
  } finally {
    broker.close();
    await rm(dir, { recursive: true });
  }
});

test("a key that is not that of its device's certificate is exit code 2, with both files, before anything begins", async () => {
  const dir = await mkdtemp(join(tmpdir(), "sluice-sim-"));
  try {
    const { issue } = await makeCertificates(dir);
    const [first, second] = [await issue("sim-000001"), await issue("sim-000002")];
    await copyFile(first.key, second.key);
    const own = ["--cert", join(dir, "{device}.crt"), "--key", join(dir, "{device}.key"), "--devices", "2"];
    const ledger = join(dir, "ledger");
    const { code, stderr } = await spawnSim("--url", "mqtts://127.0.0.1", ...own, "--ledger", ledger).result;
    expect(stderr).toBe(
      `error: cannot use ${second.cert} with ${second.key}: the key is not that of the certificate\n`,
    );
    expect(code).toBe(2);
    expect(existsSync(ledger)).toBe(false);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("a wrong option is exit code 2", async () => {
  const { code, stderr } = await spawnSim("--devices", "none").result;
  expect(stderr).toContain("--devices");
  expect(code).toBe(2);
});

test("--json leaves standard output to the summary; SIGINT twice at once, as from npm, ends in order", async () => {
  await using broker = await openBroker();
  const { child, result } = spawnSim(
    "--url",
    `mqtt://127.0.0.1:${broker.port}`,
    "--devices",
    "5",
    "--ramp",
    "10ms",
    "--rate",
    "20",
    "--json",
  );
  await once(broker.aedes, "publish");
  child.kill("SIGINT");
  child.kill("SIGINT");
  const { code, stdout } = await result;
  expect(JSON.parse(stdout)).toMatchObject({ devices: 5, unacknowledged: 0 });
  expect(code).toBe(0);
});

test("--json FILE writes the summary there, and people read theirs on standard output", async () => {
  await using broker = await openBroker();
  const dir = await mkdtemp(join(tmpdir(), "sluice-sim-"));
  try {
    const file = join(dir, "summary.json");
    const { result } = spawnSim(
      "--url",
      `mqtt://127.0.0.1:${broker.port}`,
      "--devices",
      "2",
      "--ramp",
      "10ms",
      "--rate",
      "50",
      "--count",
      "3",
      "--json",
      file,
    );
    const { code, stdout } = await result;
    expect(JSON.parse(await readFile(file, "utf8"))).toMatchObject({ sent: 6, acknowledged: 6 });
    expect(stdout).toMatch(/^acknowledged +6$/m);
    expect(code).toBe(0);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("an own profile measures what it says, at its own rhythm", async () => {
  await using broker = await openBroker();
  const { result } = spawnSim(
    "--url",
    `mqtt://127.0.0.1:${broker.port}`,
    "--profile",
    "config/boiler.ts",
    "--rate",
    "50",
    "--devices",
    "2",
    "--ramp",
    "10ms",
    "--count",
    "3",
    "--invalid",
    "0",
  );
  expect((await result).code).toBe(0);
  expect(broker.arrivals).toHaveLength(6);
  for (const { payload } of broker.arrivals) {
    expect(JSON.parse(payload)).toMatchObject({ metrics: { water: expect.any(Number), starts: expect.any(Number) } });
  }
});

test("devices of events send as often on average as --rate says, each when something happens", async () => {
  await using broker = await openBroker();
  const { result } = spawnSim(
    "--url",
    `mqtt://127.0.0.1:${broker.port}`,
    "--profile",
    "door",
    "--rate",
    "20",
    "--devices",
    "10",
    "--ramp",
    "10ms",
    "--count",
    "60",
    "--invalid",
    "0",
    "--seed",
    "4",
    "--json",
  );
  const { code, stdout } = await result;
  expect(code).toBe(0);
  const { sent, durationMs } = JSON.parse(stdout) as { sent: number; durationMs: number };
  expect(sent).toBe(600);
  // Ends with the slowest of ten devices, each of which is 3 s of the mean away from its end.
  expect(durationMs).toBeGreaterThan(2500);
  expect(durationMs).toBeLessThan(8000);
});

test("a profile with an error is exit code 2, naming the file", async () => {
  const { code, stderr } = await spawnSim("--profile", "./nowhere.ts").result;
  expect(stderr).toContain("option '--profile': nowhere.ts: there is no such file");
  expect(code).toBe(2);
});

test("--html writes a page of the run, and the summary has its time line and machine", async () => {
  await using broker = await openBroker();
  const dir = await mkdtemp(join(tmpdir(), "sluice-sim-"));
  try {
    const page = join(dir, "run.html");
    const fleet = ["--devices", "2", "--ramp", "10ms", "--rate", "50", "--count", "3", "--invalid", "0"];
    const url = ["--url", `mqtt://127.0.0.1:${broker.port}`];
    const { code, stdout } = await spawnSim(...url, ...fleet, "--json", "--html", page).result;
    const { timeline, machine } = JSON.parse(stdout) as {
      readonly timeline: TimelineData;
      readonly machine: Machine;
    };
    expect(timeline.points.reduce((total, { sent }) => total + sent, 0)).toBe(6);
    expect(timeline.marks.map(({ text: mark }) => mark)).toContain("all devices are connected");
    expect(machine.node).toBe(process.version);
    const html = await readFile(page, "utf8");
    expect(html).toContain("<h1>2 simulated devices</h1>");
    expect(html).toContain("Every good message was acknowledged.");
    expect(code).toBe(0);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("a file that cannot be written is told before the run, not after it", async () => {
  await using broker = await openBroker();
  const url = ["--url", `mqtt://127.0.0.1:${broker.port}`];
  const { code, stderr } = await spawnSim(...url, "--html", "/nowhere/run.html").result;
  expect(stderr).toBe("error: --html /nowhere/run.html cannot be written: ENOENT\n");
  expect(code).toBe(1);
  expect(broker.arrivals).toEqual([]);
});

test("--metrics-port tells where the metrics are while the devices run; a port that is taken ends the run", async () => {
  await using broker = await openBroker();
  const url = ["--url", `mqtt://127.0.0.1:${broker.port}`];
  const { child, result } = spawnSim(...url, "--devices", "5", "--ramp", "10ms", "--rate", "20", "--metrics-port", "0");
  const [told] = (await once(child.stdout, "data")) as [Buffer];
  const metricsUrl = /^metrics at (http:\S+)$/m.exec(String(told))?.[1] ?? "";
  await expect
    .poll(async () => await (await fetch(metricsUrl)).text(), { timeout: 30_000 })
    .toMatch(/^sluice_sim_devices_connected 5$/m);
  const taken = await spawnSim(...url, "--metrics-port", new URL(metricsUrl).port).result;
  expect(taken.stderr).toMatch(/^error: port \d+ cannot be opened for --metrics-port: another program has it\n$/);
  expect(taken.code).toBe(1);
  child.kill("SIGINT");
  expect((await result).code).toBe(0);
});
