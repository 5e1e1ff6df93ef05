// What the main thread and the writer's thread say to each other. Everything here can be cloned.

import type { MessagePort } from "node:worker_threads";
import type { ErrorCode } from "../errors.ts";
import type { Offset } from "../reading.ts";
import type { RecoveryReport } from "./recovery.ts";
import type { RetentionRules } from "./retention.ts";
import type { RingMemory } from "./ring.ts";
import type { Range, StoreFigures } from "./store.ts";

export interface WriterSetup {
  readonly dir: string;
  readonly streams: readonly string[];
  readonly segmentBytes: number;
  readonly rules: RetentionRules;
  /** Free space that the journal leaves on its disk; undefined: a standard share. */
  readonly reserveBytes: number | undefined;
  readonly ring: RingMemory;
  /** Commands come here; a kick of the ring follows each. */
  readonly commands: MessagePort;
}

export type WriterCommand =
  | { readonly kind: "trim"; readonly below: Offset; readonly keepFrom: number }
  | { readonly kind: "stop" };

/** What the main thread shows and decides by. */
export interface WriterFigures extends StoreFigures {
  /** On the journal's disk; Infinity when it does not tell. */
  readonly freeBytes: number;
  /** Less is free than the journal is to leave. */
  readonly isDiskLow: boolean;
}

/** The first message of an open journal. `failure`: the disk has refused the first segment; it is tried again. */
export interface WriterReady {
  readonly kind: "ready";
  /** The journal's. */
  readonly id: string;
  readonly table: SharedArrayBuffer;
  readonly next: Offset;
  readonly durable: Offset;
  readonly report: RecoveryReport;
  readonly figures: WriterFigures;
  readonly failure: string | undefined;
}

/** A commit is durable; `frames` slots of the ring are free. `refusal`: why the disk did not take it at first. */
export interface WriterDurable {
  readonly kind: "durable";
  readonly refusal: string | undefined;
  readonly to: Offset;
  readonly frames: number;
  /** Of its write and fdatasync. */
  readonly commitMs: number;
  readonly figures: WriterFigures;
}

export type WriterMessage =
  /** The journal cannot be opened. The thread ends. */
  | { readonly kind: "refused"; readonly code: ErrorCode; readonly detail: string }
  | WriterReady
  | WriterDurable
  /** Segments were deleted, or there is more or less room on the disk. `expired`: records that somebody still needed. */
  | { readonly kind: "swept"; readonly figures: WriterFigures; readonly expired: Range | undefined }
  /** The disk refuses a commit. It is tried again until a `durable` follows. */
  | { readonly kind: "failed"; readonly detail: string };
