import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseOptions, type SimOptions } from "../../../devices-sim/options.ts";
import { makeCertificates, type Certificates } from "../../servers/certificates.ts";

let dir: string;
let certificates: Certificates;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "sluice-connection-"));
  certificates = await makeCertificates(dir);
  for (const name of ["sim-000001", "sim-000002"]) await certificates.issue(name);
});
afterAll(() => rm(dir, { recursive: true }));

function sim(...args: readonly string[]): SimOptions {
  const parsed = parseOptions(args);
  if (parsed.kind !== "run") throw new Error(parsed.text);
  return parsed.sim;
}

function problem(...args: readonly string[]): string {
  const parsed = parseOptions(args);
  if (parsed.kind === "run" || parsed.exitCode !== 2) throw new Error("it was taken");
  return parsed.text;
}

const TLS = ["--url", "mqtts://127.0.0.1"];

test.each([
  ["mqtt://127.0.0.1", "mqtt", 1883, ""],
  ["mqtts://localhost", "mqtts", 8883, ""],
  ["ws://127.0.0.1", "ws", 80, "/"],
  ["ws://127.0.0.1:9001/mqtt?a=b", "ws", 9001, "/mqtt?a=b"],
  ["wss://localhost/mqtt", "wss", 443, "/mqtt"],
])("%s", (url, transport, port, path) => {
  expect(sim("--url", url)).toMatchObject({ transport, port, path });
});

test.each([
  "http://127.0.0.1",
  "mqtt:///x",
  "mqtts://127.0.0.1/path",
  "mqtt://127.0.0.1?a=b",
  "wss://user@localhost",
  "ws://:secret@localhost",
  "ws://localhost/#x",
])("%s is no broker", (url) => {
  expect(problem("--url", url)).toContain("expected mqtt://host:port");
});

test("a certificate of all devices and one of each are taken", () => {
  const { ca, client } = certificates;
  const { tls } = sim(...TLS, "--ca", ca, "--cert", client.cert, "--key", client.key, "--servername", "a.example");
  expect(tls).toEqual({ ca, ...client, servername: "a.example", isVerified: true });
  const own = ["--cert", join(dir, "{device}.crt"), "--key", join(dir, "{device}.key")];
  expect(sim(...TLS, ...own, "--devices", "2").tls).toMatchObject({ cert: join(dir, "{device}.crt") });
});

test("a file that cannot be used is named before anything begins", async () => {
  const { ca, client } = certificates;
  const own = ["--cert", join(dir, "{device}.crt"), "--key", join(dir, "{device}.key")];
  expect(problem(...TLS, "--ca", join(dir, "none.pem"))).toBe(
    `error: cannot read ${join(dir, "none.pem")}: ENOENT: no such file or directory\n`,
  );
  expect(problem(...TLS, ...own, "--devices", "3")).toContain(`cannot read ${join(dir, "sim-000003.crt")}: ENOENT`);
  await writeFile(join(dir, "not.pem"), "no certificate");
  expect(problem(...TLS, "--cert", join(dir, "not.pem"), "--key", client.key)).toContain(`cannot use ${dir}/not.pem`);
  expect(problem(...TLS, "--ca", ca, "--cert", client.cert)).toContain("'--cert' and '--key' need each other");
});

test("a key that is not that of its certificate is told with both files, whichever device has it", async () => {
  const { ca, client, server } = certificates;
  const other = "the key is not that of the certificate\n";
  expect(problem(...TLS, "--ca", ca, "--cert", client.cert, "--key", server.key)).toBe(
    `error: cannot use ${client.cert} with ${server.key}: ${other}`,
  );
  const [first, third] = [await certificates.issue("odd-000001"), await certificates.issue("odd-000003")];
  await certificates.issue("odd-000002");
  await copyFile(first.key, third.key);
  const own = ["--cert", join(dir, "{device}.crt"), "--key", join(dir, "{device}.key"), "--id-prefix", "odd-"];
  expect(sim(...TLS, ...own, "--devices", "2").devices).toBe(2);
  expect(problem(...TLS, ...own, "--devices", "3")).toBe(`error: cannot use ${third.cert} with ${third.key}: ${other}`);
  await writeFile(third.key, "no key");
  expect(problem(...TLS, ...own, "--devices", "3")).toContain(`cannot use ${third.key}: `);
});

test("options of TLS need a URL with TLS, and an unchecked certificate a broker on this machine", () => {
  expect(problem("--insecure")).toContain("option '--insecure' needs '--url' with mqtts:// or wss://");
  expect(problem("--ca", certificates.ca)).toContain("option '--ca' needs");
  const elsewhere = ["--url", "wss://broker.example", "--i-own-this-broker"];
  expect(problem(...elsewhere, "--insecure")).toContain("--ca");
  expect(sim("--url", "wss://localhost", "--insecure").tls?.isVerified).toBe(false);
  expect(sim(...elsewhere).tls?.isVerified).toBe(true);
});

test("a file of credentials says how many devices there are, and fewer may be asked for", async () => {
  const path = join(dir, "devices.csv");
  await writeFile(path, "device,username,password\na,u,p\nb,u,p\nc,u,p\n");
  const file = ["--credentials", path];
  expect(sim(...file)).toMatchObject({ devices: 3, credentials: path });
  expect(sim(...file, "--devices", "2", "--total-rate", "8")).toMatchObject({ devices: 2, ratePerDevice: 4 });
  expect(problem(...file, "--devices", "4")).toBe(`error: option '--devices': ${path} has 3 devices, not 4\n`);
  expect(problem(...file, "--id-prefix", "x")).toContain("--id-prefix");
  await writeFile(path, "device,password\na,p\n");
  expect(problem(...file)).toContain("device 'a' has a password and no user name [MQTT-3.1.2-22]");
  expect(sim(...file, "--username", "{device}")).toMatchObject({ devices: 1 });
  await writeFile(path, "device,password\na,p,q\n");
  expect(problem(...file)).toContain("option '--credentials <file>'");
});

test("sources are parsed, and clocks have a zone", () => {
  expect(sim("--source", "127.0.0.2-127.0.0.9").sources).toEqual([{ first: "127.0.0.2", count: 8 }]);
  expect(problem("--source", "eth0")).toContain("'--source <addresses>'");
  expect(sim("--clock", "2026-01-01T00:00:00+01:00").clockMs).toBe(Date.UTC(2025, 11, 31, 23));
  expect(problem("--clock", "2026-01-01T00:00:00")).toContain("a time with its zone");
});
