// The simulator as the judge: its ledger finds nothing in a gateway that keeps its promises, and each bug that is put in.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { env, execPath, kill } from "node:process";
import { pathToFileURL } from "node:url";
import { DatabaseSync } from "node:sqlite";
import { expect } from "vitest";
import { type GatewayProcess, test } from "../fixtures.ts";
import { startNats } from "../servers/nats.ts";
import { hasPostgres, startPostgres } from "../servers/postgres.ts";
import { findPort, isInstalled } from "../servers/server.ts";
import { openLoopDisk } from "./disks.ts";
import { caughtUp, until } from "./observe.ts";
import { needs, run } from "./tools.ts";

const launcher = join(import.meta.dirname, "../../bin/sluice-sim.js");
const noSync = pathToFileURL(join(import.meta.dirname, "no-sync.mjs")).href;

/** What is used here of the simulator's `verification`. */
interface Verification {
  readonly sinks: readonly Readonly<Record<string, number | string | readonly string[]>>[];
  readonly rejections: readonly Readonly<Record<string, number | string>>[];
  readonly killed: boolean;
  readonly kept: boolean;
}

interface Judged {
  readonly code: number | null;
  readonly verification: Verification;
}

const simulate = ({ mqttPort }: GatewayProcess, dir: string, ...args: readonly string[]) => {
  const url = `mqtt://127.0.0.1:${mqttPort}`;
  const fleet = ["--devices", "50", "--rate", "20", "--ramp", "200ms", "--seed", "1"];
  return run(execPath, [launcher, "--url", url, "--ledger", join(dir, "ledger"), ...fleet, ...args]);
};

/** Runs the simulator to its end, with `--verify` for each target. */
async function simulateAndVerify(
  gateway: GatewayProcess,
  dir: string,
  targets: readonly string[],
  ...args: readonly string[]
): Promise<Judged> {
  const verify = targets.flatMap((target) => ["--verify", target]);
  const { code, stdout, stderr } = await simulate(gateway, dir, "--json", "--quiet", ...verify, ...args).finished;
  expect(stderr).toBe("");
  return { code, verification: (JSON.parse(stdout) as { verification: Verification }).verification };
}

/** Of the first thread. */
const ledgerBytes = async (dir: string): Promise<number> =>
  (await readFile(join(dir, "ledger", "worker-0.ndjson"), "utf8").catch(() => "")).length;

async function verifyLater(dir: string, ...targets: readonly string[]): Promise<Judged> {
  const args = [launcher, "verify", "--ledger", join(dir, "ledger"), "--json", "--quiet", ...targets];
  const { code, stdout } = await run(execPath, args).finished;
  return { code, verification: JSON.parse(stdout) as Verification };
}

const sound = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0, spoiltStored: 0, unacknowledged: 0, foreign: 0 };

const gatewayOf = (sinks: string, more = ""): string => `
import { defineGateway, defineSink, defineStream, files, json, nats, postgres, sqlite, tcp, z } from "sluice";
const climate = defineStream({
  name: "climate",
  topic: "devices/{device}/telemetry",
  codec: json,
  schema: z.looseObject({ ts: z.int(), seq: z.int(), metrics: z.record(z.string(), z.number()) }),
  time: (data) => data.ts,
});
${more}
export default defineGateway({ listeners: [tcp()], streams: [climate], sinks: [${sinks}] });`;

