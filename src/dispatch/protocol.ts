// What the main thread and the worker of a consumer say to each other. Everything here can be cloned.

import { join } from "node:path";
import type { JournalShare } from "../journal/reader.ts";
import type { Issue, Message, Offset, QoS, RejectionReason, UnixMs } from "../reading.ts";
import type { BackoffOptions } from "./retry.ts";

/** Holds one cursor file per consumer. */
export const cursorsDir = (dataDir: string): string => join(dataDir, "journal", "cursors");

/** Of the inbox of rejected messages, among the consumers; no sink and no handler may take it. */
export const inboxName = "rejects";

/** One sink or handler of the configuration, or the inbox of rejected messages. */
export interface Consumer {
  readonly kind: "sink" | "handler" | "inbox";
  readonly name: string;
}

/** A worker that has its event loop to itself says so this often. */
export const aliveMs = 1_000;

/** What a worker is started with. It loads the configuration file itself, because functions cannot be cloned. */
export interface WorkerSettings {
  readonly consumer: Consumer;
  readonly configFile: string;
  /** Of the validated configuration: with the environment applied. */
  readonly dataDir: string;
  readonly share: JournalShare;
  readonly statusMs: number;
  readonly backoff: Omit<BackoffOptions, "random">;
  /** How the worker's last life ended; undefined: this is the first one, of this process. */
  readonly lastEnd?: WorkerEnd | undefined;
  /** Of the inbox: how much of the rejected messages is kept. */
  readonly keep?: { readonly records: number; readonly bytes: number } | undefined;
}

export interface WorkerEnd {
  /** As a sentence for the operator. */
  readonly reason: string;
  /** It was restarted on purpose. */
  readonly wanted: boolean;
}

/** What became of a rejected message that was tried again. taken: it is in the journal, perhaps from before. */
export type TakenAgain =
  | { readonly kind: "taken" }
  | { readonly kind: "rejected"; readonly reason: RejectionReason; readonly issues: readonly Issue[] };

/**
 * Attempts that failed. transient: they are made again. refused: for the content of what was written, which was then written
 * without what is to blame. misconfigured: made again, and a person is needed.
 */
export type ErrorCounts = Readonly<Record<"transient" | "refused" | "misconfigured", number>>;

/** How a worker is doing. The counts are since it was started. */
export interface WorkerStatus {
  readonly state: "starting" | "running" | "retrying" | "misconfigured";
  /** Everything below is with the consumer or parked. */
  readonly position: Offset;
  /** What of `position` survives a crash: the journal must keep everything at or above it. */
  readonly durable: Offset;
  /** Readings that the consumer confirmed. */
  readonly delivered: number;
  readonly parked: number;
  /** Records that are not for this consumer: rejected ones, and those of other streams for a handler. */
  readonly passed: number;
  /** Records that the journal no longer had. */
  readonly expired: number;
  readonly errors: ErrorCounts;
  readonly lastError: string | undefined;
  /** When the oldest record was received that is in hand; undefined when it has caught up. */
  readonly oldestReceivedAt: UnixMs | undefined;
  /** When it had last caught up; what is waiting now and not in hand was received later. */
  readonly caughtUpAt: UnixMs | undefined;
}

export type FromWorker =
  /** Once every `aliveMs`: its event loop turns. */
  | { readonly kind: "alive" }
  | { readonly kind: "status"; readonly status: WorkerStatus }
  | { readonly kind: "log"; readonly level: "warn" | "error"; readonly text: string }
  | { readonly kind: "publish"; readonly id: number; readonly message: HandlerMessage }
  /** Nobody waits for its answer any longer. */
  | { readonly kind: "withdraw"; readonly id: number }
  /** Rejected messages of the inbox are to be tried again; the next come after the answer. */
  | { readonly kind: "takeAgain"; readonly messages: readonly Message[] }
  /** Everything is written and closed: the worker may be ended. */
  | { readonly kind: "stopped" };

export type ToWorker =
  /** Finish the batch and close. */
  | { readonly kind: "stop" }
  /** Nobody waits any longer. */
  | { readonly kind: "abort" }
  | { readonly kind: "published"; readonly id: number; readonly error: string | undefined }
  /** One outcome for each message, durable; or why nothing is known of them. */
  | { readonly kind: "takenAgain"; readonly outcomes: readonly TakenAgain[]; readonly error?: string };

/** What a handler publishes. */
export interface HandlerMessage {
  readonly topic: string;
  readonly payload: string | Uint8Array;
  readonly qos: QoS;
  readonly retain: boolean;
}
