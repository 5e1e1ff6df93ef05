// The log: a listener of the event bus, and one summary line a second while there is traffic. INFO tells what happens,
// WARN what an operator may want to look into, ERROR that data was lost or a person is needed.

import type { Logger } from "pino";
import type { EventBus } from "../events.ts";
import { openLoopLag, quantileMs, type Telemetry } from "../telemetry.ts";

export interface LogOptions {
  readonly log: Logger;
  readonly events: EventBus;
  readonly telemetry: Telemetry;
  readonly consumers: () => readonly {
    readonly name: string;
    readonly lagRecords: number;
    readonly delivered: number;
  }[];
  readonly intervalMs?: number;
}

const DISK_HINT = "Look into the system's log for errors of the disk.";

/** Clients that miss messages are told of once a minute, and no more than this. */
const MISSED_EVERY = 60;
const MISSED_CLIENTS = 20;

/** At most this many lines a second tell of single clients or messages; the rest is in the summary's counters. */
const DETAILS_PER_SECOND = 10;

export function openLog({ log, events, telemetry, consumers, intervalMs = 1000 }: LogOptions): Disposable {
  let budget = DETAILS_PER_SECOND;
  const sparing = (write: () => void): void => {
    if (budget > 0) {
      budget -= 1;
      write();
    }
  };
  events.on("connected", (clientId, remoteAddress, protocolVersion) => {
    sparing(() => log.debug({ clientId, remoteAddress, protocolVersion }, "client connected"));
  });
  events.on("disconnected", (clientId, reason, detail) => {
    const level = reason === "client" || reason === "closed" || reason === "shutdown" ? "debug" : "warn";
    sparing(() => log[level]({ clientId, reason }, `client disconnected: ${detail}`));
  });
  events.on("turnedAway", (remoteAddress, reason, detail) => {
    sparing(() => log.warn({ remoteAddress, reason }, `connection turned away: ${detail}`));
  });
  events.on("rejected", ({ topic, clientId }, { stream, reason, issues }, offset) => {
    sparing(() => log.warn({ stream, clientId, topic, reason, issues, offset }, "message rejected"));
  });
  events.on("refused", (clientId, topic, reason) => {
    // A duplicate is acknowledged and nothing to look into; it must not use up the lines of those that are.
    if (reason === "duplicate" && !log.isLevelEnabled("debug")) return;
    const level = reason === "duplicate" ? "debug" : "warn";
    sparing(() => log[level]({ clientId, topic, reason }, "message refused"));
  });
  const missed = new Map<string, number>();
  events.on("dropped", (clientId, _topic, messages = 1) => {
    const before = missed.get(clientId);
    if (before !== undefined || missed.size < MISSED_CLIENTS) missed.set(clientId, (before ?? 0) + messages);
  });
  const tellMissed = (): void => {
    for (const [clientId, messages] of missed) {
      log.warn({ clientId, messages }, "messages were dropped for a client: its queue is full or its limit smaller");
    }
    missed.clear();
  };
  let taking = true;
  events.on("journal", (state, hint) => {
    // One ERROR line for one trouble, also when a full journal's disk then refuses, or the other way round.
    if (state === "open") log.info({ state }, hint);
    else log[taking ? "error" : "warn"]({ state }, hint);
    taking = state === "open";
  });
  let ticks = 0;
  let toldWriteError = false;
  events.on("writeError", (detail) => {
    // A disk that fails now and then may do so at each commit: one line a second, the metric counts them all.
    if (toldWriteError) return;
    toldWriteError = true;
    log.error({ detail }, `a write to the journal failed and went to another file, nothing is lost. ${DISK_HINT}`);
  });
  events.on("filling", (share, slowest) => {
    log.warn({ percent: Math.floor(share * 100), slowest }, "the journal is filling up with what a sink has not read");
  });
  events.on("expired", (from, to, slowest) => {
    log.error(
      { from, to, records: to - from, slowest },
      "the full journal has deleted records that a sink had not read",
    );
  });
  events.on("consumer", (name, state, detail) => {
    const text = detail === "" ? `${name} is ${state}` : `${name} is ${state}: ${detail}`;
    const level = state === "retrying" ? "warn" : state === "misconfigured" ? "error" : "info";
    log[level]({ consumer: name, state }, text);
  });
  const timer = setInterval(() => {
    budget = DETAILS_PER_SECOND;
    toldWriteError = false;
    summarise();
    ticks += 1;
    if (ticks % MISSED_EVERY === 0) tellMissed();
  }, intervalMs);
  timer.unref();

  let before = { ...telemetry.outcomes.totals };
  let beforePuback = telemetry.puback.snapshot();
  let lagging = false;
  const loop = openLoopLag();
  function summarise(): void {
    const { totals } = telemetry.outcomes;
    const lag = Object.fromEntries(consumers().map(({ name, lagRecords }) => [name, lagRecords]));
    const moved = totals.received !== before.received;
    const stillLagging = Object.values(lag).some((records) => records > 0);
    if (moved || lagging) {
      const puback = telemetry.puback.snapshot();
      log.info(
        {
          clients: telemetry.traffic.clientsConnected,
          received: totals.received - before.received,
          accepted: totals.accepted - before.accepted,
          rejected: totals.rejected - before.rejected,
          refused: totals.refused - before.refused,
          pubackP99Ms: quantileMs(beforePuback, puback, 0.99),
          loopLagP99Ms: Number(loop.read().p99.toFixed(1)),
          lag,
        },
        "traffic",
      );
      beforePuback = puback;
    }
    loop.reset();
    before = { ...totals };
    lagging = stillLagging;
  }

  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      summarise();
      tellMissed();
      loop[Symbol.dispose]();
    },
  };
}
