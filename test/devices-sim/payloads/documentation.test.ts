// The messages that docs/simulator.md shows are those that a device sends.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openFleet } from "../../../devices-sim/fleet.ts";
import { payloadNames, type PayloadName } from "../../../devices-sim/payloads/built-in.ts";
import { openBroker, options } from "../fixtures.ts";

const page = await readFile(join(import.meta.dirname, "../../../docs/simulator.md"), "utf8");
const command = /`sluice-sim (--devices 1 .*?)`/.exec(page)?.[1]?.split(" ") ?? [];

/** What the page's command sends with this payload, a line for each message; those of a birth are none of it. */
async function sent(payload: PayloadName): Promise<readonly string[]> {
  await using broker = await openBroker();
  const lines: string[] = [];
  broker.aedes.on("publish", ({ topic, payload: body }, client) => {
    if (!client || /\/(?:[ND]BIRTH|NDEATH)\//.test(topic)) return;
    const isText = payload !== "cbor" && payload !== "sparkplug-b";
    lines.push(`${topic} ${body.toString(isText ? "utf8" : "hex")}`);
  });
  await using fleet = openFleet(options(broker.port, ...command, "--payload", payload, "--threads", "1"));
  expect(await fleet.ended).toMatchObject({ kind: "finished", summary: { errors: {} } });
  return lines;
}

test.each(payloadNames)("the first message of the payload %s is as the page shows it", async (payload) => {
  const lines = await sent(payload);
  expect(lines.length).toBeGreaterThan(0);
  expect(page).toContain(`\n${lines.join("\n")}\n`);
});
