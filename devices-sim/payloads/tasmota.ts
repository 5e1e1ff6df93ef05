import { hash } from "node:crypto";
import type { Metrics } from "../profiles/profile.ts";
import type { PayloadShape } from "./payload.ts";

const DAY_MS = 86_400_000;
const PHASES = ["l1", "l2", "l3"] as const;

type Values = Readonly<Record<string, unknown>>;

/**
 * `{"Time":"2026-06-01T12:00:00","AM2301":{"Temperature":21.5,"Humidity":45.1,"DewPoint":9.1},"TempUnit":"C"}`: the periodic
 * telemetry of Tasmota, with a meter as ENERGY, switches, a counter, a DS18B20 and a BH1750, in the order in which it has them.
 * What Tasmota has no sensor for is in an object SIM. Time is in whole seconds (here UTC), and there is no place for a sequence
 * number. As with TempRes, HumRes and PressRes 2; its own default is one decimal place. Topic and Time:
 * https://tasmota.github.io/docs/MQTT/; sensors: https://tasmota.github.io/docs/AM2301/ and the pages beside it; ENERGY of three
 * phases: EnergyShow in xdrv_03_energy.ino of https://github.com/arendst/Tasmota, with SetOption129 0.
 */
export const tasmota: PayloadShape = {
  topic: "tele/{device}/SENSOR",
  qos: 1,
  open({ id, topic }) {
    const state = { energy: openEnergy(), probe: toProbeId(id) };
    return {
      encode: ({ ts, metrics }) => [
        { topic, payload: JSON.stringify({ Time: toTime(ts), ...toSensors(metrics, ts, state) }) },
      ],
    };
  },
};

/** What a device has of its own. */
interface State {
  readonly energy: ReturnType<typeof openEnergy>;
  /** Serial number of its DS18B20. */
  readonly probe: string;
}

/** Six bytes in hexadecimal, as a DS18B20 has them, that differ between devices. */
const toProbeId = (id: string): string => hash("sha256", id).slice(0, 12).toUpperCase();

/** Without a time zone, as Tasmota writes it. */
const toTime = (ts: number): string => new Date(ts).toISOString().slice(0, 19);

function toSensors(metrics: Metrics, ts: number, { energy, probe }: State): Values {
  const { temperature, humidity, dew_point, pressure, open, motion, openings, illuminance, ...others } = metrics;
  const isMeter = metrics["power_l1"] !== undefined;
  const rest = Object.entries(others).filter(([name]) => !isMeter || !isOfMeter(name));
  const isProbe = temperature !== undefined && humidity === undefined;
  return {
    ...(open === undefined ? {} : { Switch1: toSwitch(open) }),
    ...(motion === undefined ? {} : { Switch2: toSwitch(motion) }),
    ...(openings === undefined ? {} : { COUNTER: { C1: openings } }),
    ...(isMeter ? { ENERGY: energy(metrics, ts) } : {}),
    ...(isProbe ? { DS18B20: { Id: probe, Temperature: temperature } } : {}),
    ...(humidity === undefined
      ? {}
      : { AM2301: { Temperature: temperature, Humidity: humidity, DewPoint: dew_point } }),
    ...(pressure === undefined ? {} : { BMP280: { Temperature: temperature, Pressure: pressure } }),
    ...(illuminance === undefined ? {} : { BH1750: { Illuminance: illuminance } }),
    ...(rest.length === 0 ? {} : { SIM: Object.fromEntries(rest.map(([name, value]) => [toPascalCase(name), value])) }),
    ...(pressure === undefined ? {} : { PressureUnit: "hPa" }),
    ...(temperature === undefined ? {} : { TempUnit: "C" }),
  };
}

const toSwitch = (value: number): string => (value === 1 ? "ON" : "OFF");

const isOfMeter = (name: string): boolean =>
  /^(?:voltage|current|power|power_factor|energy)_l[123]$|^(?:power|energy|frequency)$/.test(name);

const toPascalCase = (name: string): string =>
  name.replaceAll(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());

/**
 * Knows what the counter was at midnight and in the message before. kWh, but Wh in Period, which is since that message; counters
 * are sums of the phases, and all else but the frequency has a value for each.
 */
function openEnergy(): (metrics: Metrics, ts: number) => Values {
  let started: string | undefined;
  let day: number | undefined;
  let [midnight, yesterday, previous] = [0, 0, 0];
  let previousOfPhases: readonly number[] | undefined;
  return (metrics, ts) => {
    const total = metrics["energy"] ?? 0;
    started ??= toTime(ts);
    const today = Math.floor(ts / DAY_MS);
    if (day === undefined) [midnight, previous] = [total, total];
    else if (today > day) [midnight, yesterday] = [previous, previous - midnight];
    day = Math.max(day ?? today, today);
    previous = total;
    const phase = (name: string): number[] => PHASES.map((each) => metrics[`${name}_${each}`] ?? 0);
    const [volts, amperes, watts, counters] = [phase("voltage"), phase("current"), phase("power"), phase("energy")];
    const period = counters.map((counter, at) => counter - (previousOfPhases?.[at] ?? counter));
    previousOfPhases = counters;
    const apparent = volts.map((voltage, at) => voltage * (amperes[at] ?? 0));
    return {
      TotalStartTime: started,
      Total: round(total, 3),
      Yesterday: round(yesterday, 3),
      Today: round(total - midnight, 3),
      Period: period.map((each) => Math.round(each * 1000)),
      Power: watts.map(Math.round),
      ApparentPower: apparent.map(Math.round),
      ReactivePower: apparent.map((each, at) => Math.round(Math.sqrt(Math.max(0, each ** 2 - (watts[at] ?? 0) ** 2)))),
      Factor: phase("power_factor").map((each) => round(each, 2)),
      Frequency: Math.round(metrics["frequency"] ?? 50),
      Voltage: volts.map(Math.round),
      Current: amperes,
    };
  };
}

const round = (value: number, digits: number): number => Number(value.toFixed(digits));
