import { expect } from "vitest";
import { fingerprintOfPayload } from "../../../devices-sim/ledger/fingerprint.ts";
import type { RejectedLine } from "../../../devices-sim/ledger/format.ts";
import { openRejectionWatch, readSeen } from "../../../devices-sim/ledger/watch.ts";
import { test } from "../../fixtures.ts";
import { freePort, openBroker, options, type TestBroker } from "../fixtures.ts";

const rejection = (payload: string, reason = "invalid"): string =>
  JSON.stringify({
    time: "2026-11-24T12:00:00.000Z",
    topic: "devices/d1/telemetry",
    device: "d1",
    reason,
    issues: [],
    payload: Buffer.from(payload).toString("base64"),
  });

const show = ({ aedes }: TestBroker, payload: string): Promise<void> =>
  new Promise((resolve) => {
    aedes.publish({ cmd: "publish", topic: "sluice/rejected/s/d1", payload, qos: 1, retain: false, dup: false }, () =>
      resolve(),
    );
  });

test("what the gateway shows is written down; what is cut short, and what anybody else says, is not", async ({
  dir,
}) => {
  await using broker = await openBroker();
  const watch = await openRejectionWatch(dir, options(broker.port));
  const shown = [
    rejection("{"),
    rejection("x".repeat(1024)),
    "not json",
    "null",
    '{"device":"d1"}',
    rejection("", "undecodable"),
  ];
  for (const payload of shown) await show(broker, payload);
  await watch.settled(2);
  await watch[Symbol.asyncDispose]();
  await watch[Symbol.asyncDispose]();
  const seen: RejectedLine[] = [];
  for await (const line of readSeen(dir)) seen.push(line);
  const at = Date.parse("2026-11-24T12:00:00.000Z");
  expect(seen).toEqual([
    ["rejected", "d1", at, fingerprintOfPayload("{"), "invalid"],
    ["rejected", "d1", at, fingerprintOfPayload(""), "undecodable"],
  ]);
});

test("it waits no longer than news come", async ({ dir }) => {
  await using broker = await openBroker();
  await using watch = await openRejectionWatch(dir, options(broker.port));
  await show(broker, rejection("{"));
  await watch.settled(5);
});

test("a broker that is not there, or lets nobody in, is told", async ({ dir }) => {
  const nobody = openRejectionWatch(dir, options(await freePort()));
  await expect(nobody).rejects.toThrow("sim-watch cannot listen to sluice/rejected/#: connect ECONNREFUSED");
  await using broker = await openBroker();
  broker.aedes.authenticate = (_client, _username, _password, done) => done(null, false);
  await expect(openRejectionWatch(dir, options(broker.port))).rejects.toThrow("Connection refused");
});
