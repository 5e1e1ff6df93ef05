// The ledger of a run, a folder on disk that anybody can read with jq, DuckDB or grep:
//
//   run.json            what the run was asked for, when it began and, if it was not killed, when it ended
//   worker-0.ndjson …   what the devices of each thread sent and were told, a line of JSON for each event, in its order
//   rejected.ndjson     what was seen on sluice/rejected/#, with --watch-rejected
//
//   ["device", device, id, topic]                             `device` is the number that its other lines have
//   ["sent", device, message, at, qos, seq, bytes, print]     handed to the connection; `message` counts from 0 for each device,
//                                                             `print` is its fingerprint (fingerprint.ts), `bytes` its payload's length
//   ["sent", …, print, fault, reason, topic]                  spoilt in this way, to be rejected for this reason (""; a good one; "ignored":
//                                                             nobody has it; "too-large": never acknowledged); `topic` if it is
//                                                             another one than the device's
//   ["again", device, message, at, session]                   handed over once more, after a reconnect or on purpose; `session` 1: in the
//                                                             same session
//   ["ack", device, message, at]                              PUBACK, or PUBREC with QoS 2
//   ["ack", device, message, at, code, reason]                the same of MQTT 5, with a code but 0, and the user property `reason` or ""
//   ["fault", device, name, at]                               it happened to the device's clock or connection
//   ["done", device, message, at]                             PUBCOMP
//   ["rejected", device id, at, print, reason]                in rejected.ndjson: by the gateway's clock
//
// Times are in milliseconds since 1970. A line is complete when it ends with a line feed: a simulator that was killed leaves
// at most its last lines unwritten, those of the last tenth of a second, and one of them cut short.

import type { SimOptions } from "../options.ts";
import type { Fingerprint } from "./fingerprint.ts";

export type LedgerLine =
  | readonly ["device", device: number, id: string, topic: string]
  | readonly [
      kind: "sent",
      device: number,
      message: number,
      atMs: number,
      qos: number,
      seq: number,
      bytes: number,
      print: Fingerprint,
      fault?: string,
      reason?: string,
      topic?: string,
    ]
  | readonly ["again", device: number, message: number, atMs: number, session: 0 | 1]
  | readonly ["ack", device: number, message: number, atMs: number, code?: number, reason?: string]
  | readonly ["fault", device: number, name: string, atMs: number]
  | readonly ["done", device: number, message: number, atMs: number];

export type RejectedLine = readonly ["rejected", deviceId: string, atMs: number, print: Fingerprint, reason: string];

export const LEDGER_VERSION = 1;

/** `run.json`. */
export interface Run {
  readonly version: typeof LEDGER_VERSION;
  readonly startedAt: number;
  /** Undefined while it runs, and for ever when it was killed. */
  readonly endedAt?: number;
  readonly options: Omit<SimOptions, "password" | "path">;
}

export const RUN_FILE = "run.json";
export const workerFile = (thread: number): string => `worker-${thread}.ndjson`;
export const WORKER_FILE = /^worker-\d+\.ndjson$/;
export const REJECTED_FILE = "rejected.ndjson";
