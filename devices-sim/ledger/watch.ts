// Listens to what the gateway tells of rejected messages while a run goes on, for a gateway whose files are elsewhere.
//
//   rejected.ndjson   ["rejected", device id, received at, print, reason] for each message seen on sluice/rejected/#

import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { connectAsync } from "mqtt";
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
  const { username, password } = options;
  const host = options.host.includes(":") ? `[${options.host}]` : options.host;
  const client = await connectAsync(
    `mqtt://${host}:${options.port}`,
    {
      clientId,
      protocolVersion: options.protocolVersion,
      connectTimeout: options.connectTimeoutMs,
      ...(username !== undefined && { username: username.replaceAll("{device}", clientId) }),
      ...(password !== undefined && { password: password.replaceAll("{device}", clientId) }),
    },
    false,
  ).catch((cause: unknown) => {
    const { message } = cause as Error;
    throw new Error(`${clientId} cannot listen to ${TOPIC}: ${message}`, { cause });
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
