// What a handler publishes: telemetry when its topic belongs to a stream, else an ordinary message.

import { setTimeout } from "node:timers/promises";
import type { Journal } from "../journal/journal.ts";
import type { QoS } from "../reading.ts";
import type { Intake } from "./intake.ts";

interface Published {
  readonly topic: string;
  readonly payload: string | Uint8Array;
  readonly qos: QoS;
  readonly retain: boolean;
}

export interface HandlerIntakeOptions {
  readonly intake: Pick<Intake, "route" | "take">;
  readonly journal: Pick<Journal, "congested" | "ready" | "state" | "stats" | "flush">;
  /** To subscribers. Rejects when the broker refuses to. */
  readonly show: (message: Published & { readonly payload: Uint8Array }) => Promise<void>;
  /** Nothing holds the journal as far back as this handler. */
  readonly isLast: (handler: string) => boolean;
}

/**
 * Resolves when the message is taken over: on a stream's topic when it is durable. Rejects with the reason when it is refused,
 * and when the signal aborts while it waits for room.
 */
export type HandlerIntake = (handler: string, message: Published, signal: AbortSignal) => Promise<void>;

/** A journal that is full of what a handler has not done yet may grow by this share for what the handler publishes meanwhile. */
const overdraft = 1 / 8;
/** A full journal is full of that if it is not only its disk that has no room. */
const fullShare = 7 / 8;
/** From one look to the next whether a handler is the last. */
const lookMs = 1_000;

export function createHandlerIntake({ intake, journal, show, isLast }: HandlerIntakeOptions): HandlerIntake {
  /** A handler waits like a socket does, unless it would wait for itself. */
  async function awaitRoom(handler: string, signal: AbortSignal): Promise<void> {
    if (!journal.congested) return;
    const ready = journal.ready();
    while (journal.congested && !mayOverdraw(handler)) {
      await Promise.race([ready, setTimeout(lookMs, undefined, { signal })]);
    }
  }

  function mayOverdraw(handler: string): boolean {
    if (journal.state !== "full") return false;
    const { bytes, maxBytes } = journal.stats();
    return bytes >= maxBytes * fullShare && bytes < maxBytes * (1 + overdraft) && isLast(handler);
  }

  return async (handler, message, signal) => {
    const { topic, qos } = message;
    const payload = typeof message.payload === "string" ? Buffer.from(message.payload) : message.payload;
    const route = intake.route(topic);
    if (route === undefined) return show({ ...message, payload });
    await awaitRoom(handler, signal);
    const clientId = `sluice/handler/${handler}`;
    const verdict = intake.take(
      { topic, payload, clientId, deviceId: route.deviceId ?? clientId, receivedAt: Date.now(), qos, packetId: 0 },
      route,
    );
    if (verdict.kind === "rejected") {
      const { reason, issues } = verdict.rejection;
      throw new Error(`${topic}: ${reason}: ${issues.map(({ path, message: text }) => `${path} ${text}`).join("; ")}`);
    }
    await journal.flush();
    if (verdict.kind !== "duplicate") await show({ ...message, payload });
  };
}