test.for([
  { protocol: "3.1.1", qos: "1" },
  { protocol: "5", qos: "2" },
])(
  "MQTT $protocol, QoS $qos: four sinks have everything that was acknowledged, and each spoilt message was rejected for its reason",
  async ({ protocol, qos }, { dir, start, skip }) => {
    if (!isInstalled("nats-server")) skip("nats-server is missing: install Debian's nats-server");
    if (!hasPostgres()) skip("postgres is missing: install Debian's postgresql");
    await using server = await startNats();
    await using database = await startPostgres();
    const folder = join(dir, "files");
    const config = gatewayOf(`sqlite(),
      files({ path: ${JSON.stringify(folder)}, compression: "gzip", rotate: { timeMs: 1_000 } }),
      nats({ servers: ["nats://127.0.0.1:${server.port}"], stream: "T", create: {} }),
      postgres({ host: "127.0.0.1", port: ${database.port}, user: "postgres", database: "postgres" })`);
    const gateway = await start({ config });
    const targets = [
      `sqlite:${join(gateway.dataDir, "telemetry.db")}`,
      `ndjson:${folder}`,
      `nats://127.0.0.1:${server.port}?stream=T`,
      `postgres://postgres@127.0.0.1:${database.port}/postgres`,
      `rejects:${join(gateway.dataDir, "rejects.db")}`,
    ];
    const more = ["--protocol", protocol, "--qos", qos, "--count", "40", "--invalid", "0.1", "--watch-rejected"];
    const { code, verification } = await simulateAndVerify(gateway, dir, targets, ...more);
    const { sinks, rejections } = verification;
    expect(sinks.map(({ lost }) => lost)).toEqual([0, 0, 0, 0]);
    const acknowledged = sinks[0]?.["acknowledged"];
    const spoilt = rejections[0]?.["spoilt"] as number;
    expect(acknowledged).toBe(2000 - spoilt);
    for (const verdict of sinks) expect(verdict).toMatchObject({ acknowledged, found: acknowledged, ...sound });
    expect(spoilt).toBeGreaterThan(100);
    expect(rejections).toHaveLength(protocol === "5" ? 3 : 2);
    for (const verdict of rejections) expect(verdict).toMatchObject({ spoilt, rejected: spoilt, goodRejected: 0 });
    expect({ code, kept: verification.kept }).toEqual({ code: 0, kept: true });

    // Another run with the same devices into the same sinks is not mistaken for this one.
    await simulate(gateway, join(dir, "again"), "--quiet", "--count", "5").finished;
    const later = await verifyLater(dir, ...targets.slice(0, 1));
    expect(later).toMatchObject({ code: 0, verification: { sinks: [{ found: acknowledged, corrupted: 0, lost: 0 }] } });
    expect(later.verification.sinks[0]?.["foreign"]).toBeGreaterThan(200);
  },
);

test("a sink that skips one record of a thousand is found out", async ({ dir, start }) => {
  const skipping = `
const whole = sqlite().sink;
const skipping = defineSink({
  ...whole,
  type: "skipping",
  async open(settings, context) {
    const sink = await whole.open(settings, context);
    const skip = ({ entries, ...batch }) => ({ ...batch, entries: entries.filter(({ offset }) => offset !== 500) });
    return { ...sink, write: (batch, signal) => sink.write(skip(batch), signal) };
  },
});`;
  const gateway = await start({
    config: gatewayOf("sqlite(), skipping({ path: `${import.meta.dirname}/skipping.db` })", skipping),
  });
  const targets = [`sqlite:${join(gateway.dataDir, "telemetry.db")}`, `sqlite:${join(dir, "skipping.db")}`];
  const { code, verification } = await simulateAndVerify(
    gateway,
    dir,
    targets,
    "--count",
    "20",
    "--invalid",
    "0",
    "--verify-wait",
    "3s",
  );
  expect(verification.sinks).toMatchObject([
    { acknowledged: 1000, found: 1000, ...sound },
    {
      acknowledged: 1000,
      found: 999,
      ...sound,
      lost: 1,
      examples: [expect.stringMatching(/^sim-0000\d\d: message .* is lost$/)],
    },
  ]);
  expect(code).toBe(1);
});

test("rows that were doubled, exchanged, changed and deleted are told apart, in a ledger that is days old", async ({
  dir,
  start,
}) => {
  const gateway = await start();
  const path = join(gateway.dataDir, "telemetry.db");
  const { code } = await simulateAndVerify(gateway, dir, [`sqlite:${path}`], "--count", "10", "--invalid", "0");
  expect(code).toBe(0);
  await gateway.end("SIGTERM");
  using db = new DatabaseSync(path);
  const offsets = db.prepare(`SELECT "offset" FROM readings WHERE device = 'sim-000007' ORDER BY "offset"`).all();
  const [first, second, third, fourth, fifth] = offsets.map((row) => Number(row["offset"]));
  if (first === undefined || second === undefined || third === undefined || fourth === undefined || fifth === undefined)
    throw new TypeError("there are ten");
  const move = db.prepare(`UPDATE readings SET "offset" = ? WHERE "offset" = ?`);
  for (const [to, from] of [
    [-1, first],
    [first, second],
    [second, -1],
  ] as const)
    move.run(to, from);
  db.prepare(`UPDATE readings SET data = json_set(data, '$.metrics.temperature', 99) WHERE "offset" = ?`).run(third);
  db.prepare(`DELETE FROM readings WHERE "offset" = ?`).run(fourth);
  db.prepare(
    `INSERT INTO readings SELECT gateway, 99999, received_at, time, stream, device, topic, data FROM readings WHERE "offset" = ?`,
  ).run(fifth);

  const later = await verifyLater(dir, `sqlite:${path}`);
  expect(later.verification.sinks).toMatchObject([
    { acknowledged: 500, found: 498, ...sound, lost: 1, duplicated: 1, reordered: 1, corrupted: 1 },
  ]);
  expect(later).toMatchObject({ code: 1, verification: { kept: false } });
});

