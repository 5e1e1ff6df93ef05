// What a payload shape is: how a firmware puts a reading into messages.

import type { Telemetry } from "../telemetry.ts";

/** A PUBLISH to be. */
export interface Message {
  readonly topic: string;
  readonly payload: string | Buffer;
  /** Of a payload that is not JSON: the value that it stands for, as a gateway that decodes it has it. */
  readonly value?: unknown;
}

/** The device whose messages are encoded. */
export interface Sender {
  readonly id: string;
  /** `--topic` with the device's id in its place. */
  readonly topic: string;
  /** Metric → unit, in the order in which they are measured. What is on or off has the unit "0/1". */
  readonly metrics: Readonly<Record<string, string>>;
}

/** The messages of one device, one after the other: it may have a state, such as a sequence number. */
export interface Encoder {
  /** One reading, in one message or more. */
  encode(reading: Telemetry): readonly Message[];
  /** Only firmwares that announce themselves (Sparkplug). */
  readonly session?: SessionEncoder;
}

/** What a firmware says about its connection. */
interface SessionEncoder {
  /** Called before each CONNECT: its will, and what the device sends itself before it disconnects in order. */
  will(): Message;
  /** What it says first after each CONNACK, and whenever it is asked to; `reading.seq` is that of the last reading. */
  birth(reading: Telemetry): readonly Message[];
  /** Where the device is told to say it again. */
  readonly commands: string;
  isRebirth(payload: Uint8Array): boolean;
}

/** What a payload says of itself; a gap in `seq` is a lost reading. */
export interface Identity {
  readonly ts: number;
  readonly seq: number;
}

export interface PayloadShape {
  /** Where real devices publish it; {device} is the device's id. */
  readonly topic: string;
  /**
   * That of a run without --qos. 0 only where it is demanded (Sparkplug): without an acknowledgement there is nothing to hold a
   * gateway to. Tasmota itself can publish with 0 only, and in Zigbee2MQTT it is a setting of each device.
   */
  readonly qos: 0 | 1 | 2;
  open(sender: Sender): Encoder;
  /**
   * Reads a payload back, undefined when it has no reading. Left out where the firmware has no place for a sequence number: what
   * was sent can then be known again by its content only.
   */
  readIdentity?(payload: Uint8Array): Identity | undefined;
}

/** The identity in a JSON object, found by `pick`. */
export function readJson(payload: Uint8Array, pick: (value: Telemetry) => Identity): Identity | undefined {
  try {
    return toIdentity(pick(JSON.parse(Buffer.from(payload).toString()) as Telemetry));
  } catch {
    return undefined;
  }
}

export const toIdentity = ({ ts, seq }: Identity): Identity | undefined =>
  Number.isInteger(ts) && Number.isInteger(seq) ? { ts, seq } : undefined;
