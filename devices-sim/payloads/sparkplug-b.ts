// Sparkplug 3.0 (https://sparkplug.eclipse.org/specification/version/3.0/), payload B: a device is an edge node of its own.
//
//   --topic spBv1.0/GROUP/DDATA/NODE/DEVICE    what it measures belongs to a device behind the node (the default)
//   --topic spBv1.0/GROUP/NDATA/NODE           it belongs to the node itself
//
// After each CONNACK comes NBIRTH (bdSeq, Node Control/Rebirth) and, with DDATA, DBIRTH; they name each metric and give it an
// alias, and data names only the alias. NDEATH is the will, with the bdSeq of the birth. `seq` counts all messages of the node
// from 0 at NBIRTH to 255 and on from 0; the number of the reading is a metric of its own.

import { parse } from "protobufjs";
import type { Telemetry } from "../telemetry.ts";
import { toIdentity, type Encoder, type Identity, type Message, type PayloadShape, type Sender } from "./payload.ts";

/** The part of sparkplug_b.proto that is used here. */
const { root } = parse(
  `
  syntax = "proto2";
  message Payload {
    optional uint64 timestamp = 1;
    repeated Metric metrics = 2;
    optional uint64 seq = 3;
  }
  message Metric {
    optional string name = 1;
    optional uint64 alias = 2;
    optional uint64 timestamp = 3;
    optional uint32 datatype = 4;
    optional PropertySet properties = 9;
    oneof value {
      uint64 long_value = 11;
      double double_value = 13;
      bool boolean_value = 14;
    }
  }
  message PropertySet {
    repeated string keys = 1;
    repeated PropertyValue values = 2;
  }
  message PropertyValue {
    optional uint32 type = 1;
    optional string string_value = 8;
  }
`,
  { keepCase: true },
);
const payloadType = root.lookupType("Payload");

const INT64 = 4;
const DOUBLE = 10;
const BOOLEAN = 11;
const STRING = 12;

/** Metrics of the node's own, and of the reading's number. */
const BD_SEQ = "bdSeq";
const REBIRTH = "Node Control/Rebirth";
const REBIRTH_ALIAS = 0;
const READING = "seq";
const READING_ALIAS = 1;
const FIRST_ALIAS = 2;

interface Metric {
  readonly name?: string;
  readonly alias?: number;
  readonly timestamp?: number;
  readonly datatype: number;
  readonly properties?: unknown;
  readonly long_value?: number;
  readonly double_value?: number;
  readonly boolean_value?: boolean;
}

interface Payload {
  readonly timestamp: number;
  readonly metrics: readonly Metric[];
  readonly seq?: number;
}

const TOPIC = /^spBv1\.0\/([^/]+)\/(NDATA\/([^/]+)|DDATA\/([^/]+)\/([^/]+))$/;

/** True when data of Sparkplug may be published there. */
export const isSparkplugTopic = (topic: string): boolean => TOPIC.test(topic);

export const sparkplugB: PayloadShape = {
  topic: "spBv1.0/sluice/DDATA/{device}/sensor",
  qos: 0,
  open: openNode,
  readIdentity(payload) {
    try {
      return identityOf(read(payload));
    } catch {
      return undefined;
    }
  },
};

function openNode({ topic, metrics }: Sender): Encoder {
  const [, group = "", , ownNode, nodeOfDevice, device] = TOPIC.exec(topic) ?? [];
  const node = ownNode ?? nodeOfDevice ?? "";
  const place = (kind: string): string => `spBv1.0/${group}/${kind}/${node}`;
  const measured = Object.entries(metrics);
  let bdSeq = -1;
  let seq = 0;

  const message = (to: string, { ts }: Pick<Telemetry, "ts">, list: readonly Metric[]): Message => {
    const payload = write({ timestamp: ts, metrics: list, seq });
    seq = (seq + 1) % 256;
    return { topic: to, payload };
  };
  const values = ({ ts, seq: reading, metrics: now }: Telemetry, named: boolean): readonly Metric[] => [
    { ...(named ? { name: READING } : {}), alias: READING_ALIAS, timestamp: ts, datatype: INT64, long_value: reading },
    ...measured.map(([name, unit], at) => {
      const value = now[name] ?? 0;
      return {
        ...(named ? { name, properties: toProperties(unit) } : {}),
        alias: FIRST_ALIAS + at,
        timestamp: ts,
        ...(unit === "0/1"
          ? { datatype: BOOLEAN, boolean_value: value === 1 }
          : { datatype: DOUBLE, double_value: value }),
      };
    }),
  ];
  return {
    encode: (reading) => [message(topic, reading, values(reading, false))],
    session: {
      will() {
        bdSeq = (bdSeq + 1) % 256;
        const metric = { name: BD_SEQ, datatype: INT64, long_value: bdSeq };
        return { topic: place("NDEATH"), payload: write({ timestamp: Date.now(), metrics: [metric] }) };
      },
      birth(reading) {
        seq = 0;
        const timestamp = reading.ts;
        const own: readonly Metric[] = [
          { name: BD_SEQ, timestamp, datatype: INT64, long_value: bdSeq },
          { name: REBIRTH, alias: REBIRTH_ALIAS, timestamp, datatype: BOOLEAN, boolean_value: false },
        ];
        const all = values(reading, true);
        if (device === undefined) return [message(place("NBIRTH"), reading, [...own, ...all])];
        return [message(place("NBIRTH"), reading, own), message(`${place("DBIRTH")}/${device}`, reading, all)];
      },
      commands: place("NCMD"),
      isRebirth(payload) {
        try {
          return read(payload).metrics.some(
            ({ name, alias, boolean_value }) =>
              boolean_value === true && (name === REBIRTH || (name === undefined && alias === REBIRTH_ALIAS)),
          );
        } catch {
          return false;
        }
      },
    },
  };
}

const toProperties = (unit: string): unknown => ({ keys: ["engUnit"], values: [{ type: STRING, string_value: unit }] });

function write(payload: Payload): Buffer {
  const { buffer, byteOffset, byteLength } = payloadType.encode(payload).finish();
  return Buffer.from(buffer, byteOffset, byteLength);
}

/** Throws for what is no such payload. A field that is missing is undefined. */
const read = (payload: Uint8Array): Payload =>
  payloadType.toObject(payloadType.decode(payload), { longs: Number, arrays: true }) as Payload;

function identityOf({ timestamp, metrics }: Payload): Identity | undefined {
  const reading = metrics.find(
    ({ name, alias }) => name === READING || (name === undefined && alias === READING_ALIAS),
  );
  return toIdentity({ ts: timestamp, seq: reading?.long_value ?? Number.NaN });
}
