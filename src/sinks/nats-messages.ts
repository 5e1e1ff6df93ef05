// The messages of the nats sink, and how a device id is written in a subject.

import type { Batch, Offset } from "../reading.ts";
import { toDocuments } from "./document.ts";
import type { RefusedEntry, Written } from "./sink.ts";
import { createTemplate } from "./template.ts";

/** The server closes a connection whose command is longer than 4,096 bytes (max_control_line): subject, reply subject, sizes. */
const SUBJECT_BYTES = 3_900;

export interface Message {
  readonly offset: Offset;
  readonly id: string;
  readonly subject: string;
  readonly payload: Buffer;
}

type Refusal = Written & { readonly kind: "except" };
type Messages = { readonly kind: "messages"; readonly messages: readonly Message[] } | Refusal;

/**
 * All messages of a batch, or which of its entries can never be one: then none of them is published. `most` is the server's
 * max_payload, in which the headers are counted.
 */
export function createMessages(
  { subject: template, stream }: { readonly subject: string; readonly stream?: string | undefined },
  most = Infinity,
): (batch: Batch) => Messages {
  const toSubject = createTemplate(template, toToken);
  const rest = `NATS/1.0\r\nNats-Msg-Id: \r\n${stream === undefined ? "" : `Nats-Expected-Stream: ${stream}\r\n`}\r\n`;
  const restBytes = Buffer.byteLength(rest);
  return (batch) => {
    const made = toDocuments(batch);
    if (made.kind === "except") return made;
    const refused: RefusedEntry[] = [];
    const messages: Message[] = [];
    for (const [index, { offset, reading }] of batch.entries.entries()) {
      const id = `${batch.gateway}/${offset}`;
      const subject = toSubject(reading);
      const payload = Buffer.from(made.documents[index] ?? "");
      const bytes = payload.length + restBytes + Buffer.byteLength(id);
      if (bytes > most) {
        refused.push({ offset, reason: `it would be ${bytes} bytes, and the server takes ${most} (max_payload)` });
      } else if (Buffer.byteLength(subject) > SUBJECT_BYTES) {
        refused.push({ offset, reason: `its subject would be longer than ${SUBJECT_BYTES} bytes` });
      } else messages.push({ offset, id, subject, payload });
    }
    const written = toWritten(refused);
    return written.kind === "except" ? written : { kind: "messages", messages };
  };
}

export function toWritten(refused: readonly RefusedEntry[]): { readonly kind: "all" } | Refusal {
  const [first, ...others] = refused;
  return first === undefined ? { kind: "all" } : { kind: "except", refused: [first, ...others] };
}

/** As a token, or a part of one: decodeURIComponent gives the value again, but for the empty one. */
const toToken = (value: string): string => (value === "" ? "%" : value.replaceAll(/[%.*>$\s\p{Cc}]/gu, encode));

const encode = (found: string): string =>
  [...Buffer.from(found)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");
