// The narrow layout: a row for each value of a reading.
//
//   metrics   gateway, offset, metric, received_at, time, stream, device, topic,
//             value double, text text, rest json; key (gateway, offset, metric)
//
//   metric is the value's place in the data: `metrics.temp`, `metrics["cpu 0"]`; "" is the whole of it
//   number: value. string: text. boolean: value is 1 or 0, and text is true or false
//   all else is JSON in rest: arrays, null, an object without fields, a string that no database takes, and of an object the fields that got no row of their own
//
// What of an object got none is one row of its own, whose metric is the object's place. So nothing is lost: the rows of a
// reading, each rest merged into the object at its place, are its data.

import { toJson } from "../document.ts";
import { commonColumns, isFields, isText, restColumn, toCommonCells, toUnwritable, withoutSign } from "./table.ts";
import type { Cell, Column, Table } from "./table.ts";

/** Fields of a reading that get a row of their own: the first so many. */
const MOST_METRICS = 1_000;
/** Characters of a metric; a longer one would not fit into an index of every database. */
const LONGEST_METRIC = 255;

const [gatewayColumn, offsetColumn, ...otherColumns] = commonColumns as readonly [Column, Column, ...Column[]];
const columns: readonly Column[] = [
  gatewayColumn,
  offsetColumn,
  { name: "metric", type: "text", nullable: false },
  ...otherColumns,
  { name: "value", type: "double", nullable: true },
  { name: "text", type: "text", nullable: true },
  restColumn,
];

type Metric = readonly [metric: string, value: number | null, text: string | null, rest: string | null];

export function createNarrowTable(): Table {
  return {
    layout: "narrow",
    name: "metrics",
    columns,
    key: ["gateway", "offset", "metric"],
    toRows(gateway, entry) {
      const metrics = toMetrics(entry.reading.data);
      if (metrics instanceof Error) return toUnwritable(metrics);
      const [, offset, ...others] = toCommonCells(gateway, entry);
      return metrics.map(([metric, ...cells]): readonly Cell[] => [
        gateway,
        offset as Cell,
        metric,
        ...others,
        ...cells,
      ]);
    },
  };
}

function toMetrics(data: unknown): readonly Metric[] | Error {
  const metrics: Metric[] = [];
  let wrong: Error | undefined;

  function addRest(metric: string, rest: unknown): void {
    const json = toJson(rest);
    if (typeof json === "string") metrics.push([metric, null, null, json]);
    else wrong ??= json;
  }

  function addFields(metric: string, fields: object): void {
    let rest: Record<string, unknown> | undefined;
    let isEmpty = true;
    for (const [name, value] of Object.entries(fields)) {
      if (value === undefined) continue;
      isEmpty = false;
      const place = toPlace(metric, name);
      if (metrics.length < MOST_METRICS && place.length <= LONGEST_METRIC) add(place, value);
      else {
        // Without a prototype __proto__ is a name like any other.
        rest ??= Object.create(null) as Record<string, unknown>;
        rest[name] = value;
      }
    }
    if (rest !== undefined || isEmpty) addRest(metric, rest ?? {});
  }

  function add(metric: string, value: unknown): void {
    if (isText(value)) metrics.push([metric, null, value, null]);
    else if (typeof value === "boolean") metrics.push([metric, value ? 1 : 0, String(value), null]);
    else if (Number.isFinite(value)) metrics.push([metric, withoutSign(value as number), null, null]);
    else if (isFields(value)) addFields(metric, value);
    else addRest(metric, value);
  }

  add("", data);
  return wrong ?? metrics;
}

/** The same form as the paths of an Issue have. */
function toPlace(parent: string, name: string): string {
  if (name === "" || /[^\w$]/.test(name)) return `${parent}[${JSON.stringify(name)}]`;
  return parent === "" ? name : `${parent}.${name}`;
}
