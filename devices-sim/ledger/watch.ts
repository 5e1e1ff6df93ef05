// Listens to what the gateway tells of rejected messages while a run goes on, for a gateway whose files are elsewhere.
//
//   rejected.ndjson   ["rejected", device id, received at, print, reason] for each message seen on sluice/rejected/#

import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { MqttClient } from "mqtt";
import { createDialer } from "../connection/dialer.ts";
import { toFailure } from "../connection/failure.ts";
import { createIdentities } from "../connection/identities.ts";
import type { SimOptions } from "../options.ts";
import { fingerprintOfPayload } from "./fingerprint.ts";
import { REJECTED_FILE, type RejectedLine } from "./format.ts";
import { readLines } from "./lines.ts";
import { LineWriter } from "./line-writer.ts";

const TOPIC = "sluice/rejected/#";
/** The gateway shows no more of a payload; what is as long cannot be known again. */
const SHOWN_BYTES = 1024;
const QUIET_MS = 1000;

/** Disposing ends the file; again: does nothing. */
export interface RejectionWatch extends AsyncDisposable {
  /** Resolves when so many were seen, or none for a second. */
  settled(expected: number): Promise<void>;
}

/** Resolves when it listens. Rejects when the broker does not let it. */
export async function openRejectionWatch(dir: string, options: SimOptions): Promise<RejectionWatch> {
  const clientId = `${options.idPrefix}watch`;
  const first = createIdentities(options)(0);
  // Of a fleet whose devices each have an identity of their own it is another client of the first one.
  const { username, password } = options.credentials === undefined ? { ...options } : first;
  const client = new MqttClient(createDialer(options)(first.device, 0), {
    clientId,
    protocolId: "MQTT",
    protocolVersion: options.protocolVersion,
    connectTimeout: options.connectTimeoutMs,
    reconnectPeriod: options.reconnectMs,
    ...(username !== undefined && { username: username.replaceAll("{device}", clientId) }),
    ...(password !== undefined && { password: password.replaceAll("{device}", clientId) }),
  });
  await connected(client).catch(async (error: unknown) => {
    await client.endAsync(true);
    throw new Error(`${clientId} cannot listen to ${TOPIC}: ${(error as Error).message}`, { cause: error });
  });
  const lines = new LineWriter<RejectedLine>(join(dir, REJECTED_FILE));
  let seen = 0;
  client.on("message", (_topic, payload) => {
    const line = toLine(payload);
    if (line === undefined) return;
    seen += 1;
    lines.add(line);
  });
  client.on("error", () => {
    // It connects again; what was missed meanwhile is missing in the file, and told as not rejected.
  });
  await client.subscribeAsync(TOPIC, { qos: 1 });
  return {
    async settled(expected) {
      let before: number;
      do {
        before = seen;
        if (before < expected) await delay(QUIET_MS);
      } while (before !== seen);
    },
    async [Symbol.asyncDispose]() {
      if (client.disconnecting) return;
      await client.endAsync(true);
      lines[Symbol.dispose]();
    },
  };
}

/** Rejects when the first attempt fails. */
async function connected(client: MqttClient): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  client.once("connect", () => resolve());
  client.once("error", (error) => reject(new Error(toFailure(error).text, { cause: error })));
  client.once("close", () => reject(new Error("the broker closed the connection")));
  await promise;
}

/** What was seen. Rejects when nobody listened. */
export async function* readSeen(dir: string): AsyncGenerator<RejectedLine> {
  for await (const lines of readLines(join(dir, REJECTED_FILE))) {
    for (const line of lines) yield JSON.parse(line) as RejectedLine;
  }
}

/** Undefined: it is none of the gateway's, or too long. */
function toLine(message: Buffer): RejectedLine | undefined {
  const { time, device, reason, payload } = parse(message);
  if (time === undefined || device === undefined || reason === undefined || payload === undefined) return undefined;
  const bytes = Buffer.from(payload, "base64");
  if (bytes.length >= SHOWN_BYTES) return undefined;
  return ["rejected", device, Date.parse(time), fingerprintOfPayload(bytes), reason];
}

function parse(message: Buffer): Partial<Readonly<Record<"time" | "device" | "reason" | "payload", string>>> {
  try {
    return (JSON.parse(message.toString()) ?? {}) as ReturnType<typeof parse>;
  } catch {
    return {};
  }
}
