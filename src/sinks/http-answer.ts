// What the answer of an HTTP server means for a batch, by its status: RFC 9110, section 15.

import type { HttpAnswer } from "./http-client.ts";
import { SinkError } from "./sink.ts";
import type { Written } from "./sink.ts";

/** What may pass by itself. 409: a request with the same Idempotency-Key is still at work. */
const passing = new Set([408, 409, 421, 423, 425, 429]);

/** What only a person can mend. */
const hints: Readonly<Record<number, string>> = {
  401: "It wants to know who writes: check token, or username and password.",
  403: "It knows who writes and does not allow it: check what token or user may do.",
  404: "There is nothing at this place: check url.",
  405: "It takes no such method there: check url and method.",
  407: "A proxy in between wants to know who writes.",
  410: "There is nothing at this place any more: check url.",
  411: "It must take a body of a known length.",
};

/** Go's net/http and nginx say so with 400. The whole answer, because others may repeat what a device has sent. */
const isForTls =
  /^Client sent an HTTP request to an HTTPS server\.\s*$|<title>400 The plain HTTP request was sent to HTTPS port<\/title>/;

/**
 * all for 2xx, and refused for what is about the content: 400 and 422, and 413, for which smaller batches help.
 * Throws a SinkError for all others, which says the status and what the server has to say of it. `place` is the server as
 * messages name it.
 */
export function judge(answer: HttpAnswer, place: string): Written & { readonly kind: "all" | "refused" } {
  const { status, headers, body } = answer;
  if (status >= 200 && status < 300) return { kind: "all" };
  const said = toSentence(answer);
  const fail = (kind: SinkError["kind"], hint?: string): SinkError =>
    new SinkError(kind, `${place}: ${[said, hint].filter(Boolean).join(" ")}`, {
      retryAfterMs: toRetryAfterMs(headers["retry-after"]),
    });
  if (status >= 500 || passing.has(status)) throw fail("transient");
  if (status === 413) return { kind: "refused", reason: `it is larger than the server takes: ${said}` };
  if (status === 400 && isForTls.test(body)) {
    throw fail("misconfigured", "The port is for TLS: the url must begin with https://.");
  }
  if (status === 400 || status === 422) return { kind: "refused", reason: `the server refuses it: ${said}` };
  if (status >= 300 && status < 400) throw fail("misconfigured", toNewPlace(headers.location, place));
  throw fail("misconfigured", hints[status]);
}

function toNewPlace(location: string | undefined, place: string): string {
  const to = location === undefined ? null : URL.parse(location, place);
  return to === null ? "Redirects are not followed." : `It is at ${to.origin}${to.pathname} now: change url.`;
}

/** Seconds or a date: RFC 9110, section 10.2.3. undefined for anything else. */
export function toRetryAfterMs(value: string | undefined, nowMs = Date.now()): number | undefined {
  if (value === undefined) return undefined;
  if (/^\s*\d+\s*$/.test(value)) return Number(value) * 1_000;
  const ms = Date.parse(value) - nowMs;
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

const SENTENCE_LENGTH = 400;

/** `503 Service Unavailable: what it says.` in one line; of JSON the message in it, of a page nothing. */
export function toSentence({ status, statusText, headers, body }: HttpAnswer): string {
  const isPage = /html/i.test(headers["content-type"] ?? "");
  const said = (isPage ? "" : (toMessage(body) ?? body)).replaceAll(/[\s\p{C}]+/gu, " ").trim();
  const short = said.length > SENTENCE_LENGTH ? `${said.slice(0, SENTENCE_LENGTH)}…` : said;
  const head = `${status} ${statusText}`.trim();
  return `${head}${short === "" ? "" : `: ${short.replace(/\.$/, "")}`}.`;
}

/** As InfluxDB, most JSON services and RFC 9457 have it. */
function toMessage(body: string): string | undefined {
  try {
    const { error, message, detail, title } = Object(JSON.parse(body)) as Readonly<Record<string, unknown>>;
    return [error, message, detail, title].find((text) => typeof text === "string");
  } catch {
    return undefined;
  }
}
