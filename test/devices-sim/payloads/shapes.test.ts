import { decode } from "cborg";
import { get } from "sparkplug-payload";
import { describe, expect, test } from "vitest";
import { payloadNames, payloads, type PayloadName } from "../../../devices-sim/payloads/built-in.ts";
import type { Encoder, Message, PayloadShape } from "../../../devices-sim/payloads/payload.ts";
import { createSensor, profileNames, profiles } from "../../../devices-sim/profiles/built-in.ts";
import type { Metrics, Profile } from "../../../devices-sim/profiles/profile.ts";

const TS = Date.UTC(2026, 5, 1, 12, 30, 15, 250);

const oracle = get("spBv1.0");
if (!oracle) throw new Error("the oracle does not know Sparkplug B");

function open(shape: PayloadName, profile: Profile, topic: string = payloads[shape].topic): Encoder {
  return payloads[shape].open({ id: "d1", topic: topic.replaceAll("{device}", "d1"), metrics: profile.metrics });
}

const read = (profile: Profile): Metrics => createSensor(profile, 1, 0).read(TS);

/** The only message of the first reading of a device. */
function encode(shape: PayloadName, profile: Profile, metrics = read(profile)): Message {
  const [message, ...others] = open(shape, profile).encode({ ts: TS, seq: 7, metrics });
  if (message === undefined || others.length > 0) throw new Error("not one message");
  return message;
}

const json = ({ payload }: Message): unknown => JSON.parse(String(payload));

describe.each(payloadNames)("the payload %s", (name) => {
  test.each(profileNames)("carries a reading of a %s, with its number or without a claim to have it", (profile) => {
    const [message] = open(name, profiles[profile]).encode({ ts: TS, seq: 7, metrics: read(profiles[profile]) });
    const payload = Buffer.from(message?.payload ?? "");
    const identified = !["tasmota", "zigbee2mqtt", "bare"].includes(name);
    const shape: PayloadShape = payloads[name];
    expect(shape.readIdentity?.(payload)).toEqual(identified ? { ts: TS, seq: 7 } : undefined);
    expect(shape.readIdentity?.(payload.subarray(0, -1))).toBeUndefined();
    expect(shape.readIdentity?.(Buffer.from("{}"))).toBeUndefined();
  });
});

test("sluice, flat and ThingsBoard differ in where the metrics are", () => {
  const metrics = { water: 55.5, starts: 3 };
  const profile = { ...profiles.climate, metrics: { water: "°C", starts: "count" } } as unknown as Profile;
  expect(encode("sluice", profile, metrics)).toEqual({
    topic: "devices/d1/telemetry",
    payload: `{"ts":${TS},"seq":7,"metrics":{"water":55.5,"starts":3}}`,
  });
  expect(json(encode("flat", profile, metrics))).toEqual({ ts: TS, seq: 7, ...metrics });
  expect(encode("thingsboard", profile, metrics)).toEqual({
    topic: "v1/devices/me/telemetry",
    payload: `{"ts":${TS},"values":{"seq":7,"water":55.5,"starts":3}}`,
  });
});

test("Tasmota: a climate sensor is an AM2301 and a BMP280", () => {
  const message = encode("tasmota", profiles.climate);
  const { temperature, humidity, dew_point, pressure, battery, rssi } = read(profiles.climate);
  expect(message.topic).toBe("tele/d1/SENSOR");
  expect(json(message)).toEqual({
    Time: "2026-06-01T12:30:15",
    AM2301: { Temperature: temperature, Humidity: humidity, DewPoint: dew_point },
    BMP280: { Temperature: temperature, Pressure: pressure },
    SIM: { Battery: battery, Rssi: rssi },
    PressureUnit: "hPa",
    TempUnit: "C",
  });
});

type Energy = Readonly<Record<"Total" | "Yesterday" | "Today", number>> &
  Readonly<Record<"Period" | "Power", readonly number[]>>;

test("Tasmota: a meter counts today, yesterday and the period", () => {
  const encoder = open("tasmota", profiles.power);
  const sensor = createSensor(profiles.power, 2, 0);
  const days = Array.from({ length: 3 * 24 * 6 }, (_, at) => {
    const ts = TS + at * 600_000;
    const [message] = encoder.encode({ ts, seq: at, metrics: sensor.read(ts) });
    return (JSON.parse(String(message?.payload)) as { ENERGY: Energy }).ENERGY;
  });
  const last = days.at(-1);
  expect(last).toMatchObject({ TotalStartTime: "2026-06-01T12:30:15", Frequency: 50 });
  expect(last?.Power).toHaveLength(3);
  expect(days.every(({ Period }) => Period.length === 3)).toBe(true);
  const periods = days.flatMap(({ Period }) => Period).reduce((sum, each) => sum + each, 0) / 1000;
  expect((last?.Total ?? 0) - (days[0]?.Total ?? 0)).toBeCloseTo(periods, 0);
  expect(last?.Yesterday).toBeGreaterThan(3);
  expect(last?.Today).toBeLessThan(last?.Total ?? 0);
  const midnights = days.filter(({ Today }, at) => Today < (days[at - 1]?.Today ?? 0));
  expect(midnights).toHaveLength(3);
});

