// The contract of an encoding: bytes to a value. One file per encoding beside this one.

import type { Issue } from "../reading.ts";

/**
 * What became of a payload. `undecodable` always has at least one issue. `shape` is the same object for values that have the same
 * keys in the same places, so that what depends on the keys alone can be done once; without it nothing is known of them.
 */
export type Decoded =
  | { readonly kind: "decoded"; readonly value: unknown; readonly shape?: object | undefined }
  | { readonly kind: "undecodable"; readonly issues: readonly Issue[] };

/**
 * An encoding of payloads. `decode` is called once for each telemetry PUBLISH on the gateway's main thread, and again for
 * each record in a sink's worker, so it must give the same answer for the same bytes. It is synchronous, never throws,
 * does not keep `payload` (which may be a view of a socket's buffer) and returns nothing that refers to its memory.
 */
export interface Codec {
  /** Names the encoding in metrics and in the log. */
  readonly name: string;
  /** What MQTT 5 devices call it: media types in lower case, without parameters. Without any, none. */
  readonly contentTypes?: readonly string[];
  decode(payload: Uint8Array): Decoded;
  /**
   * A `decode` for one stream, which may learn from what it reads to read the like of it faster. It gives the same answers.
   * Without it `decode` serves all streams.
   */
  readonly createDecoder?: () => Codec["decode"];
}