test.for(["1", "2"])(
  "a gateway that is killed in the middle of a run at QoS %s: nothing is lost, and twice there is only what was sent again",
  async (qos, { dir, start }) => {
    const mqttPort = await findPort();
    let gateway = await start({ mqttPort });
    const more = ["--qos", qos, "--no-clean", "--count", "100", "--reconnect", "200ms", "--json", "--quiet"];
    const simulator = simulate(gateway, dir, ...more);
    for (const bytes of [60_000, 130_000]) {
      await until(`a ledger of ${bytes} bytes`, async () => (await ledgerBytes(dir)) > bytes);
      await gateway.end("SIGKILL");
      gateway = await start({ mqttPort });
    }
    const { code, stdout } = await simulator.finished;
    expect({ code, unacknowledged: (JSON.parse(stdout) as { unacknowledged: number }).unacknowledged }).toEqual({
      code: 0,
      unacknowledged: 0,
    });
    const targets = [
      `sqlite:${join(gateway.dataDir, "telemetry.db")}`,
      `rejects:${join(gateway.dataDir, "rejects.db")}`,
    ];
    const { verification } = await verifyLater(dir, ...targets, "--verify-wait", "20s");
    console.log(`sent again, and there twice: ${String(verification.sinks[0]?.["resent"])}`);
    expect(verification.sinks).toMatchObject([sound]);
    expect(verification.kept).toBe(true);
  },
);

test("a simulator that is killed leaves a ledger that still proves what it says", async ({ dir, start }) => {
  const gateway = await start();
  const simulator = simulate(gateway, dir, "--duration", "1h");
  await until("a ledger of some length", async () => (await ledgerBytes(dir)) > 100_000);
  simulator.child.kill("SIGKILL");
  await simulator.finished;
  await caughtUp(gateway);
  const targets = [`sqlite:${join(gateway.dataDir, "telemetry.db")}`, `rejects:${join(gateway.dataDir, "rejects.db")}`];
  const { code, verification } = await verifyLater(dir, ...targets);
  expect(verification.sinks).toMatchObject([{ lost: 0, duplicated: 0, reordered: 0, corrupted: 0, spoiltStored: 0 }]);
  expect(verification.sinks[0]?.["acknowledged"]).toBeGreaterThan(300);
  expect({ code, killed: verification.killed }).toEqual({ code: 0, killed: true });
});

test.for([
  { gateway: "one that acknowledges before it has synced", nodeOptions: `--import ${noSync}`, lost: true },
  { gateway: "Sluice as it is", nodeOptions: env["NODE_OPTIONS"] ?? "", lost: false },
])(
  "power cut of $gateway: the ledger says that messages are lost: $lost",
  async ({ nodeOptions, lost }, { dir, start, skip }) => {
    needs(skip, "mount", "mkfs.ext4", "python3");
    await using disk = await openLoopDisk(join(dir, "disk"), join(dir, "image"), 512 * 2 ** 20);
    const dataDir = join(disk.path, "data");
    const path = join(dataDir, "telemetry.db");
    const gateway = await start({ dataDir, config: gatewayOf("sqlite()"), env: { NODE_OPTIONS: nodeOptions } });
    await gateway.waitForLog((line) => line["consumer"] === "sqlite" && line["state"] === "running");
    // The sink has nothing yet when the power goes: all that counts is the journal.
    const hold = new DatabaseSync(path);
    hold.exec("BEGIN IMMEDIATE");
    const simulator = await simulate(gateway, dir, "--quiet", "--count", "20", "--invalid", "0").finished;
    expect(simulator).toMatchObject({ code: 0, stderr: "" });
    const cut = await disk.openSwitch();
    kill(gateway.pid, "SIGSTOP");
    hold.close();
    await cut();
    await gateway.end("SIGKILL");
    await disk.remount();

    const again = await start({ dataDir, config: gatewayOf("sqlite()") });
    await again.waitForLog((line) => line["consumer"] === "sqlite" && line["state"] === "running");
    await caughtUp(again);
    const { code, verification } = await verifyLater(dir, `sqlite:${path}`);
    await again.end("SIGTERM");
    const [verdict] = verification.sinks;
    expect(verdict).toMatchObject({ ...sound, acknowledged: 1000, lost: verdict?.["lost"] });
    expect({ lost: Number(verdict?.["lost"]) > 100, code }).toEqual({ lost, code: lost ? 1 : 0 });
    expect(Number(verdict?.["lost"]) + Number(verdict?.["found"])).toBe(1000);
  },
);
