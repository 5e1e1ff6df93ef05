// Line protocol of InfluxDB: https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/. A line is
//
//   measurement,tag=value,tag=value field=1.5,field="text",field=true 1763700000000000000
//
// Names and tag values have a backslash before what ends them; servers do not agree about what else it means there, or
// about line breaks. So a backslash and control characters are percent-encoded in them, and a percent sign where it could
// be taken for that: two names never become one. Texts of fields are quoted, and keep everything.

import type { Field } from "./flatten.ts";

export interface Point {
  readonly measurement: string;
  /** A tag without a value is none, and is left out. */
  readonly tags: Iterable<readonly [name: string, value: string]>;
  /** At least one, each name once; numbers are floats. */
  readonly fields: Iterable<readonly [name: string, value: Field]>;
  /** In the precision that the request names. */
  readonly time: bigint;
}

/** Without a line break at its end. */
export function toLine({ measurement, tags, fields, time }: Point): string {
  let line = toMeasurement(measurement);
  for (const [name, value] of tags) if (value !== "") line += `,${toName(name)}=${toName(value)}`;
  let separator = " ";
  for (const [name, value] of fields) {
    line += `${separator}${toName(name)}=${typeof value === "string" ? toText(value) : String(value)}`;
    separator = ",";
  }
  return `${line} ${time}`;
}

const needsEscape = /[\p{Cc}\\%,= ]/u;
// oxlint-disable-next-line no-control-regex -- those are to be encoded
const encoded = /[\p{Cc}\\]|%(?=[0-9A-Fa-f]{2})/gu;

const encode = (text: string): string => text.replaceAll(encoded, encodeURIComponent);
const toName = (text: string): string =>
  needsEscape.test(text) ? encode(text).replaceAll(/[,= ]/g, String.raw`\$&`) : text;

/** A line that begins with # is a comment; a measurement has no = to escape. */
const toMeasurement = (text: string): string =>
  /^#|[\p{Cc}\\%, ]/u.test(text)
    ? encode(text)
        .replace(/^#/, "%23")
        .replaceAll(/[, ]/g, String.raw`\$&`)
    : text;

const toText = (text: string): string => `"${/["\\]/.test(text) ? text.replaceAll(/["\\]/g, String.raw`\$&`) : text}"`;