/** What Tasmota says of the temperature of a device, and nothing else. */
function probeOf(id: string): unknown {
  const device = payloads.tasmota.open({ id, topic: `tele/${id}/SENSOR`, metrics: profiles.machine.metrics });
  const [message] = device.encode({ ts: TS, seq: 1, metrics: { temperature: 20.6 } });
  return (JSON.parse(String(message?.payload)) as { readonly DS18B20: unknown }).DS18B20;
}

test("Tasmota: a temperature alone is a DS18B20 with the serial number of its device", () => {
  expect(probeOf("d1")).toEqual({ Id: expect.stringMatching(/^[0-9A-F]{12}$/), Temperature: 20.6 });
  expect(probeOf("d1")).toEqual(probeOf("d1"));
  expect(probeOf("d2")).not.toEqual(probeOf("d1"));
});

test("Tasmota: a door is two switches, a counter and a light sensor", () => {
  const metrics = { open: 1, motion: 0, openings: 12, illuminance: 80.5, battery: 90 };
  expect(json(encode("tasmota", profiles.door, metrics))).toEqual({
    Time: "2026-06-01T12:30:15",
    Switch1: "ON",
    Switch2: "OFF",
    BH1750: { Illuminance: 80.5 },
    COUNTER: { C1: 12 },
    SIM: { Battery: 90 },
  });
});

test("Zigbee2MQTT: names, booleans and order as it has them", () => {
  const metrics = { open: 1, motion: 1, openings: 12, illuminance: 80.5, battery: 90.4 };
  const message = encode("zigbee2mqtt", profiles.door, metrics);
  expect(message.topic).toBe("zigbee2mqtt/d1");
  expect(json(message)).toEqual({
    battery: 90,
    contact: false,
    illuminance: 81,
    last_seen: "2026-06-01T12:30:15.250Z",
    linkquality: expect.any(Number),
    occupancy: true,
    openings: 12,
  });
  expect(Object.keys(json(message) as object)).toEqual(Object.keys(json(message) as object).toSorted());
  const meter = Object.keys(json(encode("zigbee2mqtt", profiles.power)) as object);
  expect(meter).toContain("voltage_phase_b");
  expect(meter).toContain("ac_frequency");
  expect(meter).toHaveLength(Object.keys(profiles.power.metrics).length + 2);
});

test("a bare value has a topic for each metric, or is the first metric", () => {
  const metrics = { water: 55.5, starts: 3 };
  const reading = { ts: TS, seq: 7, metrics };
  expect(open("bare", profiles.climate).encode(reading)).toEqual([
    { topic: "devices/d1/water", payload: "55.5" },
    { topic: "devices/d1/starts", payload: "3" },
  ]);
  expect(open("bare", profiles.climate, "value/{device}").encode(reading)).toEqual([
    { topic: "value/d1", payload: "55.5" },
  ]);
});

test("CBOR is the same value in fewer bytes, as the examples of RFC 8949 write it", () => {
  const message = encode("cbor", profiles.climate);
  expect(decode(Buffer.from(message.payload))).toEqual({ ts: TS, seq: 7, metrics: read(profiles.climate) });
  expect(message.value).toEqual({ ts: TS, seq: 7, metrics: read(profiles.climate) });
  const { value: _value, ...small } = encode("cbor", profiles.climate, { a: 1.1 });
  // map(3) "ts" → uint64, "seq" → 7, "metrics" → map(1) "a" → the double 1.1 of RFC 8949, appendix A.
  const ts = TS.toString(16).padStart(16, "0");
  expect(Buffer.from(small.payload).toString("hex")).toBe(
    `a36274731b${ts}637365710767${Buffer.from("metrics").toString("hex")}a16161fb3ff199999999999a`,
  );
});

const decoded = ({ payload }: Message) => oracle.decodePayload(Buffer.from(payload));
const plain = (value: unknown): unknown => Number(value);

function session(topic?: string) {
  const encoder = open("sparkplug-b", profiles.door, topic);
  if (encoder.session === undefined) throw new Error("no session");
  return { encoder, session: encoder.session };
}

const command = (metric: object): Uint8Array =>
  oracle.encodePayload({ timestamp: TS, metrics: [{ type: "Boolean", value: true, ...metric } as never] });

