import { expect, test } from "vitest";
import { faultNames, faults, type FaultName } from "../../../devices-sim/faults/built-in.ts";
import type { Fault } from "../../../devices-sim/faults/fault.ts";
import type { Message } from "../../../devices-sim/payloads/payload.ts";
import { createRandom } from "../../../devices-sim/random.ts";
import { json } from "../../../src/index.ts";

const reading = { ts: 1_780_000_000_000, seq: 7, metrics: { temperature: 21.5, humidity: 40 } };
const good: Message = { topic: "devices/sim-1/telemetry", payload: JSON.stringify(reading) };

function spoil(name: FaultName, seed = 1): Message {
  const fault: Fault = faults[name];
  if (fault.kind !== "payload") throw new TypeError(`${name} spoils nothing`);
  return fault.spoil(good, reading, createRandom(seed));
}

const valueOf = (name: FaultName): unknown => JSON.parse(String(spoil(name).payload));

test("each kind is wrong in its own way", () => {
  expect(() => valueOf("malformed-json")).toThrow(SyntaxError);
  expect(valueOf("wrong-type")).toEqual({ ...reading, metrics: { temperature: "21.5", humidity: 40 } });
  expect(valueOf("missing-seq")).toEqual({ ts: reading.ts, metrics: reading.metrics });
  expect(spoil("empty").payload).toBe("");
  expect(valueOf("not-an-object")).toEqual([21.5, 40]);
  expect(valueOf("out-of-range")).toEqual({ ...reading, seq: 2 ** 64 });
  expect(valueOf("impossible-time")).toEqual({ ...reading, ts: -1 });
  expect(spoil("oversize").payload.length).toBeGreaterThan(512 * 1024);
  expect(spoil("wrong-topic")).toEqual({ topic: "devices/sim-1/telemetr", payload: good.payload });
});

test("hostile bytes come in many forms, repeated by the seed, and Sluice decodes none of them", () => {
  const seen = new Set<string>();
  for (let seed = 0; seed < 200; seed += 1) {
    const { payload } = spoil("hostile-bytes", seed);
    expect(spoil("hostile-bytes", seed).payload).toEqual(payload);
    expect(json.decode(Buffer.from(payload)).kind).toBe("undecodable");
    seen.add(Buffer.from(payload).toString().slice(0, 60));
  }
  expect(seen.size).toBeGreaterThan(20);
});

test("every fault says in one line what happens", () => {
  for (const name of faultNames) expect(faults[name].about).toMatch(/^[^\n]{10,90}$/);
});
