// What all connections of one broker share.

import type { Client } from "aedes";
import type { EventBus } from "../events.ts";
import type { QoS } from "../reading.ts";
import type { Latency, Traffic } from "../telemetry.ts";
import type { Admission } from "./admission.ts";
import type { AedesStream } from "./aedes-stream.ts";
import type { TelemetryTarget } from "./broker.ts";
import type { Connection } from "./connection.ts";
import type { WireLimits } from "./frames.ts";
import type { Limits } from "./limits.ts";
import type { RetainedMessages } from "./retained.ts";
import type { Sessions } from "./sessions.ts";
import type { Wills } from "./wills.ts";

/** What all connections of a broker share. */
export interface ConnectionContext {
  readonly target: TelemetryTarget;
  readonly limits: Limits;
  readonly wireLimits: WireLimits;
  readonly events: EventBus;
  readonly traffic: Traffic;
  readonly puback: Latency;
  readonly connections: Set<Connection>;
  readonly admission: Admission;
  readonly sessions: Sessions;
  readonly retained: RetainedMessages;
  readonly wills: Wills;
  /** Connections that owe acknowledgements: looked at once per commit. */
  readonly owing: Set<Connection>;
  /** True from shutdown on: nothing is read any more. */
  readonly stopped: () => boolean;
  /** Starts an Aedes client on the stream. */
  readonly attach: (stream: AedesStream, connection: Connection) => Client;
  /** True when somebody subscribes to the topic; good until `matchVersion` changes. */
  readonly matches: (topic: string) => boolean;
  readonly matchVersion: () => number;
  /** Shows accepted telemetry to subscribers. `packet` is the whole PUBLISH in MQTT 5, for its properties. */
  readonly show: (shown: ShownMessage) => void;
}

export interface ShownMessage {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: QoS;
  readonly retain: boolean;
  readonly clientId: string;
  /** The MQTT 5 PUBLISH as it came, when it has properties. */
  readonly packet: Buffer | undefined;
}