describe("Sparkplug B, as its library by Cirrus Link reads it", () => {
  const metrics = { open: 1, motion: 0, openings: 12, illuminance: 80.5, battery: 90 };
  const reading = { ts: TS, seq: 7, metrics };

  test("birth names each metric, its alias, type and unit; data has only the alias", () => {
    const { encoder, session: own } = session();
    own.will();
    const [node, device] = own.birth(reading);
    if (node === undefined || device === undefined) throw new Error("no birth");
    expect(node.topic).toBe("spBv1.0/sluice/NBIRTH/d1");
    expect(device.topic).toBe("spBv1.0/sluice/DBIRTH/d1/sensor");
    const nbirth = decoded(node);
    expect(plain(nbirth.timestamp)).toBe(TS);
    expect(plain(nbirth.seq)).toBe(0);
    expect(nbirth.metrics).toMatchObject([
      { name: "bdSeq", type: "Int64" },
      { name: "Node Control/Rebirth", type: "Boolean", value: false },
    ]);
    const dbirth = decoded(device);
    expect(plain(dbirth.seq)).toBe(1);
    expect(
      dbirth.metrics?.map(({ name, type, value }) => [name, type, type === "Int64" ? plain(value) : value]),
    ).toEqual([
      ["seq", "Int64", 7],
      ["open", "Boolean", true],
      ["motion", "Boolean", false],
      ["openings", "Double", 12],
      ["illuminance", "Double", 80.5],
      ["battery", "Double", 90],
    ]);
    expect(dbirth.metrics?.[4]?.properties).toEqual({ engUnit: { type: "String", value: "lx" } });

    const [data] = encoder.encode({ ...reading, seq: 8 });
    if (data === undefined) throw new Error("no data");
    expect(data.topic).toBe("spBv1.0/sluice/DDATA/d1/sensor");
    const ddata = decoded(data);
    expect(plain(ddata.seq)).toBe(2);
    const aliases = dbirth.metrics?.map(({ alias }) => plain(alias));
    expect(ddata.metrics?.map(({ alias }) => plain(alias))).toEqual(aliases);
    expect(new Set(aliases).size).toBe(6);
    expect(
      ddata.metrics?.map(({ type, value }) => [type, type === "Int64" ? plain(value) : value]).slice(0, 2),
    ).toEqual([
      ["Int64", 8],
      ["Boolean", true],
    ]);
    expect(ddata.metrics?.every(({ name }) => !name)).toBe(true);
  });

  test("seq goes from 0 at the birth to 255 and on from 0; a birth begins anew", () => {
    const { encoder, session: own } = session();
    own.will();
    own.birth(reading);
    const seqs = Array.from({ length: 600 }, () => plain(decoded(encoder.encode(reading)[0] as Message).seq));
    expect(seqs).toEqual(Array.from({ length: 600 }, (_, at) => (at + 2) % 256));
    expect(plain(decoded(own.birth(reading)[0] as Message).seq)).toBe(0);
  });

  test("the will of each connection has the bdSeq of its birth and no seq", () => {
    const { session: own } = session();
    for (let connection = 0; connection < 260; connection += 1) {
      const will = own.will();
      expect(will.topic).toBe("spBv1.0/sluice/NDEATH/d1");
      const death = decoded(will);
      expect(death.seq).toBeFalsy();
      expect(death.metrics).toHaveLength(1);
      const birth = decoded(own.birth(reading)[0] as Message);
      expect(plain(death.metrics?.[0]?.value)).toBe(connection % 256);
      expect(plain(birth.metrics?.[0]?.value)).toBe(connection % 256);
    }
  });

  test("with a topic of NDATA everything is the node's own", () => {
    const { encoder, session: own } = session("spBv1.0/plant/NDATA/{device}");
    own.will();
    const births = own.birth(reading);
    expect(births.map(({ topic }) => topic)).toEqual(["spBv1.0/plant/NBIRTH/d1"]);
    expect(decoded(births[0] as Message).metrics).toHaveLength(8);
    const [data] = encoder.encode(reading);
    expect(data?.topic).toBe("spBv1.0/plant/NDATA/d1");
    expect(plain(decoded(data as Message).seq)).toBe(1);
  });

  test("a command of Node Control/Rebirth is understood, by name and by alias, and nothing else is", () => {
    const { session: own } = session();
    expect(own.commands).toBe("spBv1.0/sluice/NCMD/d1");
    expect(own.isRebirth(command({ name: "Node Control/Rebirth" }))).toBe(true);
    expect(own.isRebirth(command({ alias: 0 }))).toBe(true);
    expect(own.isRebirth(command({ name: "Node Control/Rebirth", value: false }))).toBe(false);
    expect(own.isRebirth(command({ name: "Node Control/Reboot" }))).toBe(false);
    expect(own.isRebirth(Buffer.from([0xff, 0xff]))).toBe(false);
  });
});
