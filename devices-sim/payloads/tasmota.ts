import type { Metrics } from "../profiles/profile.ts";
import type { PayloadShape } from "./payload.ts";

const DAY_MS = 86_400_000;
const PHASES = ["l1", "l2", "l3"] as const;

type Values = Readonly<Record<string, unknown>>;

/**
 * `{"Time":"2026-06-01T12:00:00","AM2301":{"Temperature":21.5,"Humidity":45.1,"DewPoint":9.1},"TempUnit":"C"}`: the periodic
 * telemetry of Tasmota, with a meter as ENERGY, switches, a counter and a BH1750. What Tasmota has no sensor for is in an object
 * SIM. Time is in whole seconds (here UTC), and there is no place for a sequence number.
 * https://tasmota.github.io/docs/MQTT/, https://tasmota.github.io/docs/Power-Monitoring/
 */
export const tasmota: PayloadShape = {
  topic: "tele/{device}/SENSOR",
  qos: 1,
  open({ topic }) {
    const energy = openEnergy();
    return {
      encode: ({ ts, metrics }) => [
        { topic, payload: JSON.stringify({ Time: toTime(ts), ...toSensors(metrics, ts, energy) }) },
      ],
    };
  },
};

/** Without a time zone, as Tasmota writes it. */
const toTime = (ts: number): string => new Date(ts).toISOString().slice(0, 19);

function toSensors(metrics: Metrics, ts: number, energy: ReturnType<typeof openEnergy>): Values {
  const { temperature, humidity, dew_point, pressure, open, motion, openings, illuminance, ...others } = metrics;
  const isMeter = metrics["power_l1"] !== undefined;
  const rest = Object.entries(others).filter(([name]) => !isMeter || !isOfMeter(name));
  return {
    ...(open === undefined ? {} : { Switch1: toSwitch(open) }),
    ...(motion === undefined ? {} : { Switch2: toSwitch(motion) }),
    ...(humidity === undefined
      ? {}
      : { AM2301: { Temperature: temperature, Humidity: humidity, DewPoint: dew_point } }),
    ...(pressure === undefined ? {} : { BMP280: { Temperature: temperature, Pressure: pressure } }),
    ...(temperature !== undefined && humidity === undefined ? { DS18B20: { Temperature: temperature } } : {}),
    ...(illuminance === undefined ? {} : { BH1750: { Illuminance: illuminance } }),
    ...(openings === undefined ? {} : { COUNTER: { C1: openings } }),
    ...(isMeter ? { ENERGY: energy(metrics, ts) } : {}),
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

/** Knows what the counter was at midnight and in the message before. */
function openEnergy(): (metrics: Metrics, ts: number) => Values {
  let started: string | undefined;
  let day: number | undefined;
  let [midnight, yesterday, previous] = [0, 0, 0];
  return (metrics, ts) => {
    const total = metrics["energy"] ?? 0;
    started ??= toTime(ts);
    const today = Math.floor(ts / DAY_MS);
    if (day === undefined) [midnight, previous] = [total, total];
    else if (today > day) [midnight, yesterday] = [previous, previous - midnight];
    day = Math.max(day ?? today, today);
    const period = total - previous;
    previous = total;
    const phase = (name: string): number[] => PHASES.map((each) => metrics[`${name}_${each}`] ?? 0);
    const [volts, amperes, watts] = [phase("voltage"), phase("current"), phase("power")];
    const apparent = volts.map((voltage, at) => voltage * (amperes[at] ?? 0));
    return {
      TotalStartTime: started,
      Total: round(total, 3),
      Yesterday: round(yesterday, 3),
      Today: round(total - midnight, 3),
      Period: Math.round(period * 1000),
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
